"""Runs all sequences on the model, a step at a time, in the one thread that owns it; it knows no prompts and no people.

Each step is one forward: the next token of every sequence that decodes, and a chunk of the prompts that are being read. So a
long prompt delays the others by no more than a chunk, sequences join and leave between steps, and one that fails, fails alone.
What a step runs is decided in `schedule.py` and computed in `executor.py`; here its results become events.
"""

import itertools
import logging
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING

from magistral_ui.engines.local.schedule import SchedulerLimits, SchedulerOutput, schedule
from magistral_ui.engines.local.sequence import Sequence
from magistral_ui.errors import NotReady

if TYPE_CHECKING:
    from magistral_ui.engines.local.executor import Executor, RowResult

log = logging.getLogger(__name__)

SPECULATIVE_ROWS = 8
"""Rows of a step at most, drafts included, while sequences draft: so many cost little more than one, on a processor as well."""


def scheduler_limits(device_type: str) -> SchedulerLimits:
    """What suits a device: all but a processor read longer chunks and run more sequences at once."""
    return (
        SchedulerLimits()
        if device_type == "cpu"
        else SchedulerLimits(max_sequences=16, max_batched_tokens=512, max_batched_tokens_alone=2048)
    )


class Scheduler:
    """Feed it with `submit` from any thread; `run` is the engine thread's loop."""

    def __init__(self, executor: "Executor", limits: SchedulerLimits, speculative_rows: int = SPECULATIVE_ROWS) -> None:
        """`speculative_rows` bounds a step with drafts; with 0, nothing is drafted."""
        self._executor, self._limits = executor, limits
        self.speculative_rows = speculative_rows
        self.drafted = self.accepted = 0
        """Drafts that ran, and those of them that were right."""
        self._wakeup = threading.Condition()
        self._waiting: deque[Sequence] = deque()
        """Guarded by `_wakeup`: other threads append, and only the engine's thread removes."""
        self._running: list[Sequence] = []
        self._live: weakref.WeakSet[Sequence] = weakref.WeakSet()
        """All that were submitted, as long as they are kept; guarded by `_wakeup`."""
        self._closing = False
        self._turns = itertools.count(1)
        self._drafting = itertools.count()

    def submit(self, sequence: Sequence) -> None:
        """Let `sequence` wait for its turn. How many may wait is decided before they get here."""
        with self._wakeup:
            if self._closing:
                raise NotReady
            self._waiting.append(sequence)
            excess = len(self._running) + len(self._waiting) - self._limits.max_sequences
            if excess > 0:
                sequence.tell_position(excess)
            self._live.add(sequence)
            self._wakeup.notify()

    def live_of(self, visitor: str) -> list[Sequence]:
        """A visitor's sequences that have not ended."""
        with self._wakeup:
            return [each for each in self._live if each.visitor == visitor and not each.generation.ended]

    def wake(self) -> None:
        """Look again: someone pressed stop or answer-now."""
        with self._wakeup:
            self._wakeup.notify()

    def close(self) -> None:
        """End `run` after the current step; all sequences end as cancelled."""
        with self._wakeup:
            self._closing = True
            self._wakeup.notify()

    def run(self) -> None:
        """Steps until `close`; whatever happens, every sequence gets its last event."""
        try:
            while self._wait_for_work():
                try:
                    self.step()
                except Exception as error:
                    # No failure of one request should get here. If one does, the requests that come later still run.
                    for sequence in list(self._running):
                        self._fail(sequence, error)
        finally:
            with self._wakeup:
                self._closing = True
                left = [*self._running, *self._waiting]
                self._running.clear()
                self._waiting.clear()
            for sequence in left:
                if not sequence.generation.ended:
                    self._cancel(sequence)

    def step(self) -> None:
        with self._wakeup:
            waiting = tuple(self._waiting)
        step = schedule(waiting, self._running, self._executor.pages, self._limits)
        self._apply_schedule(step)
        rows = [(sequence, min(count, sequence.unread)) for sequence, count in step.rows if sequence.entry is not None]
        first = next((sequence for sequence, _ in rows if sequence.prefilling), None)
        if first is not None:
            first.turn = next(self._turns)
        self._draft([sequence for sequence, _ in rows])
        for result in self._executor.run(rows) if rows else ():
            self._apply(result)

    def _wait_for_work(self) -> bool:
        with self._wakeup:
            self._wakeup.wait_for(lambda: self._closing or self._waiting or self._running)
            return not self._closing

    def _apply_schedule(self, step: SchedulerOutput[Sequence]) -> None:
        """Let sequences leave and come in, and tell those that wait how far the queue has moved."""
        for sequence in (*step.cancel, *step.preempt):
            self._leave(sequence)
        with self._wakeup:
            moved = [each for each in self._waiting if each in step.cancel or each in step.admit]
            for sequence in moved:
                self._waiting.remove(sequence)
            self._waiting.extendleft(step.preempt)
            waiting = list(self._waiting)
        for sequence in step.cancel:
            self._cancel(sequence)
        for sequence in step.admit:
            self._admit(sequence)
        if moved or step.preempt:
            for position, sequence in enumerate(waiting, 1):
                sequence.tell_position(position)

    def _admit(self, sequence: Sequence) -> None:
        try:
            sequence.start(self._executor.take(sequence))
        except Exception as error:
            self._fail(sequence, error)
            return
        sequence.leave_queue()
        sequence.admitted = sequence.turn = next(self._turns)
        self._running.append(sequence)

    def _draft(self, sequences: list[Sequence]) -> None:
        """Let sequences guess ahead if all of them decode, each as far as its share of the rows that are free."""
        free = self.speculative_rows - len(sequences)
        if free <= 0 or any(sequence.prefilling for sequence in sequences):
            return
        turn = next(self._drafting) % max(1, len(sequences))  # what does not divide evenly goes to each in turn
        for others, sequence in zip(range(len(sequences), 0, -1), sequences[turn:] + sequences[:turn], strict=True):
            most = min(-(-free // others), sequence.draftable)
            if most > 0:
                sequence.drafts = sequence.drafter.propose(sequence, most)[:most]
                free -= len(sequence.drafts)

    def _apply(self, result: "RowResult") -> None:
        sequence, drafts = result.sequence, len(result.sequence.drafts)
        if result.error is not None:
            self._fail(sequence, result.error)
            return
        try:
            sequence.read(result.count)
            if not result.tokens:
                return
            more, right = sequence.write_run(result.tokens, result.banned)
            if drafts:
                self._judge(sequence, drafts, right)
        except Exception as error:
            self._fail(sequence, error)
            return
        if not more:
            self._leave(sequence)

    def _cancel(self, sequence: Sequence) -> None:
        """Whatever breaks here, those that come in or leave beside it are not lost."""
        try:
            sequence.finish("cancelled")
        except Exception as error:
            self._fail(sequence, error)

    def _judge(self, sequence: Sequence, drafts: int, right: int) -> None:
        self._executor.keep(sequence, right)
        sequence.drafter.judged(drafts, right)
        self.drafted += drafts
        self.accepted += right

    def _leave(self, sequence: Sequence) -> None:
        if sequence in self._running:
            self._running.remove(sequence)
        self._executor.give_back(sequence)

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        log.error("a request failed", exc_info=error)
        self._leave(sequence)
        if not sequence.generation.ended:
            sequence.fail(self._executor.failure_key(error))
