"""Runs all sequences on the model, a step at a time, in the one thread that owns it; it knows no prompts and no people.

Each step is one forward: the next token of every sequence that is being written, and a chunk of those that are being read.
So a long prompt delays the others by a chunk, sequences join and leave between steps, and one that fails, fails alone.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

import torch

from magistral_ui.chat.events import Queued
from magistral_ui.engines.local.decoder import Decoder
from magistral_ui.engines.local.image_input import ImageInput
from magistral_ui.engines.local.prefix_cache import PrefixCache
from magistral_ui.engines.local.sequence import Sequence
from magistral_ui.engines.weights.device_memory import empty_device_cache, is_out_of_memory
from magistral_ui.errors import NotReady, QueueFull
from magistral_ui.models.memory import held_tokens

log = logging.getLogger(__name__)

T = TypeVar("T")
SHRINK_EVERY = 32
"""Steps between looks at the bytes: running sequences grow, and idle ones make room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerLimits:
    """How much runs at once: sequences in a step, requests that wait, prompt tokens read in a step."""

    running: int = 8
    waiting: int = 64
    chunk: int = 256
    """While others are being written."""
    chunk_alone: int = 512
    """While nobody waits for a next token."""


def scheduler_limits(device_type: str) -> SchedulerLimits:
    """What suits a device: all but a processor read longer pieces and write for more at once."""
    return SchedulerLimits() if device_type == "cpu" else SchedulerLimits(running=16, chunk=512, chunk_alone=2048)


