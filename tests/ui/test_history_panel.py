"""What the list of conversations does, called as plain functions over a scripted engine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from magistral_ui.chat.events import Answer, Reasoning
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.sessions.history.database import History
from magistral_ui.sessions.visitors import TabState, Visitors
from magistral_ui.ui.chat import Chat
from magistral_ui.ui.history_panel import HistoryPanel
from tests.scripted_engine import Pause, ScriptedEngine


@pytest.fixture
def panel(tmp_path: Path) -> Iterator[HistoryPanel]:
    def script(request: Any) -> Any:
        slow = request.prompt.turns[-1].text == "slow"
        return [Reasoning("hm"), Answer("yes"), *([Pause(60)] if slow else [])]

    engine = ScriptedEngine(script)
    visitors = Visitors(engine, history=History(tmp_path))
    yield HistoryPanel(Chat(engine, visitors))
    visitors.close()
    engine.close()


def said(panel: HistoryPanel, *texts: str, place: TabState | None = None) -> list[TabState]:
    """Places of new conversations with these messages."""
    places: list[TabState] = []
    for text in texts:
        place, session = panel.visitors.begin(place or {})
        running = session.say(text, (), SamplingParams())
        assert text == "slow" or running.generation.wait(60)
        session.save()
        places.append(place)
    return places


def titles(value: dict[str, Any]) -> list[str]:
    return [entry["title"] for entry in value["entries"]]


def test_the_list_tells_titles_and_what_is_being_written(panel: HistoryPanel) -> None:
    one, slow = said(panel, "one", "slow")
    value = panel.listing({}, one)
    assert titles(value) == ["slow", "one"]
    assert value["writing"] == [slow["conversation"]]
    assert (value["trouble"], value["durable"], value["query"]) == (None, True, "")


@pytest.mark.parametrize("stranger", [None, "", {}, {"visitor": "guess"}, {"visitor": "guess", "conversation": "x"}])
def test_a_stranger_sees_and_does_nothing(panel: HistoryPanel, stranger: Any) -> None:
    (mine,) = said(panel, "one")
    id = mine["conversation"]
    assert panel.listing({}, stranger)["entries"] == []
    assert panel.open({"id": id}, stranger)[1]["turns"] == []
    panel.rename({"id": id, "title": "stolen"}, stranger)
    panel.pin({"id": id, "pinned": True}, stranger)
    assert panel.remove({"id": id}, stranger)[3]["removed"] is None
    panel.forget({}, stranger)
    (entry,) = panel.listing({}, mine)["entries"]
    assert (entry["title"], entry["pinned"]) == ("one", False)


@pytest.mark.parametrize(
    "data", [{}, {"id": None}, {"id": 7}, {"id": ["x"]}, {"id": "x", "query": 7, "title": 9, "pinned": 1}]
)
def test_events_about_nothing_do_nothing(panel: HistoryPanel, data: Any) -> None:
    (mine,) = said(panel, "one")
    place, value, _, _ = panel.open(data, mine)
    assert place == mine
    assert value["alert"]["key"] == "conversation_gone"
    for act in (panel.rename, panel.pin, panel.remove, panel.restore):
        act(data, mine)
    assert titles(panel.listing({}, mine)) == ["one"]


def test_opening_turns_the_tab(panel: HistoryPanel) -> None:
    one, two = said(panel, "one", "two")
    place, value, box, _ = panel.open({"id": one["conversation"]}, {**two, "visitor": one["visitor"]})
    assert place == one
    assert [turn.get("text") for turn in value["turns"]] == ["one", None]
    assert value["conversation"] == one["conversation"]
    assert box["submit_btn"]


def test_deleting_the_one_that_is_shown_begins_an_empty_one_and_undo_brings_it_back(panel: HistoryPanel) -> None:
    (first,) = said(panel, "one")
    (second,) = said(panel, "two", place=first)
    place, value, _, shelf = panel.remove({"id": second["conversation"]}, second)
    assert place["visitor"] == second["visitor"]
    assert place["conversation"] not in (first["conversation"], second["conversation"])
    assert (value["turns"], shelf["removed"], titles(shelf)) == ([], second["conversation"], ["one"])
    back, value, _, shelf = panel.restore({"id": second["conversation"], "shown": True}, place)
    assert back == second
    assert titles(shelf) == ["two", "one"]
    assert len(value["turns"]) == 2
    stay, value, _, _ = panel.remove({"id": first["conversation"]}, second)
    assert stay == second
    assert len(value["turns"]) == 2


def test_forgetting_gives_another_visitor_an_empty_page(panel: HistoryPanel) -> None:
    (mine,) = said(panel, "slow")
    session = panel.visitors.find(mine)
    assert session is not None
    running = session.running
    place, value, _, shelf = panel.forget({}, mine)
    assert place["visitor"] != mine["visitor"]
    assert (value["turns"], shelf["entries"], shelf["forgotten"]) == ([], [], True)
    assert running is None or running.generation.wait(60)
    assert panel.listing({}, mine)["entries"] == []


def test_trouble_is_told_with_its_sentence(panel: HistoryPanel, tmp_path: Path) -> None:
    other = Visitors(ScriptedEngine([]), history=History(tmp_path))
    value = HistoryPanel(Chat(ScriptedEngine([]), other)).listing({}, {})
    assert value["trouble"] == {"key": "history_in_use", "values": {"folder": str(tmp_path)}}
    assert value["durable"] is False
    other.close()


def test_a_ticket_keeps_no_more_than_it_needs(panel: HistoryPanel) -> None:
    (mine,) = said(panel, "one")
    ballast = {**mine, "more": "x" * 100_000}
    shelf = panel.save({"id": "y" * 100_000, "format": "json"}, ballast)
    for value in (shelf, panel.bring({"size": 5}, ballast)):
        purpose = panel.visitors.tickets.redeem(value["ticket"]["token"])
        assert purpose.place == mine
        assert len(repr(purpose)) < 1_000
    assert "ticket" not in panel.save({"id": mine["conversation"], "format": ["json"]}, mine)
