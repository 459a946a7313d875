"""The view of a running reply: what is new at each moment, wherever it is taken up, and that it does not grow."""

import asyncio

import pytest

from magistral_ui.chat.events import (
    LAST,
    Answer,
    Event,
    Failed,
    Finished,
    Notice,
    Prefilling,
    Queued,
    Reasoning,
    Reclassified,
    Usage,
)
from magistral_ui.chat.reply import Reply
from magistral_ui.engines.generation import Generation
from magistral_ui.sessions.live_view import LiveView, watch


def seen(*events: Event) -> LiveView:
    generation = Generation()
    for event in events:
        generation.put(event)
    view = LiveView(generation)
    view.advance()
    return view


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([], "starting"),
        ([Queued(3)], "queued"),
        ([Queued(1), Prefilling(5, 10)], "reading"),
        ([Prefilling(5, 10), Reasoning("a")], "thinking"),
        ([Reasoning("a"), Notice("budget_spent")], "thinking"),
        ([Reasoning("a"), Answer("\n")], "thinking"),
        ([Reasoning("a"), Answer("\n"), Answer("b")], "answering"),
        ([Answer("b")], "answering"),
        ([Answer("b"), Finished("stop")], "ended"),
        ([Failed("out_of_memory")], "ended"),
    ],
)
def test_the_state_follows_the_events(events: list[Event], state: str) -> None:
    assert seen(*events).value()["state"] == state


def test_texts_and_counts_add_up_whatever_the_pieces() -> None:
    generation = Generation()
    view, reasoning = LiveView(generation), ""
    for piece in ("Eins, ", "zwei", "", "."):
        generation.put(Reasoning(piece))
        assert view.advance()
        reasoning += view.value()["reasoning"]
        assert not view.advance()
        assert view.value()["reasoning"] == ""
    generation.put(Answer("Drei", 2))
    view.advance()
    value = view.value()
    assert (reasoning, value["reasoning"], value["answer"]) == ("Eins, zwei.", "", "Drei")
    assert (value["reasoning_tokens"], value["answer_tokens"]) == (4, 2)


@pytest.mark.parametrize("piece", ["a", "🎉👩‍👩‍👧", "x" * 5000])
def test_taken_up_anywhere_the_updates_are_what_is_missing_and_no_more(piece: str) -> None:
    events = [*[Reasoning(f"{number}{piece}") for number in range(20)], *[Answer(piece)] * 5]
    whole = seen(*events).value()
    for at in range(1, len(events)):
        generation = Generation()
        for event in events:
            generation.put(event)
        view = LiveView(generation)
        view.skip(at)
        view.advance()
        value = view.value()
        assert (value["start"], value["seen"]) == (at, len(events))
        assert value["reasoning"] == "".join(each.text for each in events[at:] if isinstance(each, Reasoning))
        assert value["answer"] == "".join(each.text for each in events[at:] if isinstance(each, Answer))
        counts = ("state", "reasoning_tokens", "answer_tokens")
        assert [value[each] for each in counts] == [whole[each] for each in counts]


@pytest.mark.parametrize("seen", [0, 1, 2])
def test_reasoning_that_was_taken_for_the_answer_comes_once_more_as_what_it_is(seen: int) -> None:
    generation = Generation()
    for piece in ("so ", "5"):
        generation.put(Answer(piece))
    view = LiveView(generation, Reply("Once. "))
    view.skip(seen)
    view.advance()
    assert view.value()["state"] == "answering"
    generation.put(Reclassified())
    generation.put(Answer("Five", 2))
    view.advance()
    value = view.value()
    assert (value["start"], value["seen"]) == (0, 4)
    assert (value["reasoning"], value["answer"]) == ("Once. so 5", "Five")
    assert (value["reasoning_tokens"], value["answer_tokens"], value["state"]) == (2, 2, "answering")
    generation.put(Answer("."))
    view.advance()
    assert (view.value()["start"], view.value()["reasoning"], view.value()["answer"]) == (4, "", ".")
    late = LiveView(generation)
    late.skip(4)
    late.advance()
    assert (late.value()["start"], late.value()["answer"], late.value()["reasoning_tokens"]) == (4, ".", 2)


def test_the_beginning_that_a_reply_continues_from_comes_once() -> None:
    before = Reply("Once", "upon", usage=Usage(reasoning_tokens=1, answer_tokens=1))
    generation = Generation()
    view = LiveView(generation, before)
    view.advance()
    assert (view.value()["start"], view.value()["seen"], view.value()["answer"]) == (0, 0, "upon")
    generation.put(Answer(" a"))
    view.advance()
    assert (view.value()["start"], view.value()["answer"], view.value()["answer_tokens"]) == (0, "upon a", 2)
    generation.put(Answer(" time"))
    view.advance()
    assert (view.value()["start"], view.value()["reasoning"], view.value()["answer"]) == (1, "", " time")


def test_an_update_is_as_small_behind_much_text_as_at_the_beginning() -> None:
    def update(written: int) -> int:
        generation = Generation()
        view = LiveView(generation)
        generation.put(Reasoning("x" * written))
        view.advance()
        generation.put(Reasoning("one more"))
        view.advance()
        return len(str(view.value()))

    assert update(400_000) == update(1_000)


def test_watching_ends_with_a_view_of_everything() -> None:
    async def run() -> list[str]:
        generation = Generation()
        states = []
        generation.put(Reasoning("a"))
        async for view in watch(generation, interval=0.001):
            states.append(view.state)
            if view.state == "thinking":
                generation.put(Answer("b"))
                generation.put(Finished("stop", Usage(reasoning_tokens=1, answer_tokens=1)))
            elif view.state == "ended":
                assert isinstance(view.draft.last, LAST)
                assert (view.reasoning, view.answer) == ("", "b")
        return states

    assert asyncio.run(run()) == ["thinking", "ended"]


def test_watching_says_something_now_and_then_though_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magistral_ui.sessions.live_view.KEEPALIVE_INTERVAL", 0.01)

    async def run() -> int:
        count = 0
        async for _ in watch(Generation(), interval=0.005):
            count += 1
            if count == 3:
                return count
        return count

    assert asyncio.run(asyncio.wait_for(run(), 5)) == 3
