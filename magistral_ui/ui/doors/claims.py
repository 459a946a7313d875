"""Remembers which browser an id belongs to: the first that uses it; it does not know what the ids name."""

import threading
from collections import OrderedDict

from magistral_ui.sessions.caller import CALLER

SHARERS = 1_000
"""Browsers that may own one id; the one that came first goes first."""


class Claims:
    """Ids by kind with the browsers that own them, bounded in number; the one that was used least recently is forgotten."""

    def __init__(self, kept: int = 50_000) -> None:
        self._kept, self._lock = kept, threading.Lock()
        self._owners: OrderedDict[tuple[str, str], dict[str, None]] = OrderedDict()
        """The browsers in the order in which they came."""

    def claim(self, kind: str, id: str) -> bool:
        """Whether the id is the caller's, or nobody's so far: then it is the caller's from now on."""
        browser = CALLER.get().browser
        with self._lock:
            owners = self._used(kind, id)
            if not owners:
                owners[browser] = None
            return browser in owners

    def share(self, kind: str, id: str) -> None:
        """The id is the caller's, too: two visitors may have sent the same file."""
        with self._lock:
            owners = self._used(kind, id)
            owners.pop(browser := CALLER.get().browser, None)
            owners[browser] = None
            if len(owners) > SHARERS:
                del owners[next(iter(owners))]

    def owns(self, kind: str, id: str) -> bool:
        """Whether the id is the caller's already."""
        with self._lock:
            return CALLER.get().browser in self._owners.get((kind, id), ())

    def _used(self, kind: str, id: str) -> dict[str, None]:
        """The owners of an id that is used now, none where it is new. With the lock held."""
        owners = self._owners.setdefault((kind, id), {})
        self._owners.move_to_end((kind, id))
        if len(self._owners) > self._kept:
            self._owners.popitem(last=False)
        return owners
