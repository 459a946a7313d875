"""Remembers which browsers own an id, such as a session's or a file's; it does not know what the ids stand for."""

import math
import threading

from magistral_ui.client import CLIENT
from magistral_ui.fairness import FairCache

MAX_OWNED_IDS = 50_000
"""Pairs of an id and an owner that are remembered."""
MAX_OWNERS = 1_000
"""Owners of one id; the earliest one makes room for others."""
Id = tuple[str, str]


class Ownership:
    """Ids by kind with the browsers that own them; past the limit, the address that has most loses its oldest."""

    def __init__(self, kept: int = MAX_OWNED_IDS) -> None:
        self._kept, self._lock = kept, threading.Lock()
        self._owners: dict[Id, dict[str, None]] = {}
        """The browsers that own an id, the one that used it last at the end."""
        self._addresses: FairCache[tuple[Id, str], str] = FairCache(math.inf, lambda address: address)
        """From which address a browser used an id last."""

    def claim(self, kind: str, id: str) -> bool:
        """Whether the caller owns the id; an id without an owner becomes the caller's."""
        browser = CLIENT.get().browser
        with self._lock:
            owners = self._owners.get((kind, id))
            if owners and browser not in owners:
                return False
            self._use((kind, id), browser)
            return True

    def share(self, kind: str, id: str) -> None:
        """Make the caller one of the id's owners: two visitors may have sent the same file."""
        with self._lock:
            self._use((kind, id), CLIENT.get().browser)
            owners = self._owners[(kind, id)]
            if len(owners) > MAX_OWNERS:
                self._forget((kind, id), next(iter(owners)))

    def owns(self, kind: str, id: str) -> bool:
        """Whether the caller owns the id already."""
        with self._lock:
            return CLIENT.get().browser in self._owners.get((kind, id), ())

    def _use(self, id: Id, browser: str) -> None:
        """Note that the browser, an owner of the id, has used it. The lock is held."""
        if browser in self._owners.get(id, ()):
            self._forget(id, browser)
        self._owners.setdefault(id, {})[browser] = None
        self._addresses[(id, browser)] = CLIENT.get().address
        if len(self._addresses) > self._kept:
            (surplus, whose), _ = self._addresses.popitem()
            self._disown(surplus, whose)

    def _forget(self, id: Id, browser: str) -> None:
        del self._addresses[(id, browser)]
        self._disown(id, browser)

    def _disown(self, id: Id, browser: str) -> None:
        del self._owners[id][browser]
        if not self._owners[id]:
            del self._owners[id]
