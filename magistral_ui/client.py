"""The client whose request is being served, as far as it is known; it decides nothing."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request comes from: set by the middleware, read where something is counted or kept apart."""

    address: str = ""
    """The network address, an IPv6 one without its last 64 bits; empty where there is none, as in a test."""
    browser: str = ""
    """The hash of a secret cookie; of the address, where a program keeps no cookies; of the login, where people have names."""
    find_language: Callable[[], str] = field(default=str, compare=False, repr=False)
    """Looks up the code of the language for sentences to this client; only few requests need one."""
    login: str = ""
    """The hash of the name a person has logged in with; empty where people have no names."""

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
