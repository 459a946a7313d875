"""A reply on its way: whoever reads it, from wherever, sees the same, it ends exactly once, and its usage is counted."""

import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magistral_ui.chat.events import Answer, Event, Failed, Finished, Notice, Reasoning, Reclassified, Usage
from magistral_ui.engines.generation import Generation, UsageCounter
from tests.engines.following import follow

EVENTS: list[Event] = [
    *(Reasoning(str(n)) for n in range(150)),
    *(Answer(str(n)) for n in range(150)),
    Finished("stop"),
]


def events_of(generation: Generation, start: int = 0) -> list[Event]:
    """What follows from number `start` on, the last one without what was counted."""
    return [
        replace(event, usage=Usage()) if isinstance(event, Finished | Failed) else event
        for event in follow(generation, start)
    ]


def write(generation: Generation, events: list[Event]) -> None:
    for event in events:
        generation.put(event)


def test_an_answer_that_turns_out_to_be_reasoning_is_reasoning_for_whoever_reads_later() -> None:
    generation = Generation()
    write(generation, [Answer("\n"), Answer("\nso ", 2), Notice("a"), Answer("5\n", 3)])
    before = generation.take()
    write(generation, [Reclassified(), Answer("5"), Finished("stop")])
    wanted = [Reasoning(""), Reasoning("so ", 2), Notice("a"), Reasoning("5\n", 3), Reclassified(), Answer("5")]
    assert events_of(generation) == [*wanted, Finished("stop")]
    assert events_of(generation, len(before)) == [Reclassified(), Answer("5"), Finished("stop")]
    assert [each.seconds for each in generation.take()[: len(before)]] == [each.seconds for each in before]
    assert before[0].event == Answer("\n"), "what somebody has taken stays as it was"


def test_followers_from_any_start_in_any_thread_see_the_same() -> None:
    generation = Generation()
    seen: dict[int, list[Event]] = {}

    def follow(start: int) -> None:
        seen[start] = events_of(generation, start)

    early = [threading.Thread(target=follow, args=(start,)) for start in (0, 1, 150, 299, 300)]
    for thread in early:
        thread.start()
    writer = threading.Thread(target=write, args=(generation, EVENTS))
    writer.start()
    late = [threading.Thread(target=follow, args=(start,)) for start in (2, 100, 298)]
    for thread in late:
        thread.start()
    for thread in (writer, *early, *late):
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert seen == {start: EVENTS[start:] for start in (0, 1, 150, 299, 300, 2, 100, 298)}


def test_following_after_the_end_gives_all_and_ends() -> None:
    generation = Generation()
    write(generation, EVENTS)
    assert events_of(generation) == EVENTS
    assert events_of(generation, len(EVENTS)) == []
    assert events_of(generation, len(EVENTS) + 5) == []


def test_a_follower_that_leaves_changes_nothing() -> None:
    generation = Generation()
    write(generation, EVENTS[:3])
    follower = follow(generation)
    assert next(follower) == EVENTS[0]
    follower.close()  # type: ignore[attr-defined]  # it is a generator
    write(generation, EVENTS[3:])
    assert events_of(generation, 1) == EVENTS[1:]


@pytest.mark.parametrize("last", [Finished("stop"), Failed("out_of_memory")])
def test_nothing_follows_the_last_event(last: Event) -> None:
    generation = Generation()
    assert not generation.ended
    generation.put(last)
    assert generation.ended
    for event in (Answer("more"), Finished("stop"), Failed("again")):
        with pytest.raises(RuntimeError, match="has ended"):
            generation.put(event)
    assert events_of(generation) == [last]


def test_events_that_are_there_are_taken_without_waiting() -> None:
    generation = Generation()
    assert generation.take() == []
    write(generation, EVENTS[:3])
    taken = generation.take(1)
    assert [stamped.event for stamped in taken] == EVENTS[1:3]
    assert 0 <= taken[0].seconds <= taken[1].seconds <= generation.elapsed
    assert len(generation) == 3


def test_waiting_for_the_end() -> None:
    generation = Generation()
    assert generation.wait(timeout=0) is False
    threading.Thread(target=write, args=(generation, EVENTS)).start()
    assert generation.wait(timeout=60) is True


