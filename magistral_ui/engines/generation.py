"""One reply being written: a growing list of events that anyone may follow; not who writes or shows it.

An event stays what it is, but for one thing: where the answer so far turns out to be reasoning, its events become reasoning.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from magistral_ui.chat.events import LAST, Event, Failed, Queued, Reclassified, as_reasoning


@dataclass(frozen=True, slots=True)
class Stamped:
    """An event and when it came, in seconds since the reply was submitted."""

    seconds: float
    event: Event


class Generation:
    """A reply on its way. One writer puts events; followers and the two controls may be in any thread.

    A follower that goes away changes nothing: the reply goes on, and `follow(start=n)` takes it up again.
    """

    def __init__(self, on_control: Callable[[], None] | None = None) -> None:
        """`on_control` is called after `stop` and `answer_now`, to wake an engine that waits."""
        # Whoever knows it may read along, so it is as hard to guess as a visitor's secret.
        self.id = secrets.token_urlsafe(32)
        self._started = time.monotonic()
        self._events: list[Stamped] = []
        self._news = threading.Condition()
        self._stop = threading.Event()
        self._answer_now = threading.Event()
        self._on_control = on_control
        self._ended = False
        self._followers = 0
        self._looked_at = self._started
        self._waiting: list[Callable[[], None]] = []
        self.failure: Failed | None = None
        """Why it broke, for whoever runs the app; followers may be told less."""
        self._told: Callable[[Failed], Failed] | None = None
        """What followers are told of a failure; None: all of it."""

    def put(self, event: Event) -> None:
        """Append an event (the writer's side). Nothing can follow a Finished or Failed."""
        with self._news:
            if self._ended:
                raise RuntimeError("the generation has ended")
            if isinstance(event, Reclassified):
                changed = as_reasoning(each.event for each in self._events)
                seconds = [each.seconds for each in self._events]
                self._events = [Stamped(*each) for each in zip(seconds, changed, strict=True)]
            if isinstance(event, Failed):
                self.failure = event
                event = self._told(event) if self._told else event
            self._events.append(Stamped(self.elapsed, event))
            self._ended = isinstance(event, LAST)
            self._news.notify_all()
            waiting = self._waiting if self._ended else []
        for act in waiting:
            act()

    def conceal(self, told: Callable[[Failed], Failed]) -> None:
        """Let followers read what `told` makes of a failure, in place of it. Called before anybody follows."""
        with self._news:
            self._told = told
            if self.failure is not None:
                self._events[-1] = Stamped(self._events[-1].seconds, told(self.failure))

    def when_ended(self, act: Callable[[], None]) -> None:
        """Call `act` once the reply has ended, in whatever thread ends it; at once where it has."""
        with self._news:
            if not self._ended:
                self._waiting.append(act)
                return
        act()

    def follow(self, start: int = 0) -> Iterator[Event]:
        """The events from number `start` on, waiting for new ones; ends behind the Finished or Failed."""
        start = max(0, start)
        with self._news:
            self._followers += 1
        try:
            while fresh := self._next(start):
                for stamped in fresh:
                    yield stamped.event
                start += len(fresh)
        finally:
            with self._news:
                self._followers -= 1
                self._looked_at = time.monotonic()

    def take(self, start: int = 0, *, looking: bool = True) -> list[Stamped]:
        """The events from number `start` on that are there by now; never waits. Whoever is not `looking` is no follower."""
        with self._news:
            if looking:
                self._looked_at = time.monotonic()
            return self._events[start:]

    def _next(self, start: int) -> list[Stamped]:
        with self._news:
            while len(self._events) <= start and not self._ended:
                self._news.wait()
            return self._events[start:]

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end; whether it has come."""
        with self._news:
            return self._news.wait_for(lambda: self._ended, timeout)

    def stop(self) -> None:
        """End this reply within a token, keeping what was written."""
        self._stop.set()
        self._wake()

    def answer_now(self) -> None:
        """End the reasoning and answer from what there is; nothing happens once the answer has begun."""
        self._answer_now.set()
        self._wake()

    @property
    def stop_asked(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    @property
    def answer_now_asked(self) -> bool:
        """Whether `answer_now` was called."""
        return self._answer_now.is_set()

    @property
    def queued(self) -> bool:
        """Whether it waits for its turn: the last that was heard of it is its position."""
        with self._news:
            return bool(self._events) and isinstance(self._events[-1].event, Queued)

    @property
    def ended(self) -> bool:
        """Whether the last event is there."""
        return self._ended

    @property
    def elapsed(self) -> float:
        """Seconds since the reply was submitted."""
        return time.monotonic() - self._started

    @property
    def unattended(self) -> float:
        """Seconds since anybody last looked; 0.0 while someone follows."""
        return 0.0 if self._followers else time.monotonic() - self._looked_at

    def __len__(self) -> int:
        return len(self._events)

    def _wake(self) -> None:
        if self._on_control is not None:
            self._on_control()
