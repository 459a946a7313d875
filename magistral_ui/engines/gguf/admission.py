"""Decides which replies get a slot of llama.cpp and room in its pool of keys and values, and which must go. Pure.

All slots share one pool, and when that is full every reply fails. So nothing is left to the server: a stream may write only as
many tokens as there is room for, its lease, and every token that a slot may hold counts, also those that a stream which was cut
might have written. What a slot holds is reused by its own visitor only.
"""

from collections import Counter, abc
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

MAX_CACHED_CONVERSATIONS = 2
"""Slots that a visitor's idle conversations keep while they begin another one."""


@dataclass(slots=True)
class Slot:
    """One of llama.cpp's slots."""

    number: int
    visitor: str | None = None
    """Whose tokens it certainly holds, and nobody else's."""
    keys: abc.Sequence[int] = ()
    """Of the tokens that it holds; more may follow them."""
    held: int = 0
    """Tokens that it may hold at most, those that its stream may still write among them."""
    used: int = 0
    """Grows each time that a reply takes it."""
    busy: bool = False
    """Whether a reply has it."""
    clearing: bool = False
    """Whether it is being cleared; it is not to be used until then."""
    forgotten: bool = False
    """Whether it is to be cleared as soon as it is idle."""

    @property
    def idle(self) -> bool:
        return not self.busy and not self.clearing


class AdmissibleReply(Protocol):
    """What admission may know of a reply."""

    @property
    def visitor(self) -> str:
        """Whose slots it may reuse."""

    @property
    def owner(self) -> str:
        """Whom it counts for in fairness."""

    @property
    def keys(self) -> abc.Sequence[int]:
        """Of its tokens so far, those of the prompt among them."""

    @property
    def common(self) -> int:
        """Leading tokens that every conversation has."""

    @property
    def needed(self) -> int:
        """Tokens that its slot may hold with its next stream: all so far, and those which that may write."""

    @property
    def slot(self) -> int | None:
        """The number of its slot, if it has one."""

    @property
    def admitted(self) -> int:
        """Grows with each admission."""

    @property
    def paused(self) -> bool:
        """Whether it has a slot, and waits for its next lease."""


R = TypeVar("R", bound=AdmissibleReply)


@dataclass(frozen=True)
class Admission(Generic[R]):
    """What to do now. If it preempts or clears, ask again afterwards: there is more room then."""

    preempt: tuple[R, ...] = ()
    """Replies that give their slots back and go to the front of the queue."""
    clear: tuple[int, ...] = ()
    """Numbers of idle slots whose content is to be erased."""
    extend: tuple[R, ...] = ()
    """Paused replies that get their next lease."""
    start: tuple[tuple[R, int, bool], ...] = ()
    """Waiting replies, each with its slot, and whether what that holds may be reused."""


def admit(waiting: abc.Sequence[R], running: abc.Sequence[R], slots: abc.Sequence[Slot], capacity: int) -> Admission[R]:
    """The next step for the replies that wait, in the order in which they came, and those that have a slot.

    Running replies come before waiting ones, the longest admitted first: the last admitted gives way to them. One reply alone
    always fits, since no reply may be longer than the pool.
    """
    free = capacity - sum(slot.held for slot in slots)
    coming = sum(slot.held for slot in slots if slot.clearing)
    idle = [slot for slot in slots if slot.idle]
    extend: list[R] = []
    for reply in sorted((each for each in running if each.paused), key=lambda each: each.admitted):
        more = reply.needed - slots[reply.slot or 0].held
        if more > free:
            clear = _clearable(idle, more - free - coming)
            if clear is None:
                return Admission(preempt=(max(running, key=lambda each: each.admitted),), extend=tuple(extend))
            return Admission(clear=clear, extend=tuple(extend))
        free -= max(0, more)
        extend.append(reply)
    start, clear = _start(list(waiting), running, idle, free, coming)
    return Admission(clear=clear, extend=tuple(extend), start=start)


def _start(
    queue: list[R], running: abc.Sequence[R], idle: list[Slot], free: int, coming: int
) -> tuple[tuple[tuple[R, int, bool], ...], tuple[int, ...]]:
    """Who comes in: a reply of the owner with the fewest running ones, and among equals the one that came first.

    If the next in line does not fit, nobody overtakes it: short conversations could keep a long one waiting forever.
    """
    start: list[tuple[R, int, bool]] = []
    shares = Counter(each.owner for each in running)
    while queue and idle:
        first = min(queue, key=lambda each: shares[each.owner])
        slot = choose_slot(first, idle)
        others = [each for each in idle if each is not slot]
        more = max(0, first.needed - slot.held)  # what a slot holds is only dropped once the new stream is begun
        if more > free:
            return tuple(start), _clearable(others, more - free - coming) or ()
        start.append((first, slot.number, slot.visitor == first.visitor))
        queue.remove(first)
        shares[first.owner] += 1
        free, idle = free - more, others
    return tuple(start), ()


def choose_slot(reply: AdmissibleReply, idle: abc.Sequence[Slot]) -> Slot:
    """The slot that holds most of the reply's conversation; or else one that is empty, or whose content is missed least.

    A common system prompt alone is no reason to give up another conversation of the visitor, unless they have several.
    """
    own = [slot for slot in idle if slot.visitor == reply.visitor and slot.keys]
    if own:
        best = max(own, key=lambda slot: (common_prefix(slot.keys, reply.keys), slot.used))
        if common_prefix(best.keys, reply.keys) > reply.common or len(own) >= MAX_CACHED_CONVERSATIONS:
            return best if common_prefix(best.keys, reply.keys) > reply.common else min(own, key=lambda slot: slot.used)
    empty = [slot for slot in idle if not slot.keys]
    return min(empty, key=lambda slot: slot.held) if empty else _least_missed(idle)


def common_prefix(first: abc.Sequence[int], second: abc.Sequence[int]) -> int:
    """How many keys at the beginning are the same."""
    length = min(len(first), len(second))
    if first[:length] == second[:length]:
        return length
    return next(at for at in range(length) if first[at] != second[at])


def _clearable(idle: abc.Sequence[Slot], missing: int) -> tuple[int, ...] | None:
    """The slots to clear for `missing` tokens of room, as few as possible of those missed least; None if all are too few."""
    left, chosen = [slot for slot in idle if slot.held > 1], []
    while missing > 0:
        if not left:
            return None
        slot = _least_missed(left)
        left.remove(slot)
        chosen.append(slot.number)
        missing -= slot.held - 1
    return tuple(chosen)


def _least_missed(idle: abc.Sequence[Slot]) -> Slot:
    """The least recently used slot of the visitor who has most of them: nobody can flush the slots of all others."""
    counts = Counter(slot.visitor for slot in idle if slot.keys)
    return min(idle, key=lambda slot: (-counts[slot.visitor], slot.used))
