"""Decides which replies may begin and which must end, by their number and whether anyone is watching; it writes none itself."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import ceil

from magistral_ui.client import CLIENT
from magistral_ui.engines.generation import Generation
from magistral_ui.errors import Overloaded, QueueFull, TooManyReplies, TooManyRequests
from magistral_ui.fairness import Quota, RateLimit, TokenBuckets
from magistral_ui.sessions.limits import Limits

QUEUE = Quota(in_all=64, of_visitor=16)
"""Replies that wait for their turn on this machine. Behind 64 others, a visitor would wait for minutes, so it is better to come
back later. A model server has a queue of its own, which is not visible here."""

OnReply = Callable[[Generation], None]


class Admission:
    """All replies of this process that wait or are being written, by visitor and by address.

    Only this class decides, whichever engine writes the replies: an engine only orders what it is given.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._quota = Quota(
            in_all=limits.replies_in_all, of_visitor=limits.replies, of_address=limits.replies_per_address
        )
        self._rate = RateLimit(limits.messages_per_minute, limits.messages_per_minute_per_address, clock)
        self._newcomers = TokenBuckets(limits.visitors_per_minute_per_address, clock=clock)
        self._lock = threading.Lock()
        self._beginning: list[tuple[str, str]] = []
        """Visitors and addresses whose replies are on their way to the engine."""
        self._replies: list[tuple[str, str, Generation]] = []
        self._listeners: list[OnReply] = []
        self.closing = False
        """Whether the app is about to end: no more replies begin."""

    def check_new_visitor(self) -> None:
        """Admit a new visitor. Raises TooManyRequests if too many have come from their address."""
        if wait := self._newcomers.take(CLIENT.get().address):
            raise TooManyRequests(seconds=ceil(wait))

    def when_ended(self, tell: OnReply) -> None:
        """Call `tell` with every reply that ends from now on, in the thread that ends it."""
        self._listeners.append(tell)

    def running(self) -> list[Generation]:
        with self._lock:
            self._forget_ended()
            return [generation for _, _, generation in self._replies]

    @contextmanager
    def reply(self, visitor: str, address: str | None = None) -> Iterator[OnReply]:
        """Admit one more reply, which the caller passes to the function that this yields. `address` defaults to the client's.

        Raises Overloaded, TooManyReplies, QueueFull or TooManyRequests if it is not admitted.
        """
        holder = visitor, CLIENT.get().address if address is None else address
        self._reserve(*holder)
        begun: list[Generation] = []
        try:
            yield begun.append
        finally:
            with self._lock:
                self._beginning.remove(holder)
                self._replies += [(*holder, generation) for generation in begun]
            for generation in begun:
                generation.when_ended(partial(self._end, generation))

    def _reserve(self, visitor: str, address: str) -> None:
        limits = self._limits
        with self._lock:
            self._forget_ended()
            if self.closing:
                raise Overloaded("closing")
            taken = [*self._beginning, *((v, a) for v, a, _ in self._replies)]
            match self._quota.reached(taken, visitor, address):
                case "in_all":
                    raise Overloaded
                case "of_visitor":
                    raise TooManyReplies(limit=limits.replies)
                case "of_address":
                    raise TooManyReplies("too_many_replies_from_address", limit=limits.replies_per_address)
            queued = [(v, a) for v, a, generation in self._replies if generation.queued]
            if QUEUE.reached(queued, visitor, address):
                raise QueueFull(limit=int(QUEUE.in_all))
            # Last, because it takes tokens from the buckets: a reply refused for another reason must not count.
            if wait := self._rate.take(visitor, address):
                raise TooManyRequests(seconds=ceil(wait))
            self._beginning.append((visitor, address))

    def stop_unattended(self) -> None:
        for generation in self.running():
            if generation.unattended > self._limits.unattended_seconds:
                generation.stop()

    def drain(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Let no more replies begin, and wait at most `seconds` for those being written."""
        self.closing = True
        until = clock() + seconds
        for generation in self.running():
            generation.wait(max(0.0, until - clock()))

    def _end(self, generation: Generation) -> None:
        with self._lock:
            self._forget_ended()
        for tell in self._listeners:
            tell(generation)

    def _forget_ended(self) -> None:
        """With the lock held. `ended` decides, so that a visitor who has seen a reply end can send the next message at once."""
        self._replies = [each for each in self._replies if not each[2].ended]
