"""What the page's events do, called as plain functions over a scripted engine."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from magistral_ui.chat.events import Answer, Failed, Finished, Reasoning
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.client import Client, serving
from magistral_ui.engines.base import Broken, Loading, Ready
from magistral_ui.models import memory
from magistral_ui.models.cards import DEMO, MAGISTRAL_1_1, MAGISTRAL_1_2
from magistral_ui.models.shape import MAGISTRAL_SMALL_1_2
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.visitors import TabState, Visitors
from magistral_ui.ui.chat import Chat
from magistral_ui.ui.rendering import examples_value, model_value
from tests.scripted_engine import INFO, Pause, ScriptedEngine

PANEL: list[dict[str, Any]] = [{}]


def chat_over(*args: Any, limits: Limits | None = None, **options: Any) -> Chat:
    engine = ScriptedEngine(*args, **options)
    return Chat(engine, Visitors(engine, limits))


def image(folder: Path, name: str = "red.png", size: tuple[int, int] = (8, 8)) -> str:
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, "PNG")
    path = folder / name
    path.write_bytes(out.getvalue())
    return str(path)


def settled(chat: Chat, visitor: TabState) -> list[dict[str, Any]]:
    session = chat.visitors.find(visitor)
    assert session is not None
    if session.running:
        assert session.running.generation.wait(60)
    turns: list[dict[str, Any]] = chat.commit(visitor)[0]["turns"]
    return turns


def test_a_turn_from_sending_to_the_finished_reply() -> None:
    chat = chat_over([Reasoning("hm"), Answer("yes")])
    visitor, value, box = chat.say({"text": "well?", "files": []}, "", *PANEL)
    assert value["alert"] is None
    assert box["value"] == {"text": "", "files": []}

    said, reply = settled(chat, visitor)
    assert said["text"] == "well?"
    assert (reply["reasoning"], reply["answer"], reply["ended"]) == (2, "yes", "stop")
    assert value["live"] in (reply["generation"], None)  # the script may have ended before anyone looked


@pytest.mark.parametrize("login", ["", "the hash of a name"])
def test_the_composer_stops_while_something_runs_and_sends_afterwards(login: str) -> None:
    with serving(Client(login=login)):
        chat = chat_over([Pause(30)])
        visitor, value, box = chat.say({"text": "well?"}, "", *PANEL)
        assert ("visitor" in visitor) == (not login)
        assert (box["submit_btn"], box["stop_btn"]) == (False, True)
        assert value["live"]
        chat.stop(visitor)
        settled(chat, visitor)
        value, box = chat.commit(visitor)
        assert (box["submit_btn"], box["stop_btn"]) == (True, False)
        assert value["live"] is None
        assert chat.commit({})[1] == {}


def test_coming_back_finds_the_turns_and_what_runs() -> None:
    chat = chat_over([Reasoning("hm"), Pause(30)])
    visitor, _, _ = chat.say({"text": "well?"}, "", *PANEL)
    same, value, _ = chat.attach(visitor)
    assert same == visitor
    assert [turn["text"] for turn in value["turns"]] == ["well?"]
    assert value["live"]
    stranger, nothing, _ = chat.attach("someone else's guess")
    assert stranger not in (visitor, "someone else's guess")
    assert nothing["turns"] == []
    assert nothing["live"] is None
    chat.stop(visitor)


@pytest.mark.parametrize("message", [None, {}, {"text": "", "files": []}, {"text": "  \n"}])
def test_an_empty_message_sends_nothing_and_says_nothing(message: Any) -> None:
    chat = chat_over([Answer("yes")])
    _, value, _ = chat.say(message, "", *PANEL)
    assert value["turns"] == []
    assert "alert" not in value


def test_a_refusal_tells_why_keeps_the_composer_and_the_chat_continues(tmp_path: Path) -> None:
    chat = chat_over([Answer("yes")])
    junk = tmp_path / "junk.png"
    junk.write_bytes(b"no picture at all")
    visitor, value, box = chat.say({"text": "look", "files": [str(junk)]}, "", *PANEL)
    assert value["alert"] == {"key": "picture_not_an_image", "values": {"name": "junk.png"}}
    assert value["turns"] == []
    assert "value" not in box
    visitor, value, _ = chat.say({"text": "look", "files": [image(tmp_path)]}, visitor, *PANEL)
    assert value["alert"] is None
    said, _ = settled(chat, visitor)
    assert said["pictures"][0]["src"].startswith("data:image/jpeg;base64,")


def test_more_images_than_allowed_are_refused_before_they_are_read(tmp_path: Path) -> None:
    chat = chat_over([Answer("yes")], limits=Limits(pictures=2))
    _, value, _ = chat.say({"text": "look", "files": [str(tmp_path / "none.png")] * 3}, "", *PANEL)
    assert value["alert"] == {"key": "too_many_pictures", "values": {"count": 3, "limit": 2}}


def test_a_model_without_eyes_says_so(tmp_path: Path) -> None:
    chat = chat_over([Answer("yes")], card=MAGISTRAL_1_1)
    _, value, _ = chat.say({"text": "look", "files": [image(tmp_path)]}, "", *PANEL)
    assert value["alert"]["key"] == "picture_not_supported"


def test_sending_before_the_model_is_ready_is_refused_with_a_sentence() -> None:
    chat = chat_over([Answer("yes")], status=Loading())
    visitor, value, _ = chat.say({"text": "well?"}, "", *PANEL)
    assert value["alert"]["key"] == "not_ready"
    assert chat.attach(visitor)[2]["interactive"] is False


def test_a_failed_reply_is_a_turn_with_its_reason() -> None:
    chat = chat_over([Reasoning("hm"), Failed("out_of_memory", {"device": "cpu"})])
    visitor, _, _ = chat.say({"text": "well?"}, "", *PANEL)
    _, reply = settled(chat, visitor)
    assert reply["failure"] == {"key": "out_of_memory", "values": {"device": "cpu"}}
    assert reply["reasoning"] == len("hm")


def test_examples_send_what_they_say() -> None:
    chat = chat_over([Answer("yes")])
    examples = chat.attach("")[1]["welcome"]["examples"]
    index = next(i for i, each in enumerate(examples) if each["picture"])
    visitor, _, _ = chat.example({"index": index}, "", *PANEL)
    said, _ = settled(chat, visitor)
    assert said["text"] == examples[index]["text"]
    assert len(said["pictures"]) == 1


@pytest.mark.parametrize("data", [{}, {"index": -1}, {"index": 99}, {"index": "0"}, {"index": None}])
def test_an_example_that_is_none_sends_nothing(data: dict[str, Any]) -> None:
    assert chat_over([Answer("yes")]).example(data, "", *PANEL)[1]["turns"] == []


def test_a_model_without_eyes_is_given_no_image_example() -> None:
    assert not any(each["picture"] for each in chat_over([], card=MAGISTRAL_1_1).attach("")[1]["welcome"]["examples"])


def test_the_demo_model_s_examples_are_shown_for_it_alone() -> None:
    demo, others = ({each["text"] for each in examples_value(card)} for card in (DEMO, MAGISTRAL_1_2))
    assert demo & others == {"What is in this picture?"}
    assert len(others) > 2


def test_regenerating_replaces_what_is_shown() -> None:
    chat = chat_over(lambda request: [Answer(str(request.params.seed))])
    visitor, _, _ = chat.say({"text": "well?"}, "", *PANEL)
    first = settled(chat, visitor)[-1]
    chat.regenerate({"message": first["id"]}, visitor, *PANEL)
    turns = settled(chat, visitor)
    assert len(turns) == 2
    assert turns[-1]["id"] != first["id"]


@pytest.mark.parametrize("data", [{}, {"message": 1}, {"message": 99}, {"message": "2"}])
def test_regenerating_nothing_is_refused(data: dict[str, Any]) -> None:
    chat = chat_over([Answer("yes")])
    visitor, _, _ = chat.say({"text": "well?"}, "", *PANEL)
    settled(chat, visitor)
    assert chat.regenerate(data, visitor, *PANEL)[1]["alert"]["key"] == "message_gone"


def test_stop_and_answer_now_and_new_chat_of_a_stranger_reach_nobody() -> None:
    chat = chat_over([Pause(30)])
    visitor, _, _ = chat.say({"text": "well?"}, "", *PANEL)
    session = chat.visitors.find(visitor)
    assert session is not None
    assert session.running is not None
    for stranger in ("", None, "x" * 43):
        chat.stop(stranger)
        chat.answer_now(stranger)
        chat.new_chat(stranger)
    assert not session.running.generation.stop_requested
    assert not session.running.generation.answer_now_requested
    fresh, value, box = chat.new_chat(visitor)
    assert value["turns"] == []
    assert box["submit_btn"]
    assert session.running is not None, "what runs goes on"
    assert chat.attach(visitor)[1]["live"] == session.running.generation.id
    assert chat.attach(fresh)[1]["live"] is None
    chat.stop(visitor)


@pytest.mark.parametrize("params", [{"seed": "twelve"}, {"seed": -1}, {"max_tokens": 0}, {"top_p": 7}])
def test_a_panel_out_of_bounds_is_refused_with_a_sentence(params: dict[str, Any]) -> None:
    chat = chat_over([Answer("yes")])
    _, shown, _ = chat.say({"text": "well?"}, "", {"params": params})
    assert shown["alert"]["key"].startswith("parameter_")
    assert shown["turns"] == []


def test_the_model_panel_tells_each_state() -> None:
    engine = ScriptedEngine([])
    assert model_value(engine)["info"]["name"] == "Scripted"
    assert model_value(engine)["info"]["plan"] is None
    card = memory.DeviceBudget("cuda", 24 * memory.GIB, 24 * memory.GIB)
    spread = memory.plan(MAGISTRAL_SMALL_1_2, "int8", replace(card, others=(card,)))
    engine.set_status(Ready(replace(INFO, plan=spread)))
    shown = model_value(engine)["info"]["plan"]
    assert [share["layers"] for share in shown["shares"]] == [20, 20]
    assert (shown["weights"], shown["usual"]) == (spread.weights, memory.TYPICAL_CONTEXT)
    json.dumps(shown)
    engine.set_status(Loading("reading", 1, 2, 3.0))
    assert model_value(engine)["stage"] == "reading"
    engine.set_status(Broken("model_not_found", {"model": "x"}))
    assert (model_value(engine)["key"], model_value(engine)["values"]) == ("model_not_found", {"model": "x"})


def test_a_branch_tells_which_it_is_and_who_is_beside_it() -> None:
    chat = chat_over([Reasoning("hm"), Answer("yes")])
    visitor, _, _ = chat.say({"text": "well?"}, "", *PANEL)
    said, first = settled(chat, visitor)
    assert first["branch"] is None
    chat.answer_again({"message": first["id"]}, visitor, *PANEL)
    second = settled(chat, visitor)[-1]
    assert second["branch"] == {"number": 2, "count": 2, "previous": first["id"], "next": None}
    chat.edit_message({"message": said["id"], "text": "now?"}, visitor, *PANEL)
    edited, _ = settled(chat, visitor)
    assert (edited["text"], edited["branch"]["previous"]) == ("now?", said["id"])
    _, value, _ = chat.choose_branch({"message": said["id"]}, visitor)
    assert [turn["id"] for turn in value["turns"]] == [said["id"], second["id"]]


def test_a_reply_that_continues_is_the_same_message() -> None:
    scripts = iter([[Reasoning("a"), Finished("length")], [Pause(0.3), Reasoning("b"), Answer("c")]])
    chat = chat_over(lambda request: next(scripts))
    visitor, _, _ = chat.say({"text": "well?"}, "", *PANEL)
    cut = settled(chat, visitor)[-1]
    assert cut["may_continue"]
    _, value, _ = chat.resume({"message": cut["id"]}, visitor, *PANEL)
    assert value["continues"] == cut["id"]

    whole = settled(chat, visitor)[-1]
    assert (whole["id"], whole["reasoning"], whole["answer"], whole["may_continue"]) == (cut["id"], 2, "c", False)


@pytest.mark.parametrize("change", ["resume", "answer_again", "edit_message", "choose_branch"])
@pytest.mark.parametrize("data", [{}, {"message": 99, "text": "x"}, {"message": "1"}])
def test_changing_nothing_is_refused(change: str, data: dict[str, Any]) -> None:
    chat = chat_over([Answer("yes")])
    visitor, _, _ = chat.say({"text": "well?"}, "", *PANEL)
    settled(chat, visitor)
    panel = [] if change == "choose_branch" else PANEL
    assert getattr(chat, change)(data, visitor, *panel)[1]["alert"]["key"] in ("message_gone", "empty_message")


def talked(chat: Chat, turns: int) -> Any:
    """The place of a visitor who has said something so many times."""
    place, session = chat.visitors.open()
    for number in range(turns):
        session.say(f"question {number}", (), SamplingParams(seed=0)).generation.wait(60)
    return place


def test_of_a_long_conversation_the_end_comes_at_once_and_the_rest_in_outline() -> None:
    chat = chat_over([Reasoning("thought " * 5000), Answer("answer")])
    place = talked(chat, 60)
    value = chat.commit(place)[0]
    turns = value["turns"]
    assert len(turns) == 120
    assert all(set(turn) <= {"id", "role", "outline", "branch", "keep_reasoning"} for turn in turns[:100])
    assert [turn["outline"] for turn in turns[:2]] == [len("question 0"), len("answer")]
    assert [turn["text"] for turn in turns[100::2]] == [f"question {number}" for number in range(50, 60)]
    assert len(json.dumps(value)) < 25_000  # of more than two million characters that were written


def test_the_rest_is_there_for_the_asking() -> None:
    chat = chat_over(lambda request: [Reasoning("é🎉 thought"), Answer(request.prompt.turns[-1].text)])
    place = talked(chat, 15)
    turns = chat.commit(place)[0]["turns"]
    asked = [turn["id"] for turn in turns if "outline" in turn]
    found = chat.more({"messages": asked, "reasoning": asked[1], "number": 7}, place)
    assert found is not None
    assert [turn["id"] for turn in found["turns"]] == asked
    assert found["turns"][1]["answer"] == "question 0"
    assert found["turns"][1]["reasoning"] == len("é🎉 thought") + 1  # JavaScript counts two for 🎉
    assert found["reasoning"] == {"message": asked[1], "text": "é🎉 thought"}
    assert found["number"] == 7


@pytest.mark.parametrize(
    "data", [{}, {"messages": "all"}, {"messages": ["1", None, -5, 10**30, True]}, {"reasoning": "1"}, {"reasoning": 1}]
)
def test_asking_for_nonsense_gets_nothing(data: dict[str, Any]) -> None:
    chat = chat_over([Reasoning("hm"), Answer("yes")])
    place = talked(chat, 1)
    found = chat.more(data, place)
    assert found is not None
    assert found["reasoning"]["text"] == ""
    assert all(turn["id"] == 1 for turn in found["turns"])  # JSON's true is Python's 1


def test_more_is_told_to_its_visitor_only() -> None:
    chat = chat_over([Reasoning("a secret"), Answer("yes")])
    place, other = talked(chat, 1), talked(chat, 0)
    reply = chat.commit(place)[0]["turns"][1]["id"]
    for stranger in (other, {**other, "conversation": place["conversation"]}, {}, None, "x"):
        found = chat.more({"messages": [1, 2], "reasoning": reply}, stranger)
        assert "secret" not in json.dumps(found)
        assert not found or not found["turns"]
