"""Who is calling while one request is served, as far as that is known; it decides nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from magistral_ui.chat.decoding import PARTY


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a request comes from, set at the door and read where something is counted or kept apart."""

    address: str = ""
    """The network address, an IPv6 one without its last 64 bits; empty where there is none, as in a test."""
    browser: str = ""
    """The hash of a secret cookie; of the address, where a program keeps no cookies."""
    language: str = ""
    """The code of the language in which a sentence is to be told."""


NOBODY = Caller()
CALLER: ContextVar[Caller] = ContextVar("caller", default=NOBODY)


@contextmanager
def calling(caller: Caller) -> Iterator[None]:
    """What runs within is done for `caller`, and pictures are decoded for that address."""
    token, party = CALLER.set(caller), PARTY.set(caller.address)
    try:
        yield
    finally:
        PARTY.reset(party)
        CALLER.reset(token)
