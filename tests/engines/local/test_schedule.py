"""What the next step runs, as a table: who leaves, who comes in, and how many tokens of each; no model is needed for it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magistral_ui.engines.local.schedule import (
    MIN_PREFILL_CHUNK,
    SchedulerLimits,
    SchedulerOutput,
    needed_pages,
    schedule,
)
from magistral_ui.models import memory

LIMITS = SchedulerLimits(max_sequences=4, max_batched_tokens=256, max_batched_tokens_alone=512)
ROOM = 10**9
"""Pages; a page is a token here."""


@pytest.fixture(autouse=True, scope="module")
def pages_of_one_token() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "PAGE_TOKENS", 1)
        yield


@dataclass(frozen=True)
class Slot:
    """A sequence as scheduling sees it; `name` tells them apart."""

    name: str
    owner: str = ""
    length: int = 100
    unread: int = 1
    held_pages: int = 0
    admitted: int = 0
    turn: int = 0
    stopped: bool = False

    @classmethod
    def new(cls, name: str, owner: str = "", length: int = 100, **more: object) -> "Slot":
        """It waits: nothing of it is read."""
        return cls(name, owner or name, length, length, **more)  # type: ignore[arg-type]

    @classmethod
    def writing(cls, name: str, owner: str = "", number: int = 0, **more: object) -> "Slot":
        """It decodes; `number` is its admission's."""
        return cls(name, owner or name, admitted=number, turn=number, **more)  # type: ignore[arg-type]

    @classmethod
    def reading(cls, name: str, unread: int, turn: int = 0, **more: object) -> "Slot":
        """It prefills."""
        return cls(name, name, unread + 50, unread, admitted=turn, turn=turn, **more)  # type: ignore[arg-type]


new, writing, reading = Slot.new, Slot.writing, Slot.reading


@dataclass(frozen=True)
class Case:
    """A row of the table; names stand for the slots in what is expected."""

    waiting: list[Slot] = field(default_factory=list)
    running: list[Slot] = field(default_factory=list)
    pages: int = ROOM
    limits: SchedulerLimits = LIMITS
    cancel: str = ""
    preempt: str = ""
    admit: str = ""
    rows: dict[str, int] = field(default_factory=dict)


