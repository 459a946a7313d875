"""Decides who is next: the party with less in work, then the one served longer ago; it neither waits nor runs anything."""

from collections import Counter
from collections.abc import Container


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


def party_of(visitor: str) -> str:
    """Whom a visitor's key counts for: what comes before its first slash."""
    return visitor.partition("/")[0]
