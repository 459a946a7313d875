"""Decides whether one more reply may begin: how many there are, and how often someone asks; it begins none itself."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil

from magistral_ui.client import CLIENT
from magistral_ui.engines.generation import Generation
from magistral_ui.errors import Overloaded, TooManyReplies, TooManyRequests
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.token_buckets import Pace, TokenBuckets

Begun = Callable[[Generation], None]
Ended = Callable[[Generation], None]


class Admission:
    """All replies of this process that wait or are written, by visitor and by address."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._pace = Pace(limits.messages_per_minute, limits.messages_per_minute_per_address, clock)
        self._newcomers = TokenBuckets(limits.visitors_per_minute_per_address, clock=clock)
        self._lock = threading.Lock()
        self._beginning: list[tuple[str, str]] = []
        """Whose replies are on their way to the engine."""
        self._replies: list[tuple[str, str, Generation]] = []
        self._told: list[Ended] = []
        self.closing = False
        """Whether the app is about to end: then nobody begins one more."""

    def for_visitor(self, visitor: str, address: str | None = None) -> "VisitorAdmission":
        """Where the replies of one visitor come in; without an `address`, it is that of whoever calls."""
        return VisitorAdmission(self, visitor, address)

    def welcome(self) -> None:
        """A new visitor comes; TooManyRequests where too many did from that address."""
        if wait := self._newcomers.take(CLIENT.get().address):
            raise TooManyRequests(seconds=ceil(wait))

    def when_ended(self, tell: Ended) -> None:
        """Call `tell` with every reply that ends from now on, in whatever thread ends it."""
        self._told.append(tell)

    def running(self) -> list[Generation]:
        """All replies that have not ended."""
        with self._lock:
            self._forget_ended()
            return [generation for _, _, generation in self._replies]

    def enter(self, visitor: str, address: str) -> None:
        """Reserve a place, or say why there is none: Overloaded, TooManyReplies or TooManyRequests."""
        limits = self._limits
        with self._lock:
            self._forget_ended()
            there = [*self._beginning, *((v, a) for v, a, _ in self._replies)]
            if self.closing:
                raise Overloaded("closing")
            if len(there) >= limits.replies_in_all:
                raise Overloaded
            if sum(v == visitor for v, _ in there) >= limits.replies:
                raise TooManyReplies(limit=limits.replies)
            if sum(a == address for _, a in there) >= limits.replies_per_address:
                raise TooManyReplies("too_many_replies_from_address", limit=limits.replies_per_address)
            if wait := self._pace.take(visitor, address):
                raise TooManyRequests(seconds=ceil(wait))
            self._beginning.append((visitor, address))

    def leave(self, visitor: str, address: str, generation: Generation | None) -> None:
        """Give the place to the reply that has begun, or back."""
        with self._lock:
            self._beginning.remove((visitor, address))
            if generation is not None:
                self._replies.append((visitor, address, generation))
        if generation is not None:
            generation.when_ended(lambda: self._end(generation))

    def stop_unattended(self) -> None:
        """Stop the replies that nobody has looked at for too long."""
        for generation in self.running():
            if generation.unattended > self._limits.unattended_seconds:
                generation.stop()

    def finish(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Let nobody begin any more, and wait for the replies that are written, at most so long."""
        self.closing = True
        until = clock() + seconds
        for generation in self.running():
            generation.wait(max(0.0, until - clock()))

    def _end(self, generation: Generation) -> None:
        with self._lock:
            self._forget_ended()
        for tell in self._told:
            tell(generation)

    def _forget_ended(self) -> None:
        self._replies = [each for each in self._replies if not each[2].ended]


class VisitorAdmission:
    """One visitor's way in."""

    def __init__(self, admission: Admission, visitor: str, address: str | None) -> None:
        self._admission, self._visitor, self._address = admission, visitor, address

    @contextmanager
    def reply(self) -> Iterator[Begun]:
        """A place for one more reply, which is handed to what this gives; raises Unavailable where there is none."""
        address = CLIENT.get().address if self._address is None else self._address
        self._admission.enter(self._visitor, address)
        begun: list[Generation] = []
        try:
            yield begun.append
        finally:
            self._admission.leave(self._visitor, address, begun[0] if begun else None)
