"""Remembers which browser an id belongs to: the first that uses it; it does not know what the ids name."""

import threading
from collections import OrderedDict

from magistral_ui.client import CLIENT

MAX_OWNED_IDS = 50_000
"""Claims that are remembered, of everybody."""
MAX_OWNERS = 1_000
"""Browsers that may own one id; the one that came first goes first."""
EVICTION_BATCH = 500
"""Claims that make room for others: of the address that has the most, so that nobody can flush those of others."""
Id = tuple[str, str]


class Ownership:
    """Ids by kind with the browsers that own them; too many make room, those first of the address that has the most."""

    def __init__(self, kept: int = MAX_OWNED_IDS) -> None:
        self._kept, self._lock = kept, threading.Lock()
        self._owners: dict[Id, dict[str, str]] = {}
        """The browsers in the order in which they came, with the address from which each came last."""
        self._of_address: dict[str, OrderedDict[tuple[Id, str], None]] = {}
        """Claims by address, the least recently used first: an id and a browser."""
        self._count = 0

    def claim(self, kind: str, id: str) -> bool:
        """Whether the id is the caller's, or nobody's so far: then it is the caller's from now on."""
        browser = CLIENT.get().browser
        with self._lock:
            owners = self._owners.get((kind, id))
            if owners and browser not in owners:
                return False
            self._use((kind, id), browser)
            return True

    def share(self, kind: str, id: str) -> None:
        """The id is the caller's, too: two visitors may have sent the same file."""
        with self._lock:
            self._use((kind, id), CLIENT.get().browser)
            owners = self._owners[(kind, id)]
            if len(owners) > MAX_OWNERS:
                self._forget((kind, id), next(iter(owners)))

    def owns(self, kind: str, id: str) -> bool:
        """Whether the id is the caller's already."""
        with self._lock:
            return CLIENT.get().browser in self._owners.get((kind, id), ())

    def _use(self, id: Id, browser: str) -> None:
        """The id is the browser's, and was used just now. With the lock held."""
        if browser in self._owners.get(id, ()):
            self._forget(id, browser)
        address = CLIENT.get().address
        self._owners.setdefault(id, {})[browser] = address
        self._of_address.setdefault(address, OrderedDict())[(id, browser)] = None
        self._count += 1
        if self._count > self._kept:
            most = max(self._of_address.values(), key=len)
            for claim in list(most)[: min(EVICTION_BATCH, len(most) - 1)]:
                self._forget(*claim)

    def _forget(self, id: Id, browser: str) -> None:
        address = self._owners[id].pop(browser)
        if not self._owners[id]:
            del self._owners[id]
        del self._of_address[address][(id, browser)]
        if not self._of_address[address]:
            del self._of_address[address]
        self._count -= 1
