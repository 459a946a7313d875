"""The client whose request is being served, as far as it is known, and the one-time tokens that only its browser can redeem."""

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from magistral_ui.fairness import FairCache

TOKEN_LIFETIME = 60.0
"""Seconds for which a one-time token may be used."""
MAX_PENDING = 1_000
"""Tokens that wait to be used."""


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request comes from: set by the middleware, read where requests are counted or separated."""

    address: str = ""
    """The network address, an IPv6 one without its last 64 bits; empty where there is none, as in a test."""
    browser: str = ""
    """The hash of a secret cookie; of the address, where a program keeps no cookies; of the login, where people have names."""
    find_language: Callable[[], str] = field(default=str, compare=False, repr=False)
    """Looks up the code of the language for sentences to this client; only few requests need one."""
    login: str = ""
    """The hash of the name a person has logged in with; empty where people have no names."""
    admin: bool = False
    """Whether that name is one that the operator named with `--admin`."""
    forwarded: bool = False
    """Whether the request says that something has forwarded it, believed or not."""

    @property
    def quota_key(self) -> str:
        """What fair shares are counted by: a person in all their browsers where people have names, else an address."""
        return self.login or self.address


NO_CLIENT = Client()
CLIENT: ContextVar[Client] = ContextVar("client", default=NO_CLIENT)


@contextmanager
def serving(client: Client) -> Iterator[None]:
    """What runs within is done for `client`."""
    token = CLIENT.set(client)
    try:
        yield
    finally:
        CLIENT.reset(token)


def hashed(secret: str) -> str:
    """The SHA-256 of a text. What is stored of a secret of 256 random bits, too: a plain hash of that cannot be reversed."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


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
