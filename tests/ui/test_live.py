"""The view of a running reply: what it shows at each moment, and that it does not grow."""

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
    Usage,
)
from magistral_ui.engines.generation import Generation
from magistral_ui.ui.live import LiveView, watch


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
    view = LiveView(generation)
    for piece in ("Eins, ", "zwei", "", "."):
        generation.put(Reasoning(piece))
        view.advance()
        view.advance()
    generation.put(Answer("Drei", 2))
    view.advance()
    value = view.value()
    assert value["reasoning"] == {"at": 0, "text": "Eins, zwei."}
    assert value["answer"] == {"at": 0, "text": "Drei"}
    assert (value["reasoning_tokens"], value["answer_tokens"]) == (4, 2)


@pytest.mark.parametrize("size", [1, 7, 300, 5000])
def test_an_update_does_not_grow_with_the_reasoning_and_loses_nothing(size: int) -> None:
    generation = Generation()
    view, shown, whole = LiveView(generation, window=1000), "", ""
    for number in range(200):
        piece = f"{number:05d}" * size
        generation.put(Reasoning(piece))
        whole += piece
        view.advance()
        part = view.value()["reasoning"]
        assert len(part["text"]) <= 1000 + len(piece)
        assert part["at"] <= len(shown)
        shown = shown[: part["at"]] + part["text"]
        assert len(shown) == len(whole)
    assert shown == whole


def test_without_a_window_everything_is_held() -> None:
    generation = Generation()
    generation.put(Reasoning("x" * 200_000))
    view = LiveView(generation, window=None)
    view.advance()
    assert len(view.value()["reasoning"]["text"]) == 200_000


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
                assert view.answer == "b"
        return states

    assert asyncio.run(run()) == ["thinking", "ended"]


def test_watching_says_something_now_and_then_though_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magistral_ui.ui.live.HEARTBEAT", 0.01)

    async def run() -> int:
        count = 0
        async for _ in watch(Generation(), interval=0.005):
            count += 1
            if count == 3:
                return count
        return count

    assert asyncio.run(asyncio.wait_for(run(), 5)) == 3
