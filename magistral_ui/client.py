"""Who is calling while one request is served, as far as that is known; it decides nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from magistral_ui.chat.image_decoding import PARTY


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request comes from, set when it arrives, and read where something is counted or kept apart."""

    address: str = ""
    """The network address, an IPv6 one without its last 64 bits; empty where there is none, as in a test."""
    browser: str = ""
    """The hash of a secret cookie; of the address, where a program keeps no cookies; of the login, where people have names."""
    find_language: Callable[[], str] = field(default=str, compare=False, repr=False)
    """Looks up the code of the language for sentences to this client; only few requests need one."""
    login: str = ""
    """The hash of the name by which a person came in; empty where people have no names."""

    @property
    def party(self) -> str:
        """Whose share is counted: a person's in all their browsers, where they have names, or an address'."""
        return self.login or self.address


NO_CLIENT = Client()
CLIENT: ContextVar[Client] = ContextVar("caller", default=NO_CLIENT)


@contextmanager
def calling(caller: Client) -> Iterator[None]:
    """What runs within is done for `caller`, and pictures are decoded for that address."""
    token, party = CLIENT.set(caller), PARTY.set(caller.address)
    try:
        yield
    finally:
        PARTY.reset(party)
        CLIENT.reset(token)
