"""Who gets a slot and room in the pool: a table of cases, and promises that hold whatever replies come and go."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magistral_ui.engines.gguf.admission import Admission, Slot, admit, choose_slot, common_prefix

LEASE = 10


@dataclass(eq=False)
class Reply:
    """One that knows nothing but its numbers."""

    visitor: str = "ann"
    keys: list[int] = field(default_factory=list)
    limit: int = 1_000
    common: int = 0
    slot: int | None = None
    admitted: int = 0
    open: bool = False
    begun: bool = False
    reuses: bool = False

    @property
    def owner(self) -> str:
        return self.visitor

    @property
    def needed(self) -> int:
        return len(self.keys) + min(LEASE, self.limit)

    @property
    def paused(self) -> bool:
        return self.slot is not None and not self.open


def reply(visitor: str = "ann", length: int = 20, first: int = 0, **more: int) -> Reply:
    return Reply(visitor, list(range(first, first + length)), **more)


def slots(*held: tuple[str | None, int], busy: Sequence[int] = ()) -> list[Slot]:
    """Each with its visitor and how many tokens it holds, used in this order."""
    return [
        Slot(number, who, list(range(count)) if who else (), count, number + 1, number in busy)
        for number, (who, count) in enumerate(held)
    ]


EMPTY = (None, 0)


def started(step: Admission[Reply]) -> list[tuple[int, bool]]:
    return [(number, reuse) for _, number, reuse in step.start]


@pytest.mark.parametrize(
    ("case", "waiting", "held", "capacity", "start", "clear"),
    [
        ("an empty slot", [reply()], [EMPTY, EMPTY], 100, [(0, False)], ()),
        ("two fit", [reply(), reply("bob")], [EMPTY, EMPTY], 100, [(0, False), (1, False)], ()),
        ("the second does not fit", [reply(), reply("bob")], [EMPTY, EMPTY], 50, [(0, False)], ()),
        ("their own conversation", [reply(length=40)], [("bob", 20), ("ann", 30)], 100, [(1, True)], ()),
        ("another's is never reused", [reply(length=40)], [("bob", 20)], 100, [(0, False)], ()),
        ("an empty one before another's", [reply(length=40)], [("bob", 20), EMPTY], 100, [(1, False)], ()),
        ("others make room", [reply(length=60)], [("bob", 60), EMPTY], 100, [], (0,)),
        ("no more than needed", [reply(length=60)], [("bob", 30), ("eve", 30), ("joe", 30), EMPTY], 102, [], (0, 1)),
        ("nobody overtakes", [reply(length=95), reply("bob")], [EMPTY, EMPTY], 100, [], ()),
    ],
)
def test_who_comes_in(
    case: str,
    waiting: list[Reply],
    held: list[tuple[str | None, int]],
    capacity: int,
    start: list[tuple[int, bool]],
    clear: tuple[int, ...],
) -> None:
    step = admit(waiting, [], slots(*held), capacity)
    assert started(step) == start, case
    assert step.clear == clear, case


def test_an_owner_with_fewer_replies_goes_first() -> None:
    running = reply(slot=0, admitted=1)
    running.open = True
    second, other = reply(), reply("bob")
    step = admit([second, other], [running], slots(("ann", 30), EMPTY, busy=[0]), 100)
    assert [each for each, *_ in step.start] == [other]


def test_a_paused_reply_goes_on_before_others_come_in() -> None:
    paused, new = reply(length=30, slot=0, admitted=1), reply("bob")
    step = admit([new], [paused], slots(("ann", 30), EMPTY, busy=[0]), 65)
    assert step.extend == (paused,)
    assert not step.start


def test_idle_conversations_give_way_to_a_paused_reply() -> None:
    paused = reply(length=30, slot=0, admitted=1)
    step = admit([], [paused], slots(("ann", 30), ("bob", 20), ("eve", 20), busy=[0]), 75)
    assert step.clear == (1,)
    assert not step.extend
    assert not step.preempt


def test_the_last_admitted_gives_way_to_a_paused_reply() -> None:
    paused, last = reply(length=30, slot=0, admitted=1), reply("bob", slot=1, admitted=2)
    last.open = True
    step = admit([], [paused, last], slots(("ann", 30), ("bob", 30), busy=[0, 1]), 65)
    assert step.preempt == (last,)


def test_the_last_admitted_gives_way_itself() -> None:
    first, paused = reply(slot=0, admitted=1), reply("bob", length=30, slot=1, admitted=2)
    first.open = True
    step = admit([], [first, paused], slots(("ann", 30), ("bob", 30), busy=[0, 1]), 65)
    assert step.preempt == (paused,)


def test_what_is_being_cleared_is_waited_for() -> None:
    all_slots = slots(("bob", 60), EMPTY)
    all_slots[0].clearing = True
    step = admit([reply(length=60)], [], all_slots, 100)
    assert step == Admission()


def test_a_new_conversation_leaves_the_visitor_s_other_one_alone() -> None:
    new = reply(length=20, common=5)
    new.keys[5:] = range(500, 515)
    one = slots(("ann", 30), EMPTY)
    assert choose_slot(new, one).number == 1
    assert (
        choose_slot(new, slots(("ann", 30), ("ann", 20), EMPTY)).number == 0
    )  # but they have two, and this is the older
    assert choose_slot(reply(length=40, common=5), one).number == 0


def test_who_has_most_conversations_loses_one() -> None:
    assert choose_slot(reply("joe"), slots(("eve", 10), ("bob", 10), ("bob", 10))).number == 1


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_a_common_prefix_is_as_long_as_possible(first: list[int], second: list[int]) -> None:
    length = common_prefix(first, second)
    assert first[:length] == second[:length]
    assert first[: length + 1] != second[: length + 1] or length == min(len(first), len(second))


@dataclass
class World:
    """A server with slots and a pool, as pessimistic as can be: every stream writes all it may, cut ones too."""

    capacity: int
    slots: list[Slot]
    waiting: list[Reply] = field(default_factory=list)
    running: list[Reply] = field(default_factory=list)
    done: list[Reply] = field(default_factory=list)
    content: dict[int, tuple[str | None, int]] = field(default_factory=dict)
    """Of each slot: whose tokens it holds, and how many."""
    turns: int = 0

    def step(self) -> None:
        step = admit(self.waiting, self.running, self.slots, self.capacity)
        for each in step.preempt:
            self.leave(each)
            self.waiting.insert(0, each)
        for number in step.clear:
            assert self.slots[number].idle
            self.slots[number].clearing = True
        for each in step.extend:
            self.open(each)
        for each, number, reuse in step.start:
            slot = self.slots[number]
            assert slot.idle
            assert not reuse or self.content.get(number, (None, 0))[0] == each.visitor, "another visitor's tokens"
            self.turns += 1
            slot.busy, slot.used, slot.visitor = True, self.turns, each.visitor
            each.slot, each.admitted = number, self.turns
            self.waiting.remove(each)
            self.running.append(each)
            self.open(each)
        self.check()

    def open(self, each: Reply) -> None:
        slot = self.slots[each.slot or 0]
        slot.held, slot.keys, each.open = max(slot.held, each.needed), list(each.keys), True
        self.content[slot.number] = (each.visitor, each.needed)

    def check(self) -> None:
        assert sum(count for _, count in self.content.values()) <= self.capacity
        assert sum(slot.held for slot in self.slots) <= self.capacity
        for slot in self.slots:
            assert self.content.get(slot.number, (None, 0))[1] <= slot.held

    def leave(self, each: Reply) -> None:
        self.slots[each.slot or 0].busy = False
        each.slot, each.open = None, False
        self.running.remove(each)

    def write(self, each: Reply, all_of_it: bool) -> None:
        count = min(LEASE, each.limit) if all_of_it else min(3, each.limit)
        each.keys += range(count)
        each.limit -= count
        each.open = False
        slot = self.slots[each.slot or 0]
        slot.keys = list(each.keys)
        if all_of_it:
            slot.held = len(each.keys)
            self.content[slot.number] = (each.visitor, len(each.keys))
        if not each.limit:
            self.leave(each)
            self.done.append(each)

    def clear(self) -> None:
        for slot in self.slots:
            if slot.clearing:
                slot.clearing, slot.visitor, slot.keys, slot.held = False, None, (), 1
                self.content[slot.number] = (None, 1)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 60), st.integers(1, 35)), min_size=1, max_size=14),
    st.integers(1, 4),
    st.integers(0, 2**32),
)
def test_the_pool_never_overflows_and_all_are_served(asked: list[tuple[str, int, int]], count: int, seed: int) -> None:
    choose = random.Random(seed).random
    world = World(100, [Slot(number) for number in range(count)])
    replies = [Reply(visitor, list(range(length)), limit) for visitor, length, limit in asked]
    for _ in range(2_000):
        if replies and choose() < 0.4:
            world.waiting.append(replies.pop())
        if len(world.done) == len(asked):
            return
        world.step()
        if choose() < 0.7:
            world.clear()
        for each in [each for each in world.running if each.open]:
            if choose() < 0.5:
                world.write(each, choose() < 0.8)
    raise AssertionError("somebody starves")
