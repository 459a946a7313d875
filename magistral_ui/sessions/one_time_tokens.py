"""One-time tokens for downloads and uploads: the browser that got one may do the one thing it is for, once."""

import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any

from magistral_ui.client import CLIENT
from magistral_ui.fairness import FairCache

TOKEN_LIFETIME = 60.0
"""Seconds for which a token may be used."""
MAX_PENDING = 1_000
"""Tokens that wait to be used."""


@dataclass(frozen=True, slots=True)
class PendingToken:
    """A token that has not been used yet."""

    until: float
    browser: str
    owner: str
    purpose: Any


class OneTimeTokens:
    """What each token is for. A token is 256 random bits, and gone once it was used."""

    def __init__(self, life: float = TOKEN_LIFETIME) -> None:
        self._life = life
        self._lock = threading.Lock()
        self._waiting: FairCache[str, PendingToken] = FairCache(MAX_PENDING, lambda each: each.owner)

    def issue(self, purpose: Any) -> str:
        """A token with which the client's browser may do `purpose`."""
        token, client = secrets.token_urlsafe(32), CLIENT.get()
        with self._lock:
            self._waiting[token] = PendingToken(
                time.monotonic() + self._life, client.browser, client.quota_key, purpose
            )
        return token

    def redeem(self, token: str) -> Any:
        """What the token is for; None where there is no such token any more, or another browser got it."""
        with self._lock:
            found = self._waiting.pop(token, None)
        if found is None or time.monotonic() >= found.until or found.browser != CLIENT.get().browser:
            return None
        return found.purpose
