"""What the page's events do to a turn, called as plain functions over a scripted engine."""

from dataclasses import replace
from typing import Any

import pytest

from magistral_ui.chat.events import Answer, Reasoning
from magistral_ui.engines.base import GenerationRequest, Ready
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.chat import Chat
from tests.scripted_engine import INFO, Pause, Script, ScriptedEngine

PANEL: list[dict[str, Any]] = [{}]
WITHOUT_PANEL = ("replay", "delete", "restore", "keep_reasoning")


def words(request: GenerationRequest) -> Script:
    resume = request.prompt.resume
    if getattr(request.prompt.turns[-1], "text", "") == "slow":
        return [Pause(30)]
    return [Answer(f"{resume.closed} {resume.reasoning}")] if resume else [Reasoning("hm"), Answer("yes")]


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(words)


@pytest.fixture
def chat(engine: ScriptedEngine) -> Chat:
    return Chat(engine, Visitors(engine))


def say(chat: Chat, text: str, visitor: Any = "", instructions: str = "") -> Any:
    return chat.say({"text": text}, visitor, {"instructions": instructions})[0]


def settled(chat: Chat, visitor: Any) -> dict[str, Any]:
    session = chat.visitors.find(visitor)
    assert session is not None
    if session.running:
        assert session.running.generation.wait(60)
    value: dict[str, Any] = chat.commit(visitor)[0]
    return value


@pytest.mark.parametrize("closed", [True, False])
def test_edited_reasoning_is_gone_on_from(chat: Chat, closed: bool) -> None:
    visitor = say(chat, "well?")
    old = settled(chat, visitor)["turns"][-1]
    assert not old["edited"]
    chat.rethink({"message": old["id"], "text": "no", "closed": closed}, visitor, *PANEL)
    new = settled(chat, visitor)["turns"][-1]
    assert (new["answer"], new["edited"], new["branch"]["count"]) == (f"{closed} no", True, 2)


def test_each_reply_names_its_source_and_equal_sources_are_sent_once(chat: Chat, engine: ScriptedEngine) -> None:
    visitor = say(chat, "one", instructions="Be brief.")
    settled(chat, visitor)
    say(chat, "two", visitor, "Be brief.")
    settled(chat, visitor)
    say(chat, "three", visitor)
    value = settled(chat, visitor)
    assert [turn["source"] for turn in value["turns"] if turn["role"] == "assistant"] == [0, 0, 1]
    assert [source["instructions"] for source in value["sources"]] == ["Be brief.", ""]
    assert [source["here"] for source in value["sources"]] == [True, True]
    engine.set_status(Ready(replace(INFO, revision="another")))
    assert [source["here"] for source in settled(chat, visitor)["sources"]] == [False, False]


def test_a_replay_ignores_the_panel(chat: Chat, engine: ScriptedEngine) -> None:
    visitor = say(chat, "one", instructions="Be brief.")
    reply = settled(chat, visitor)["turns"][-1]
    assert reply["may_replay"]
    chat.replay({"message": reply["id"]}, visitor)
    again = settled(chat, visitor)["turns"][-1]
    assert engine.requests[0] == engine.requests[1]
    assert [notice["key"] for notice in again["notices"]] == ["replay_same"]


def test_a_deletion_says_how_much_it_took_and_is_undone(chat: Chat) -> None:
    visitor = say(chat, "one")
    settled(chat, visitor)
    say(chat, "two", visitor)
    turns = settled(chat, visitor)["turns"]
    _, value, _ = chat.delete({"message": turns[2]["id"]}, visitor)
    assert value["deleted"] == {"message": turns[2]["id"], "count": 2}
    assert [turn["id"] for turn in value["turns"]] == [turn["id"] for turn in turns[:2]]
    _, value, _ = chat.delete({"message": turns[2]["id"]}, visitor)
    assert (value["deleted"], value["alert"]["key"]) == (None, "message_gone")
    _, value, _ = chat.restore({"message": turns[2]["id"]}, visitor)
    assert [turn["id"] for turn in value["turns"]] == [turn["id"] for turn in turns]
    assert value["alert"] is None


def test_a_message_without_a_reply_is_told_and_answered(chat: Chat) -> None:
    visitor = say(chat, "one")
    said, reply = settled(chat, visitor)["turns"]
    assert settled(chat, visitor)["unanswered"] is None
    assert chat.delete({"message": reply["id"]}, visitor)[1]["unanswered"] == said["id"]
    chat.answer({"message": said["id"]}, visitor, *PANEL)
    value = settled(chat, visitor)
    assert (value["unanswered"], len(value["turns"])) == (None, 2)


@pytest.mark.parametrize(("keep", "kept"), [(False, False), (True, True), (None, None), ("no", None)])
def test_reasoning_is_left_in_or_out_of_the_context(chat: Chat, keep: Any, kept: bool | None) -> None:
    visitor = say(chat, "one")
    reply = settled(chat, visitor)["turns"][-1]
    assert reply["keep_reasoning"] is None
    _, value, _ = chat.keep_reasoning({"message": reply["id"], "keep": keep}, visitor)
    assert value["turns"][-1]["keep_reasoning"] is kept


CHANGES = ["rethink", "answer", *WITHOUT_PANEL]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("data", [{}, {"message": 99, "text": "x"}, {"message": "1"}, {"message": None}])
def test_what_is_gone_gets_a_sentence(chat: Chat, change: str, data: dict[str, Any]) -> None:
    visitor = say(chat, "one")
    before = settled(chat, visitor)["turns"]
    panel = [] if change in WITHOUT_PANEL else PANEL
    _, value, _ = getattr(chat, change)(data, visitor, *panel)
    assert value["alert"]["key"] == "message_gone"
    assert value["turns"] == before


@pytest.mark.parametrize("change", [*CHANGES, "regenerate", "resume", "answer_again", "edit_message"])
def test_a_tab_that_does_not_know_of_a_running_reply_gets_the_state(chat: Chat, change: str) -> None:
    visitor = say(chat, "one")
    settled(chat, visitor)
    say(chat, "slow", visitor)
    panel = [] if change in WITHOUT_PANEL else PANEL
    _, value, box = getattr(chat, change)({"message": 2, "text": "x"}, visitor, *panel)
    assert value["alert"]["key"] == "already_answering"
    assert value["live"]
    assert (box["submit_btn"], box["stop_btn"]) == (False, True)
    assert "value" not in box
    chat.stop(visitor)


def test_a_second_message_from_another_tab_gets_the_state_and_keeps_the_composer(chat: Chat) -> None:
    visitor = say(chat, "slow")
    _, value, box = chat.say({"text": "two"}, visitor, *PANEL)
    assert value["alert"]["key"] == "already_answering"
    assert [turn["text"] for turn in value["turns"]] == ["slow"]
    assert box["stop_btn"]
    assert "value" not in box
    chat.stop(visitor)


def test_true_is_no_message_s_id(chat: Chat) -> None:
    visitor = say(chat, "one")
    settled(chat, visitor)
    for change in (chat.delete, chat.choose_branch):
        assert change({"message": True}, visitor)[1]["alert"]["key"] == "message_gone"
    assert len(settled(chat, visitor)["turns"]) == 2
