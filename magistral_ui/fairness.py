"""Fairness between visitors: places, rates, turns, and whose value a full cache evicts; it does not know what is shared."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Container
from dataclasses import dataclass
from math import inf
from typing import Literal, TypeVar

from cachetools import Cache, LRUCache

Key = TypeVar("Key")
Value = TypeVar("Value")
MAX_BUCKETS = 20_000
"""Names that are remembered, in about 5 MB. The least recently used one is forgotten first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How many places there are: in all, for each visitor and for each address. A place is taken by a visitor at an address."""

    in_all: float = inf
    of_visitor: float = inf
    of_address: float = inf

    def reached(
        self, taken: Collection[tuple[str, str]], visitor: str, address: str
    ) -> Literal["in_all", "of_visitor", "of_address"] | None:
        """The bound that the places `taken` already reach; None if one more is allowed."""
        if len(taken) >= self.in_all:
            return "in_all"
        if sum(each == visitor for each, _ in taken) >= self.of_visitor:
            return "of_visitor"
        if sum(each == address for _, each in taken) >= self.of_address:
            return "of_address"
        return None


class TokenBuckets:
    """A rate per minute for each name, with bursts: each name has a bucket that refills over time. Thread-safe."""

    def __init__(
        self,
        per_minute: float,
        burst: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        kept: int = MAX_BUCKETS,
    ) -> None:
        """`burst` is what a full bucket holds: half a minute's, unless it is given."""
        self._per_second, self._clock = per_minute / 60, clock
        self._burst = burst if burst is not None else max(1.0, per_minute / 2)
        self._lock = threading.Lock()
        self._buckets: LRUCache[str, tuple[float, float]] = LRUCache(kept)
        """What is in a bucket, and when that was computed."""

    def wait(self, name: str, cost: float = 1.0) -> float:
        """Seconds until `name` may; 0.0 if it may now. Takes nothing."""
        with self._lock:
            return self._wait(name, cost)

    def take(self, name: str, cost: float = 1.0) -> float:
        """Take `cost` out of the bucket and return 0.0; if there is not enough, return the seconds until there is."""
        with self._lock:
            if wait := self._wait(name, cost):
                return wait
            self._put(name, self._level(name) - cost)
            return 0.0

    def owe(self, name: str, cost: float) -> None:
        """Take out `cost` for what has happened already, even if that leaves the bucket in debt."""
        with self._lock:
            self._put(name, max(-self._burst, self._level(name) - cost))

    def clear(self, name: str) -> None:
        with self._lock:
            self._buckets.pop(name, None)

    def __len__(self) -> int:
        return len(self._buckets)

    def _level(self, name: str) -> float:
        level, when = self._buckets.get(name, (self._burst, 0.0))
        return min(self._burst, level + (self._clock() - when) * self._per_second)

    def _wait(self, name: str, cost: float) -> float:
        short = min(cost, self._burst) - self._level(name)
        if short <= 0:
            return 0.0
        return short / self._per_second if self._per_second else float("inf")

    def _put(self, name: str, level: float) -> None:
        self._buckets[name] = (level, self._clock())


class RateLimit:
    """A rate per minute for each visitor and one for each address: both have to allow it."""

    def __init__(self, of_visitor: float, of_address: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._of_visitor = TokenBuckets(of_visitor, clock=clock)
        self._of_address = TokenBuckets(of_address, clock=clock)

    def take(self, visitor: str, address: str, cost: float = 1.0) -> float:
        """Take `cost` from both and return 0.0; if one has too little, take nothing and return the seconds to wait."""
        with self._lock:  # between the check and the taking, another thread might take the same tokens
            if wait := self._of_visitor.wait(visitor, cost) or self._of_address.wait(address, cost):
                return wait
            self._of_visitor.take(visitor, cost)
            self._of_address.take(address, cost)
            return 0.0


class FairShares:
    """Who is next: the owner (address or visitor) with the fewest running tasks, then the longest unserved. Not thread-safe."""

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()
        self._served: dict[str, int] = {}
        """The turn at which an owner was last served; forgotten once none of their tasks runs or waits."""
        self._turn = 0

    @property
    def running(self) -> int:
        return self._running.total()

    def rank(self, owner: str) -> tuple[int, int]:
        """Of those who wait, the lowest rank is next."""
        return self._running[owner], self._served.get(owner, 0)

    def begin(self, owner: str) -> None:
        self._turn += 1
        self._served[owner] = self._turn
        self._running[owner] += 1

    def end(self, owner: str, waiting: Container[str]) -> None:
        """It has ended; `waiting` are the owners who wait."""
        self._running[owner] -= 1
        if not self._running[owner]:
            del self._running[owner]
            if owner not in waiting:
                self._served.pop(owner, None)


class FairCache(Cache[Key, Value]):
    """Values with an owner each. A full cache evicts the least recently used value of the owner who has most.

    A plain LRU cache would let anyone flush the values of all others by adding enough of their own. Not thread-safe.
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
        # Counted before room is made, so that an owner who adds one too many loses one of their own.
        self._keys.setdefault(self._owner(value), {})[key] = None
        super().__setitem__(key, value)

    def __delitem__(self, key: Key) -> None:
        owner = self._owner(super().__getitem__(key))
        super().__delitem__(key)
        del self._keys[owner][key]
        if not self._keys[owner]:
            del self._keys[owner]

    def popitem(self) -> tuple[Key, Value]:
        owner = max(self._keys, key=lambda each: len(self._keys[each]))
        key = next(iter(self._keys[owner]))
        value = super().__getitem__(key)
        del self[key]
        return key, value


def owner_of(visitor: str) -> str:
    """Whom a visitor key counts for: the part before its first slash."""
    return visitor.partition("/")[0]
