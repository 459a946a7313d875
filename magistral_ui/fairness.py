"""The rules of fairness between visitors: who is next, and whose value makes room in a full cache; it does not know what for."""

from collections import Counter
from collections.abc import Callable, Container
from typing import TypeVar

from cachetools import Cache

Key = TypeVar("Key")
Value = TypeVar("Value")


class FairShares:
    """What each party, such as an address or a visitor, has in work. Its owner holds a lock while it asks."""

    def __init__(self) -> None:
        self._working: Counter[str] = Counter()
        self._served: dict[str, int] = {}
        """At which turn a party was served last; forgotten once it has nothing in work and nothing waiting."""
        self._turn = 0

    @property
    def working(self) -> int:
        """Pieces in work, of all parties."""
        return self._working.total()

    def rank(self, party: str) -> tuple[int, int]:
        """The lowest rank of those that wait is next."""
        return self._working[party], self._served.get(party, 0)

    def begin(self, party: str) -> None:
        """A piece of the party's is in work now."""
        self._turn += 1
        self._served[party] = self._turn
        self._working[party] += 1

    def end(self, party: str, waiting: Container[str]) -> None:
        """It is done; `waiting` are the parties that wait."""
        self._working[party] -= 1
        if not self._working[party]:
            del self._working[party]
            if party not in waiting:
                self._served.pop(party, None)


class FairCache(Cache[Key, Value]):
    """Values with an owner each. The one that makes room is the least recently used of the owner who has most.

    So nobody can flush what belongs to others, as they could from a cache that is only least recently used.
    """

    def __init__(self, maxsize: float, owner: Callable[[Value], str]) -> None:
        super().__init__(maxsize)
        self._owner = owner
        self._keys: dict[str, dict[Key, None]] = {}
        """The keys of each owner, the least recently used first."""

    def __getitem__(self, key: Key) -> Value:
        value = super().__getitem__(key)
        keys = self._keys[self._owner(value)]
        del keys[key]
        keys[key] = None
        return value

    def __setitem__(self, key: Key, value: Value) -> None:
        if key in self:
            del self[key]
        # Counted before room is made for it: whoever adds one too many gives up one of their own.
        self._keys.setdefault(self._owner(value), {})[key] = None
        super().__setitem__(key, value)

    def __delitem__(self, key: Key) -> None:
        owner = self._owner(super().__getitem__(key))
        super().__delitem__(key)
        del self._keys[owner][key]
        if not self._keys[owner]:
            del self._keys[owner]

    def popitem(self) -> tuple[Key, Value]:
        """Remove the value that makes room."""
        owner = max(self._keys, key=lambda each: len(self._keys[each]))
        key = next(iter(self._keys[owner]))
        value = super().__getitem__(key)
        del self[key]
        return key, value