TABLE = {
    "nothing to do": Case(),
    "a decoding sequence runs its last token": Case(running=[writing("a")], rows={"a": 1}),
    "one that waits comes in and is read in this very step": Case([new("a")], admit="a", rows={"a": 100}),
    "all decode together": Case(running=[writing("a"), writing("b")], rows={"a": 1, "b": 1}),
    # Who comes in.
    "the first to come is the first to enter": Case(
        [new("a"), new("b")], [writing(n) for n in "xyz"], admit="a", rows={"x": 1, "y": 1, "z": 1, "a": 100}
    ),
    "there is no seat": Case([new("a")], [writing(n) for n in "wxyz"], rows=dict.fromkeys("wxyz", 1)),
    "a visitor with nothing running comes before one with something": Case(
        [new("a", "ann"), new("b", "bob")],
        [writing("x", "ann"), writing("y", "ann"), writing("z", "ann")],
        admit="b",
        rows={"x": 1, "y": 1, "z": 1, "b": 100},
    ),
    "among visitors with as many running, whoever came first": Case(
        [new("a", "ann"), new("b", "bob")],
        [writing("x", "bob"), writing("y", "ann"), writing("z", "cy")],
        admit="a",
        rows={"x": 1, "y": 1, "z": 1, "a": 100},
    ),
    "two visitors take turns for the seats": Case(
        [new("a", "ann"), new("b", "ann"), new("c", "ann"), new("d", "bob")],
        [writing("x", "cy"), writing("y", "cy")],
        admit="ad",
        rows={"x": 1, "y": 1, "a": 100, "d": 100},
    ),
    "a seat that is freed by a stop is given at once": Case(
        [new("a")],
        [writing("w", stopped=True), *(writing(n) for n in "xyz")],
        cancel="w",
        admit="a",
        rows={"x": 1, "y": 1, "z": 1, "a": 100},
    ),
    # What the cache has room for.
    "what fits beside the others comes in": Case(
        [new("a")], [writing("x", held_pages=500)], 600, admit="a", rows={"x": 1, "a": 100}
    ),
    "what does not fit waits": Case([new("a")], [writing("x", held_pages=501)], 600, rows={"x": 1}),
    "one that fits does not overtake one that does not": Case(
        [new("a", length=500), new("b", length=10)], [writing("x", held_pages=500)], 600, rows={"x": 1}
    ),
    "one larger than the whole cache comes in alone": Case(
        [new("a", length=1000)], pages=10, admit="a", rows={"a": 512}
    ),
    "and nobody comes in beside it": Case([new("b")], [reading("a", 900)], 10, rows={"a": 512}),
    "those that come in together fit together": Case(
        [new("a"), new("b"), new("c")], pages=299, admit="ab", rows={"a": 100, "b": 100}
    ),
    "one that has hardly been read counts with its whole length": Case(
        [new("a")], [reading("x", 400, held_pages=10)], 549, rows={"x": 400}
    ),
    # Who has to make room.
    "of those that outgrew the cache the last admitted waits again": Case(
        running=[writing("a", number=1, held_pages=60), writing("b", number=2, held_pages=60)],
        pages=100,
        preempt="b",
        rows={"a": 1},
    ),
    "as many as it takes": Case(
        running=[writing(n, number=i, held_pages=60) for i, n in enumerate("abcd")],
        pages=230,
        preempt="dc",
        rows={"a": 1, "b": 1},
    ),
    "the last one left runs on, whatever it takes": Case(
        running=[writing("a", number=1, held_pages=60), writing("b", number=2, held_pages=60)],
        pages=10,
        preempt="b",
        rows={"a": 1},
    ),
    "nobody comes in while others are put back": Case(
        [new("c", length=1)],
        [writing("a", number=1, held_pages=60), writing("b", number=2, held_pages=60)],
        100,
        preempt="b",
        rows={"a": 1},
    ),
    "what is still to be read counts too": Case(
        running=[reading("a", 60, turn=1), reading("b", 60, turn=2)], pages=200, preempt="b", rows={"a": 60}
    ),
    "a stop may be all the room it takes": Case(
        running=[writing("a", number=1, held_pages=60, stopped=True), writing("b", number=2, held_pages=60)],
        pages=100,
        cancel="a",
        rows={"b": 1},
    ),
    # Who ends.
    "one that is stopped while it waits leaves the queue": Case(
        [new("a", stopped=True), new("b")], [writing(n) for n in "wxyz"], cancel="a", rows=dict.fromkeys("wxyz", 1)
    ),
    "one that is stopped while it is read runs no more": Case(running=[reading("a", 900, stopped=True)], cancel="a"),
    # How a chunk is shared.
    "a long prompt delays those that decode by a chunk": Case(
        running=[writing("a"), reading("b", 2000)], rows={"a": 1, "b": 256}
    ),
    "alone it is read in larger chunks": Case(running=[reading("b", 2000)], rows={"b": 512}),
    "prompts share a chunk": Case(running=[reading("a", 2000), reading("b", 2000)], rows={"a": 256, "b": 256}),
    "a short prompt takes no more than it has": Case(
        running=[reading("a", 5), reading("b", 2000)], rows={"a": 5, "b": 256}
    ),
    "no share is smaller than it pays to read": Case(
        running=[writing("x"), *(reading(n, 2000, i) for i, n in enumerate("abc"))],
        limits=replace(LIMITS, max_batched_tokens=64),
        rows={"x": 1, "a": 32, "b": 32},
    ),
    "where a chunk does not go round, the one that waited longest begins": Case(
        running=[writing("x"), reading("a", 2000, 9), reading("b", 2000, 7), reading("c", 2000, 8)],
        limits=replace(LIMITS, max_batched_tokens=64),
        rows={"x": 1, "b": 32, "c": 32},
    ),
    "whoever comes in is read after those that are being read": Case(
        [new("a", turn=1)],
        [writing("x"), reading("b", 2000, 7), reading("c", 2000, 8)],
        limits=replace(LIMITS, max_batched_tokens=64),
        admit="a",
        rows={"x": 1, "b": 32, "c": 32},
    ),
}


def names(slots: tuple[Slot, ...]) -> str:
    return "".join(slot.name for slot in slots)


@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE)
def test_the_table(case: Case) -> None:
    step = schedule(case.waiting, case.running, case.pages, case.limits)
    assert names(step.cancel) == case.cancel
    assert names(step.preempt) == case.preempt
    assert names(step.admit) == case.admit
    assert {slot.name: count for slot, count in step.rows} == case.rows