def test_stop_and_answer_now_wake_the_engine_and_stay_asked() -> None:
    woken: list[str] = []
    generation = Generation(on_control=lambda: woken.append("woken"))
    assert (generation.stop_requested, generation.answer_now_requested) == (False, False)
    generation.answer_now()
    assert (generation.stop_requested, generation.answer_now_requested) == (False, True)
    generation.stop()
    assert (generation.stop_requested, generation.answer_now_requested) == (True, True)
    assert woken == ["woken", "woken"]


def test_generations_have_ids_that_nobody_guesses() -> None:
    ids = {Generation().id for _ in range(100)}
    assert len(ids) == 100
    assert min(map(len, ids)) >= 16


def counted(*stamped: tuple[float, Event]) -> Usage:
    counter = UsageCounter()
    for seconds, event in stamped:
        counter.count(event, seconds)
    return counter.usage(stamped[-1][0] if stamped else 0.0)


@pytest.mark.parametrize(
    ("stamped", "usage"),
    [
        ([], Usage()),
        ([(1.0, Notice("a"))], Usage(total_seconds=1.0)),
        # A token that completes no character is the first one all the same.
        (
            [(1.0, Answer("")), (3.0, Answer("b", 2))],
            Usage(answer_tokens=3, first_token_seconds=1.0, total_seconds=3.0),
        ),
        # An opening mark begins the reasoning; what a server counts afterwards does not prolong it.
        (
            [(1.0, Reasoning("")), (2.0, Reasoning("a", 2)), (5.0, Answer("b")), (9.0, Reasoning("", 4))],
            Usage(0, 0, 7, 1, first_token_seconds=1.0, reasoning_seconds=1.0, total_seconds=9.0),
        ),
        ([(4.0, Reasoning("", 3))], Usage(0, 0, 3, 0, first_token_seconds=4.0, total_seconds=4.0)),
        # What turns out to be reasoning was reasoning from the first token on.
        (
            [(2.0, Answer("a", 2)), (3.0, Answer("b")), (4.0, Answer("")), (5.0, Reclassified()), (6.0, Answer("c"))],
            Usage(0, 0, 4, 1, first_token_seconds=2.0, reasoning_seconds=1.0, total_seconds=6.0),
        ),
    ],
)
def test_tokens_and_times_are_counted_where_they_belong(stamped: list[tuple[float, Event]], usage: Usage) -> None:
    assert counted(*stamped) == usage


PIECES = st.lists(
    st.one_of(
        st.builds(Answer, st.sampled_from(["", "a", "\n"]), st.integers(0, 3)),
        st.just(Notice("a")),
        st.just(Reclassified()),
    ),
    max_size=12,
)


@given(PIECES)
def test_events_that_are_read_later_count_the_same(pieces: list[Event]) -> None:
    generation = Generation()
    write(generation, [*pieces, Finished("stop")])
    stamped = [(each.seconds, each.event) for each in generation.take() if not isinstance(each.event, Reclassified)]
    last = stamped[-1][1]
    assert isinstance(last, Finished)
    again = counted(*stamped)
    assert (last.usage.reasoning_tokens, last.usage.answer_tokens) == (again.reasoning_tokens, again.answer_tokens)
    assert last.usage.first_token_seconds == again.first_token_seconds


def test_the_last_event_has_what_was_counted_unless_it_brings_a_usage_of_its_own() -> None:
    generation = Generation()
    generation.count_prompt(9, 4)
    generation.count_first_token()
    first = generation.usage.first_token_seconds
    generation.count_first_token()
    write(generation, [Reasoning("a", 2), Answer("b"), Failed("out_of_memory")])
    usage = generation.take()[-1].event.usage  # type: ignore[union-attr]
    assert (usage.prompt_tokens, usage.reused_tokens, usage.reasoning_tokens, usage.answer_tokens) == (9, 4, 2, 1)
    assert usage.first_token_seconds == first
    assert generation.failure is not None
    assert generation.failure.usage == usage == generation.usage
    generation.count_first_token(ago=60)
    assert generation.usage.first_token_seconds == 0, "it is known later that the first one was earlier"
    restored = Generation()
    write(restored, [Answer("b"), Finished("stop", Usage(answer_tokens=7))])
    assert restored.take()[-1].event == Finished("stop", Usage(answer_tokens=7))


def test_the_texts_so_far_follow_what_turns_out_to_be_reasoning() -> None:
    generation = Generation()
    write(generation, [Answer("\nso "), Answer("5")])
    assert (generation.reasoning, generation.answer) == ("", "\nso 5")
    write(generation, [Reclassified(), Answer("Five")])
    assert (generation.reasoning, generation.answer) == ("so 5", "Five")
