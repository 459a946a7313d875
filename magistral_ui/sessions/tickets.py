"""One-time keys for requests beside the page's own events: the browser that got one may do the one thing it is for, once."""

import secrets
import threading
import time
from collections import OrderedDict
from typing import Any

from magistral_ui.sessions.caller import CALLER

LIFE = 60.0
"""Seconds for which a ticket may be used."""
MOST = 1_000
"""Tickets that wait to be used; the oldest goes first."""


class Tickets:
    """What each ticket is for; a ticket is 256 random bits, and is gone once it was used."""

    def __init__(self, life: float = LIFE) -> None:
        self._life = life
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, tuple[float, str, Any]] = OrderedDict()

    def issue(self, purpose: Any) -> str:
        """A ticket with which the browser that calls may do `purpose`."""
        ticket = secrets.token_urlsafe(32)
        with self._lock:
            self._waiting[ticket] = time.monotonic() + self._life, CALLER.get().browser, purpose
            while len(self._waiting) > MOST:
                self._waiting.popitem(last=False)
        return ticket

    def redeem(self, ticket: str) -> Any:
        """What the ticket is for; None where there is no such ticket any more, or another browser got it."""
        with self._lock:
            until, browser, purpose = self._waiting.pop(ticket, (0.0, "", None))
        return purpose if time.monotonic() < until and browser == CALLER.get().browser else None