OWNER = st.sampled_from("abc")
LENGTH = st.integers(2, 2000)


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Slot], list[Slot], int, SchedulerLimits]:
    limits = SchedulerLimits(
        max_sequences=draw(st.integers(1, 6)),
        max_batched_tokens=draw(st.integers(32, 300)),
        max_batched_tokens_alone=draw(st.integers(32, 600)),
    )
    pages = draw(st.integers(1, 8000))
    running = []
    for number in range(draw(st.integers(0, limits.max_sequences))):
        length = draw(LENGTH)
        unread = draw(st.one_of(st.just(1), st.integers(1, length)))
        held, stopped = draw(st.integers(0, 3000)), draw(st.booleans())
        running.append(Slot(f"r{number}", draw(OWNER), length, unread, held, number, number, stopped))
    waiting = [Slot.new(f"w{n}", draw(OWNER), draw(LENGTH)) for n in range(draw(st.integers(0, 5)))]
    return waiting, running, pages, limits


@given(situations())
def test_what_comes_in_fits_or_is_alone(situation: tuple[list[Slot], list[Slot], int, SchedulerLimits]) -> None:
    waiting, running, pages, limits = situation
    step: SchedulerOutput[Slot] = schedule(waiting, running, pages, limits)
    left = [slot for slot in running if slot not in (*step.cancel, *step.preempt)]
    together = [*left, *step.admit]
    assert len(together) <= limits.max_sequences
    assert len(together) >= 1 or all(slot.stopped for slot in (*running, *waiting))
    if len(together) > 1:
        assert sum(needed_pages(slot) for slot in together) <= pages


@given(situations())
def test_a_step_is_bounded_and_leaves_nobody_that_decodes(
    situation: tuple[list[Slot], list[Slot], int, SchedulerLimits],
) -> None:
    waiting, running, pages, limits = situation
    step: SchedulerOutput[Slot] = schedule(waiting, running, pages, limits)
    kept = [slot for slot in (*running, *step.admit) if slot not in (*step.cancel, *step.preempt)]
    counts = {slot.name: count for slot, count in step.rows}
    decoding = [slot for slot in kept if slot.unread == 1]
    assert all(counts[slot.name] == 1 for slot in decoding)
    chunk = limits.max_batched_tokens if decoding else limits.max_batched_tokens_alone
    assert sum(counts.values()) <= chunk + len(decoding)
    assert all(0 < count <= slot.unread for slot, count in step.rows)
    assert {slot for slot, _ in step.rows} <= set(kept)
    if prompts := [slot for slot in kept if slot.unread > 1]:
        assert any(slot.name in counts for slot in prompts), "something is read in each step"
        assert min(prompts, key=lambda slot: (slot in step.admit, slot.turn)).name in counts
        assert all(
            counts[slot.name] <= max(MIN_PREFILL_CHUNK, chunk // len(prompts))
            for slot in prompts
            if slot.name in counts
        )


@given(st.lists(st.tuples(OWNER, st.integers(2, 400), st.integers(1, 5)), min_size=1, max_size=8), st.integers(32, 100))
def test_nobody_starves(asked: list[tuple[str, int, int]], chunk: int) -> None:
    """Every sequence ends, and while one is read, no two chunks of its own are further apart than there are seats."""
    limits = SchedulerLimits(max_sequences=3, max_batched_tokens=chunk, max_batched_tokens_alone=chunk)
    pages = 1500
    waiting = [Slot.new(f"{n}", owner, length) for n, (owner, length, _) in enumerate(asked)]
    to_write = {f"{n}": count for n, (_, _, count) in enumerate(asked)}
    running: list[Slot] = []
    turns, idle = 0, dict.fromkeys(to_write, 0)
    for _ in range(sum(length + count for _, length, count in asked) + 1):
        step: SchedulerOutput[Slot] = schedule(waiting, running, pages, limits)
        assert not step.preempt
        waiting = [slot for slot in waiting if slot not in step.admit]
        for slot in step.admit:
            turns += 1
            running.append(replace(slot, admitted=turns, turn=turns))
        counts = {slot.name: count for slot, count in step.rows}
        idle = {slot.name: 0 if slot.name in counts else idle[slot.name] + 1 for slot in running} | {
            slot.name: 0 for slot in waiting
        }
        assert max(idle.values()) < limits.max_sequences
        first = next((slot.name for slot, count in step.rows if slot.unread > 1), None)
        advanced = []
        for slot in running:
            unread = slot.unread - counts.get(slot.name, 0)
            turns += slot.name == first
            turn = turns if slot.name == first else slot.turn
            if unread:
                advanced.append(replace(slot, unread=unread, turn=turn))
            elif to_write[slot.name]:
                to_write[slot.name] -= 1
                advanced.append(replace(slot, unread=1, length=slot.length + 1, turn=turn))
        running = advanced
        if not running and not waiting:
            return
    raise AssertionError(f"left: {running}, {waiting}")
