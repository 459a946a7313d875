"""One-time keys for requests beside the page's own events: the browser that got one may do the one thing it is for, once."""

import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any

from magistral_ui.client import CLIENT
from magistral_ui.fairness import FairCache

TOKEN_LIFETIME = 60.0
"""Seconds for which a ticket may be used."""
MAX_PENDING = 1_000
"""Tickets that wait to be used; more make room: the oldest of whoever has most, so that nobody can flush those of others."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A ticket that was not used yet."""

    until: float
    browser: str
    party: str
    purpose: Any


class OneTimeTokens:
    """What each ticket is for; a ticket is 256 random bits, and is gone once it was used."""

    def __init__(self, life: float = TOKEN_LIFETIME) -> None:
        self._life = life
        self._lock = threading.Lock()
        self._waiting: FairCache[str, Waiting] = FairCache(MAX_PENDING, lambda each: each.party)

    def issue(self, purpose: Any) -> str:
        """A ticket with which the browser that calls may do `purpose`."""
        ticket, caller = secrets.token_urlsafe(32), CLIENT.get()
        with self._lock:
            self._waiting[ticket] = Waiting(time.monotonic() + self._life, caller.browser, caller.quota_key, purpose)
        return ticket

    def redeem(self, ticket: str) -> Any:
        """What the ticket is for; None where there is no such ticket any more, or another browser got it."""
        with self._lock:
            found = self._waiting.pop(ticket, None)
        if found is None or time.monotonic() >= found.until or found.browser != CLIENT.get().browser:
            return None
        return found.purpose
