"""One reply being written: a growing list of events that anyone may read, and their count; not who writes or shows it.

An event never changes, with one exception: if the answer so far turns out to be reasoning, its events become reasoning.
"""

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from magistral_ui.chat.events import (
    LAST,
    Answer,
    Event,
    Failed,
    Finished,
    Queued,
    Reasoning,
    Reclassified,
    Usage,
    as_reasoning,
)
from magistral_ui.chat.reply import Provenance, Reply
from magistral_ui.chat.sampling import SamplingParams


@dataclass(frozen=True, slots=True)
class Stamped:
    """An event and when it came, in seconds since the reply was submitted."""

    seconds: float
    event: Event


@dataclass(slots=True)
class UsageCounter:
    """Counts what a reply costs from its events; `Usage` says by which rule."""

    prompt_tokens: int = 0
    reused_tokens: int = 0
    prompt_estimated: bool = False
    reasoning_tokens: int = 0
    answer_tokens: int = 0
    first_token: float | None = None
    reasoning_began: float | None = None
    reasoning_ended: float = 0.0
    last_text: float = 0.0
    """When the last piece with text came, of reasoning or answer."""

    def count(self, event: Event, seconds: float) -> None:
        if isinstance(event, Reasoning | Answer):
            self.first_token = seconds if self.first_token is None else self.first_token
            self.last_text = seconds if event.text else self.last_text
        match event:
            case Reasoning(text, tokens):
                self.reasoning_tokens += tokens
                if self.reasoning_began is None:
                    self.reasoning_began = self.reasoning_ended = seconds
                self.reasoning_ended = seconds if text else self.reasoning_ended
            case Answer(_, tokens):
                self.answer_tokens += tokens
            case Reclassified():
                self.reasoning_tokens, self.answer_tokens = self.reasoning_tokens + self.answer_tokens, 0
                self.reasoning_began = seconds if self.first_token is None else self.first_token
                self.reasoning_ended = max(self.reasoning_began, self.last_text)

    def usage(self, seconds: float) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens,
            reused_tokens=self.reused_tokens,
            reasoning_tokens=self.reasoning_tokens,
            answer_tokens=self.answer_tokens,
            first_token_seconds=self.first_token or 0.0,
            reasoning_seconds=self.reasoning_ended - (self.reasoning_began or 0.0),
            total_seconds=seconds,
            prompt_estimated=self.prompt_estimated,
        )


