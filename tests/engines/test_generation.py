"""A reply on its way: whoever follows it, from wherever, sees the same, and it ends exactly once."""

import threading

import pytest

from magistral_ui.chat.events import Answer, Event, Failed, Finished, Notice, Reasoning, Reclassified
from magistral_ui.engines.generation import Generation

EVENTS: list[Event] = [
    *(Reasoning(str(n)) for n in range(150)),
    *(Answer(str(n)) for n in range(150)),
    Finished("stop"),
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
    assert list(generation.follow()) == [*wanted, Finished("stop")]
    assert list(generation.follow(len(before))) == [Reclassified(), Answer("5"), Finished("stop")]
    assert [each.seconds for each in generation.take()[: len(before)]] == [each.seconds for each in before]
    assert before[0].event == Answer("\n"), "what somebody has taken stays as it was"


def test_followers_from_any_start_in_any_thread_see_the_same() -> None:
    generation = Generation()
    seen: dict[int, list[Event]] = {}

    def follow(start: int) -> None:
        seen[start] = list(generation.follow(start))

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
    assert list(generation.follow()) == EVENTS
    assert list(generation.follow(len(EVENTS))) == []
    assert list(generation.follow(len(EVENTS) + 5)) == []


def test_a_follower_that_leaves_changes_nothing() -> None:
    generation = Generation()
    write(generation, EVENTS[:3])
    follower = generation.follow()
    assert next(follower) == EVENTS[0]
    follower.close()  # type: ignore[attr-defined]  # follow is a generator
    write(generation, EVENTS[3:])
    assert list(generation.follow(1)) == EVENTS[1:]


@pytest.mark.parametrize("last", [Finished("stop"), Failed("out_of_memory")])
def test_nothing_follows_the_last_event(last: Event) -> None:
    generation = Generation()
    assert not generation.ended
    generation.put(last)
    assert generation.ended
    for event in (Answer("more"), Finished("stop"), Failed("again")):
        with pytest.raises(RuntimeError, match="has ended"):
            generation.put(event)
    assert list(generation.follow()) == [last]


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
    assert (generation.stop_asked, generation.answer_now_asked) == (False, False)
    generation.answer_now()
    assert (generation.stop_asked, generation.answer_now_asked) == (False, True)
    generation.stop()
    assert (generation.stop_asked, generation.answer_now_asked) == (True, True)
    assert woken == ["woken", "woken"]


def test_generations_have_ids_that_nobody_guesses() -> None:
    ids = {Generation().id for _ in range(100)}
    assert len(ids) == 100
    assert min(map(len, ids)) >= 16
