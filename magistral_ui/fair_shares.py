"""Decides who is next: the party with less work in progress, then the one served longer ago; it neither waits nor runs."""

from collections import Counter
from collections.abc import Container


class FairShares:
    """What each party, such as an address or a visitor, has in progress. The caller holds a lock."""

    def __init__(self) -> None:
        self._working: Counter[str] = Counter()
        self._served: dict[str, int] = {}
        """The turn in which a party was last served; forgotten once it has nothing in progress and nothing waiting."""
        self._turn = 0

    @property
    def working(self) -> int:
        """Pieces of work in progress, of all parties."""
        return self._working.total()

    def rank(self, party: str) -> tuple[int, int]:
        """The waiting party with the lowest rank is next."""
        return self._working[party], self._served.get(party, 0)

    def begin(self, party: str) -> None:
        """A piece of work of the party's begins."""
        self._turn += 1
        self._served[party] = self._turn
        self._working[party] += 1

    def end(self, party: str, waiting: Container[str]) -> None:
        """A piece of work is done; `waiting` are the parties that wait."""
        self._working[party] -= 1
        if not self._working[party]:
            del self._working[party]
            if party not in waiting:
                self._served.pop(party, None)


def party_of(visitor: str) -> str:
    """Whom a visitor's key counts for: what comes before its first slash."""
    return visitor.partition("/")[0]