class Generation:
    """A reply that is being written. One writer puts events; readers and the two controls may be in any thread.

    The reply does not depend on its readers: one that goes away can `take(start=n)` later.
    """

    def __init__(self, on_control: Callable[[], None] | None = None) -> None:
        """`on_control` is called after `stop` and `answer_now`, to wake an engine that waits."""
        # Whoever knows the id may read the reply, so it is as hard to guess as a visitor's secret.
        self.id = secrets.token_urlsafe(32)
        self._started = time.monotonic()
        self._events: list[Stamped] = []
        self._counter = UsageCounter()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._stop = threading.Event()
        self._answer_now = threading.Event()
        self._on_control = on_control
        self._looked_at = self._started
        self._when_ended: list[Callable[[], None]] = []
        self.failure: Failed | None = None
        """Why it failed, for the operator; readers may be told less."""
        self._redact: Callable[[Failed], Failed] | None = None
        """What readers are told of a failure; None: all of it."""

    def put(self, event: Event) -> None:
        """Append an event (the writer's side), and count it. Nothing can follow a Finished or Failed.

        A Finished or Failed without a usage gets the one that was counted.
        """
        with self._lock:
            if self.ended:
                raise RuntimeError("the generation has ended")
            seconds = self.elapsed
            self._counter.count(event, seconds)
            if isinstance(event, Reclassified):
                changed = as_reasoning(each.event for each in self._events)
                self._events = [Stamped(old.seconds, new) for old, new in zip(self._events, changed, strict=True)]
            if isinstance(event, Finished | Failed) and event.usage == Usage():
                event = replace(event, usage=self._counter.usage(seconds))
            if isinstance(event, Failed):
                self.failure = event
                event = self._redact(event) if self._redact else event
            self._events.append(Stamped(seconds, event))
            if not isinstance(event, LAST):
                return
            self._ended.set()
            self._on_control = None  # it would keep the engine, and with it the model, in memory
        for act in self._when_ended:
            act()

    def control_with(self, on_control: Callable[[], None]) -> None:
        """Call this after `stop` and `answer_now` from now on: another engine has taken over."""
        self._on_control = None if self.ended else on_control

    def count_prompt(self, tokens: int, reused: int = 0, *, estimated: bool = False) -> None:
        """Say how many tokens the prompt has, and how many of them were in a cache (the writer's side)."""
        with self._lock:
            counter = self._counter
            counter.prompt_tokens, counter.reused_tokens, counter.prompt_estimated = tokens, reused, estimated

    def count_first_token(self, ago: float = 0.0) -> None:
        """Say that the model chose a token `ago` seconds before, which may be shown later (the writer's side).

        The earliest one counts.
        """
        with self._lock:
            chosen = max(0.0, self.elapsed - ago)
            if self._counter.first_token is None or chosen < self._counter.first_token:
                self._counter.first_token = chosen

    def redact_failures(self, redact: Callable[[Failed], Failed]) -> None:
        """Let readers see what `redact` makes of a failure, in place of it. Called before anybody reads."""
        with self._lock:
            self._redact = redact
            if self.failure is not None:
                self._events[-1] = Stamped(self._events[-1].seconds, redact(self.failure))

    def when_ended(self, act: Callable[[], None]) -> None:
        """Call `act` once the reply has ended, in whatever thread ends it; at once if it has already."""
        with self._lock:
            if not self.ended:
                self._when_ended.append(act)
                return
        act()

    def take(self, start: int = 0, *, attended: bool = True) -> list[Stamped]:
        """The events so far, from number `start` on; never waits.

        `attended` says whether somebody watches: replies that nobody watches are ended after a while.
        """
        with self._lock:
            if attended:
                self._looked_at = time.monotonic()
            return self._events[start:]

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end; whether it has come."""
        return self._ended.wait(timeout)

    def stop(self) -> None:
        """End this reply within a token, keeping what was written."""
        self._stop.set()
        self._wake()

    def answer_now(self) -> None:
        """End the reasoning and answer from what there is; nothing happens once the answer has begun."""
        self._answer_now.set()
        self._wake()

    @property
    def reasoning(self) -> str:
        return "".join(each.event.text for each in self.take(attended=False) if isinstance(each.event, Reasoning))

    @property
    def answer(self) -> str:
        return "".join(each.event.text for each in self.take(attended=False) if isinstance(each.event, Answer))

    @property
    def usage(self) -> Usage:
        """What the reply has cost up to its latest event."""
        with self._lock:
            return self._counter.usage(self._events[-1].seconds if self._events else 0.0)

    @property
    def reasoning_began(self) -> float | None:
        """Seconds until the reasoning began; None if there is none yet."""
        return self._counter.reasoning_began

    @property
    def stop_requested(self) -> bool:
        return self._stop.is_set()

    @property
    def answer_now_requested(self) -> bool:
        return self._answer_now.is_set()

    @property
    def queued(self) -> bool:
        """Whether it waits for its turn: the last that was heard of it is its position."""
        with self._lock:
            return bool(self._events) and isinstance(self._events[-1].event, Queued)

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    @property
    def elapsed(self) -> float:
        """Seconds since the reply was submitted."""
        return time.monotonic() - self._started

    @property
    def unattended(self) -> float:
        """Seconds since anybody last looked."""
        return time.monotonic() - self._looked_at

    def __len__(self) -> int:
        return len(self._events)

    def _wake(self) -> None:
        on_control = self._on_control
        if on_control is not None:
            on_control()


@dataclass(frozen=True, slots=True)
class RunningReply:
    """A reply being written: to which user message, and from what."""

    generation: Generation
    to: int
    params: SamplingParams
    provenance: Provenance
    before: Reply | None = None
    """The part of a reply that it resumes."""
    continues: int | None = None
    """The reply that it will replace."""
    replays: Reply | None = None
    """The reply that it is to reproduce."""

    @property
    def model(self) -> str:
        return self.provenance.model