class Scheduler:
    """Feed it with `submit` from any thread; `run` is the engine thread's loop."""

    def __init__(
        self, model: Decoder, cache: PrefixCache, image_token: int | None, limits: SchedulerLimits, kv_per_token: int
    ) -> None:
        """`kv_per_token` is what a token takes in the cache, in bytes: who comes in is chosen by it."""
        self._model, self._cache, self._image_token, self._limits = model, cache, image_token, limits
        self._kv_per_token = kv_per_token
        self._news = threading.Condition()
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._closing = False
        self._steps = self._admissions = 0

    def submit(self, sequence: Sequence) -> None:
        """Let `sequence` wait for its place; QueueFull where too many do."""
        with self._news:
            if self._closing:
                raise NotReady
            if len(self._waiting) >= self._limits.waiting:
                raise QueueFull(limit=self._limits.waiting)
            self._waiting.append(sequence)
            if len(self._running) + len(self._waiting) > self._limits.running:
                sequence.generation.put(Queued(max(1, len(self._running) + len(self._waiting) - self._limits.running)))
            self._news.notify()

    def wake(self) -> None:
        """Look again: someone pressed stop or answer-now."""
        with self._news:
            self._news.notify()

    def close(self) -> None:
        """End `run` after the current step; all sequences end as cancelled."""
        with self._news:
            self._closing = True
            self._news.notify()

    def run(self) -> None:
        """Steps until `close`; whatever happens, every sequence gets its last event."""
        try:
            while self._wait_for_work():
                try:
                    self.step()
                except (
                    Exception
                ) as error:  # nothing of one request should get here; if it does, the next ones still run
                    for sequence in list(self._running):
                        self._fail(sequence, error)
        finally:
            with self._news:
                self._closing = True
                left = [*self._running, *self._waiting]
                self._running.clear()
                self._waiting.clear()
            for sequence in left:
                if not sequence.generation.ended:
                    sequence.finish("cancelled")

    def step(self) -> None:
        """End what was stopped, let in what fits, and run one forward."""
        self._end_stopped()
        self._admit()
        chosen = self._choose()
        ready = [(sequence, count) for sequence, count in chosen if self._see_images(sequence, count)]
        if ready:
            self._forward(ready)
        self._steps += 1
        if self._steps % SHRINK_EVERY == 0 or any(count > 1 for _, count in ready):
            self._relieve()
            self._cache.shrink()

    def _wait_for_work(self) -> bool:
        with self._news:
            while not (self._closing or self._waiting or self._running):
                self._news.wait()
            return not self._closing

    def _end_stopped(self) -> None:
        for sequence in [s for s in self._running if s.generation.stop_asked]:
            self._leave(sequence)
            sequence.finish("cancelled")
        with self._news:
            stopped = [s for s in self._waiting if s.generation.stop_asked]
            for sequence in stopped:
                self._waiting.remove(sequence)
        for sequence in stopped:
            sequence.finish("cancelled")
        if stopped:
            self._tell_positions()

    def _admit(self) -> None:
        """The party with the fewest running sequences comes first; among equals, whoever came first."""
        admitted = False
        while len(self._running) < self._limits.running:
            running = [visitor_of(s.visitor) for s in self._running]
            with self._news:
                if not self._waiting:
                    break
                sequence = min(self._waiting, key=lambda s: running.count(visitor_of(s.visitor)))
                if not self._has_room(sequence):
                    break
                self._waiting.remove(sequence)
            try:
                sequence.start(self._with_room(lambda s=sequence: self._cache.take(s.visitor, s.keys)))  # type: ignore[misc]
            except Exception as error:
                self._fail(sequence, error)
                continue
            self._running.append(sequence)
            self._admissions += 1
            sequence.admitted = self._admissions
            admitted = True
        if admitted:
            self._tell_positions()

    def _has_room(self, sequence: Sequence) -> bool:
        """Whether the cache can hold the running sequences and this one; a single one always comes in."""
        needed = held_tokens(len(sequence.tokens)) * self._kv_per_token
        return not self._running or self._cache.busy_bytes + needed <= self._cache.budget

    def _relieve(self) -> None:
        """Where the running sequences have outgrown the cache, the one that came last waits, to be read again later."""
        while len(self._running) > 1 and self._cache.busy_bytes > self._cache.budget:
            last = max(self._running, key=lambda s: s.admitted)
            self._leave(last)
            with self._news:
                self._waiting.appendleft(last)

    def _with_room(self, action: Callable[[], T]) -> T:
        """The result of `action`; where the device has no room for it, idle entries go, and it is tried once more."""
        try:
            return action()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        self._cache.shrink(0)
        empty_device_cache()
        return action()

    def _tell_positions(self) -> None:
        with self._news:
            waiting = list(self._waiting)
        for position, sequence in enumerate(waiting, 1):
            sequence.generation.put(Queued(position))

    def _choose(self) -> list[tuple[Sequence, int]]:
        """Each sequence of this step with the number of its tokens: one where it is written, a share of a chunk where read."""
        writing = [s for s in self._running if not s.prefilling]
        reading = [s for s in self._running if s.prefilling]
        room = self._limits.chunk if writing else self._limits.chunk_alone
        chosen = [(s, 1) for s in writing]
        share = max(32, room // len(reading)) if reading else 0
        for sequence in reading:
            count = min(sequence.unread, share, room)
            if count:
                chosen.append((sequence, count))
                room -= count
        if reading:  # whoever got least of this chunk comes first next time
            self._running.remove(reading[0])
            self._running.append(reading[0])
        return chosen

    def _see_images(self, sequence: Sequence, count: int) -> bool:
        """Make the features of the pictures among the next tokens; False where that failed (and the sequence with it)."""
        while (image := sequence.image_to_see(count)) is not None:
            try:
                self._with_room(lambda shown=image: self._see(shown))  # type: ignore[misc]
            except Exception as error:
                self._fail(sequence, error)
                return False
        return True

    @torch.inference_mode()
    def _see(self, image: ImageInput) -> None:
        pixels = image.pixels
        assert pixels is not None
        image.features = self._model.image_features(torch.from_numpy(pixels))
        image.pixels = None

    def _forward(self, chosen: list[tuple[Sequence, int]]) -> None:
        try:
            logits = self._with_room(lambda: self._logits(chosen))
        except Exception as error:
            if len(chosen) > 1:  # one by one, so that whose fault it is fails alone
                for each in chosen:
                    self._forward([each])
            else:
                self._fail(chosen[0][0], error)
            return
        for (sequence, count), row in zip(chosen, logits, strict=True):
            self._advance(sequence, count, row)

    def _logits(self, chosen: list[tuple[Sequence, int]]) -> torch.Tensor:
        """One forward; where it breaks, all caches are as before."""
        with ExitStack() as undo:
            for sequence, _ in chosen:
                if sequence.entry is not None:
                    undo.callback(sequence.entry.rollback)
            logits = self._model([sequence.part(count, self._image_token) for sequence, count in chosen])
            undo.pop_all()
        return logits

    def _advance(self, sequence: Sequence, count: int, logits: torch.Tensor) -> None:
        try:
            before = sequence.reused if sequence.entry is None else len(sequence.entry.keys)
            sequence.read(count)
            common = sequence.prompt.common
            if before < common <= before + count and sequence.entry is not None:
                self._cache.share(sequence.entry, common)
            goes_on = sequence.unread > 0 or sequence.write(logits)
        except Exception as error:
            self._fail(sequence, error)
            return
        if not goes_on:
            self._leave(sequence)

    def _leave(self, sequence: Sequence) -> None:
        if sequence in self._running:
            self._running.remove(sequence)
        entry, sequence.entry = sequence.entry, None
        if entry is None:
            return
        entry.rollback()
        try:
            self._cache.give_back(entry)
        except Exception as error:  # making room must never cost a reply
            log.error("an entry could not be given back", exc_info=error)

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        log.error("a request failed", exc_info=error)
        self._leave(sequence)
        if sequence.generation.ended:
            return
        sequence.fail("out_of_memory" if is_out_of_memory(error) else "generation_failed")


def visitor_of(visitor: str) -> str:
    """Whom fairness counts: what stands before a visitor key's first slash."""
    return visitor.partition("/")[0]
