"""Decides the next step: which sequences to cancel, preempt and admit, and how many tokens each runs (chunked prefill). Pure.

The caller hands in what waits and what runs and gets a `SchedulerOutput` back. Nothing here knows torch, caches or
events, so every rule can be tested with a table, and an engine without torch can use the same rules.
"""

from collections import Counter, abc
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from magistral_ui.models.memory import pages_of

MIN_PREFILL_CHUNK = 32
"""Prompt tokens that a sequence reads in a step at least: smaller pieces are hardly cheaper."""


class SchedulableSequence(Protocol):
    """What scheduling may know of a sequence."""

    owner: str
    """Whom it counts for in fairness."""
    admitted: int
    """Grows with each admission."""
    turn: int
    """Grows each time that it comes first in a prefill chunk; its admission counts as one."""

    @property
    def stopped(self) -> bool:
        """Whether it is to end."""

    @property
    def length(self) -> int:
        """Tokens of its prompt and reply so far."""

    @property
    def unread(self) -> int:
        """Tokens that are not in the cache yet: one while it decodes, more while it prefills."""

    @property
    def held_pages(self) -> int:
        """Pages of keys and values that it holds now; those that it shares count in full."""


S = TypeVar("S", bound=SchedulableSequence)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerLimits:
    """How much runs at once: sequences in a step, and prompt tokens read in a step."""

    max_sequences: int = 8
    max_batched_tokens: int = 256
    """While others decode."""
    max_batched_tokens_alone: int = 512
    """While nobody waits for a next token."""


@dataclass(frozen=True)
class SchedulerOutput(Generic[S]):
    """One step: `cancel`, `preempt` and `admit` are done in this order, then `rows` are run together in one forward."""

    cancel: tuple[S, ...] = ()
    """Those that were stopped, running or waiting."""
    preempt: tuple[S, ...] = ()
    """Those that go back to the front of the queue, the last admitted first; each goes in front of the one before."""
    admit: tuple[S, ...] = ()
    rows: tuple[tuple[S, int], ...] = ()
    """Each sequence with the number of its tokens to run: one while it decodes. For a sequence that is admitted in this step the
    number is an upper bound, since only then it turns out how much of its prompt is in the cache already."""


def schedule(
    waiting: abc.Sequence[S], running: abc.Sequence[S], pages: int, limits: SchedulerLimits
) -> SchedulerOutput[S]:
    """The next step, from those that wait, in the order in which they came, and those that run.

    `pages` are all that the device has for keys and values: whatever is idle makes room for what runs.
    """
    cancel = tuple(each for each in (*running, *waiting) if each.stopped)
    queue = [each for each in waiting if each not in cancel]
    kept = [each for each in running if each not in cancel]
    preempt = _outgrown(kept, pages)
    kept = [each for each in kept if each not in preempt]
    # A sequence that was just preempted would come in again at once if another one ended in this step.
    admit = () if preempt else _admissible(queue, kept, pages, limits)
    rows = _rows([*sorted(kept, key=lambda each: each.turn), *admit], limits)
    return SchedulerOutput(cancel, preempt, admit, rows)


def needed_pages(sequence: SchedulableSequence) -> int:
    """Pages that a sequence holds or will hold once all its tokens are read: what runs together fits together.

    What several hold counts for each of them, since each may have to copy it before it writes.
    """
    return max(sequence.held_pages, pages_of(sequence.length))


def _outgrown(running: abc.Sequence[S], pages: int) -> tuple[S, ...]:
    """The sequences, the last admitted first, without which the others fit; one alone always stays."""
    needed, outgrown = sum(needed_pages(each) for each in running), []
    for each in sorted(running, key=lambda each: each.admitted, reverse=True)[:-1]:
        if needed <= pages:
            break
        outgrown.append(each)
        needed -= needed_pages(each)
    return tuple(outgrown)


def _admissible(queue: list[S], running: abc.Sequence[S], pages: int, limits: SchedulerLimits) -> tuple[S, ...]:
    """Who comes in: a sequence of the owner with the fewest running ones, and among equals the one that came first.

    If the next in line does not fit, nobody overtakes it: short conversations could keep a long one waiting forever.
    A sequence counts with its whole length, however little of it has been read.
    """
    admitted: list[S] = []
    if not queue or len(running) >= limits.max_sequences:
        return ()
    shares = Counter(each.owner for each in running)
    taken = sum(needed_pages(each) for each in running)
    while queue and len(running) + len(admitted) < limits.max_sequences:
        first = min(queue, key=lambda each: shares[each.owner])
        taken += needed_pages(first)
        if (running or admitted) and taken > pages:  # one alone always comes in
            break
        queue.remove(first)
        admitted.append(first)
        shares[first.owner] += 1
    return tuple(admitted)


def _rows(running: abc.Sequence[S], limits: SchedulerLimits) -> tuple[tuple[S, int], ...]:
    """One token of each that decodes, and a chunk that is shared by those that prefill, in the order of `max_sequences`.

    The chunk bounds how long a step delays the decoding ones. If it is too small for all, the last ones get nothing this time.
    """
    rows = [(each, 1) for each in running if each.unread <= 1]
    prefilling = [each for each in running if each.unread > 1]
    room = limits.max_batched_tokens if rows else limits.max_batched_tokens_alone
    share = max(MIN_PREFILL_CHUNK, room // max(1, len(prefilling)))
    for each in prefilling:
        count = min(each.unread, share, room)
        if count:
            rows.append((each, count))
            room -= count
    return tuple(rows)
