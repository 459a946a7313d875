"""What the page's events do, called as plain functions over a scripted engine."""

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from magistral_ui.chat.events import Answer, Failed, Finished, Reasoning
from magistral_ui.chat.sampling import PARAMETERS
from magistral_ui.engines.base import Broken, Loading
from magistral_ui.engines.scripted import Pause, ScriptedEngine
from magistral_ui.models.cards import DEMO, MAGISTRAL_1_1
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.chat import Chat
from magistral_ui.ui.model_panel import model_value
from magistral_ui.ui.sampling_panel import params_from, values_of

PANEL = [*values_of(DEMO.sampling), ""]


def chat_over(*args: Any, limits: Limits | None = None, **options: Any) -> Chat:
    engine = ScriptedEngine(*args, **options)
    return Chat(engine, Visitors(engine, limits))


def picture(folder: Path, name: str = "red.png", size: tuple[int, int] = (8, 8)) -> str:
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, "PNG")
    path = folder / name
    path.write_bytes(out.getvalue())
    return str(path)


def settled(chat: Chat, visitor: str) -> list[dict[str, Any]]:
    session = chat.visitors.find(visitor)
    assert session is not None
    if session.running:
        assert session.running.generation.wait(5)
    turns: list[dict[str, Any]] = chat.commit(visitor)[0]["turns"]
    return turns


def test_a_turn_from_sending_to_the_finished_reply() -> None:
    chat = chat_over([Reasoning("hm"), Answer("yes")])
    visitor, value, box = chat.say({"text": "well?", "files": []}, "", *PANEL)
    assert value["alert"] is None
    assert box["value"] is None

    async def watch() -> list[dict[str, Any]]:
        return [each async for each in chat.view(visitor)]

    views = asyncio.run(watch())
    said, reply = settled(chat, visitor)
    assert said["text"] == "well?"
    assert (reply["reasoning"], reply["answer"], reply["ended"]) == ("hm", "yes", "stop")
    if views:  # the script may have ended before anyone looked
        assert views[-1]["generation"] == reply["generation"]
        assert views[-1]["answer"]["text"] == "yes"


def test_the_composer_stops_while_something_runs_and_sends_afterwards() -> None:
    chat = chat_over([Pause(30)])
    visitor, value, box = chat.say({"text": "well?"}, "", *PANEL)
    assert (box["submit_btn"], box["stop_btn"]) == (False, True)
    assert value["live"]
    chat.stop(visitor)
    settled(chat, visitor)
    value, box = chat.commit(visitor)
    assert (box["submit_btn"], box["stop_btn"]) == (True, False)
    assert value["live"] is None


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


def test_a_refusal_tells_why_keeps_the_composer_and_the_chat_goes_on(tmp_path: Path) -> None:
    chat = chat_over([Answer("yes")])
    junk = tmp_path / "junk.png"
    junk.write_bytes(b"no picture at all")
    visitor, value, box = chat.say({"text": "look", "files": [str(junk)]}, "", *PANEL)
    assert value["alert"] == {"key": "picture_not_an_image", "values": {"name": "junk.png"}}
    assert value["turns"] == []
    assert "value" not in box
    visitor, value, _ = chat.say({"text": "look", "files": [picture(tmp_path)]}, visitor, *PANEL)
    assert value["alert"] is None
    said, _ = settled(chat, visitor)
    assert said["pictures"][0]["src"].startswith("data:image/jpeg;base64,")


def test_more_pictures_than_allowed_are_refused_before_they_are_read(tmp_path: Path) -> None:
    chat = chat_over([Answer("yes")], limits=Limits(pictures=2))
    _, value, _ = chat.say({"text": "look", "files": [str(tmp_path / "none.png")] * 3}, "", *PANEL)
    assert value["alert"] == {"key": "too_many_pictures", "values": {"count": 3, "limit": 2}}


def test_a_model_without_eyes_says_so(tmp_path: Path) -> None:
    chat = chat_over([Answer("yes")], card=MAGISTRAL_1_1)
    _, value, _ = chat.say({"text": "look", "files": [picture(tmp_path)]}, "", *PANEL)
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
    assert reply["reasoning"] == "hm"


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


def test_a_model_without_eyes_is_given_no_picture_example() -> None:
    assert not any(each["picture"] for each in chat_over([], card=MAGISTRAL_1_1).attach("")[1]["welcome"]["examples"])


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
    assert not session.running.generation.stop_asked
    assert not session.running.generation.answer_now_asked
    chat.new_chat(visitor)
    assert session.running is None


def test_the_panel_gives_every_parameter_in_its_own_type() -> None:
    given = {"temperature": 0, "top_k": 5, "max_tokens": 5.0, "seed": "12", "reasoning_budget": ""}
    panel = [given.get(name, value) for name, value in zip(PARAMETERS, PANEL, strict=False)]
    params, choices = params_from(DEMO, [*panel, "Be brief."])
    assert (params.temperature, params.top_k, params.max_tokens, params.seed) == (0.0, 5, 5, 12)
    assert params.reasoning_budget is None
    assert choices.instructions == "Be brief."


@pytest.mark.parametrize(("name", "value"), [("seed", "twelve"), ("seed", "-1"), ("max_tokens", 0), ("top_p", 7)])
def test_a_panel_out_of_bounds_is_refused_with_a_sentence(name: str, value: Any) -> None:
    chat = chat_over([Answer("yes")])
    panel = [value if each == name else old for each, old in zip(PARAMETERS, PANEL, strict=False)]
    _, shown, _ = chat.say({"text": "well?"}, "", *panel, "")
    assert shown["alert"]["key"].startswith("parameter_")


def test_the_model_panel_tells_each_state() -> None:
    engine = ScriptedEngine([])
    assert model_value(engine)["info"]["name"] == "Scripted"
    engine.set_status(Loading("reading", 1, 2, 3.0))
    assert model_value(engine)["stage"] == "reading"
    engine.set_status(Broken("model_not_found", {"model": "x"}))
    assert (model_value(engine)["key"], model_value(engine)["values"]) == ("model_not_found", {"model": "x"})


def test_a_branch_tells_which_it_is_and_who_is_beside_it() -> None:
    chat = chat_over([Reasoning("hm"), Answer("yes")])
    visitor, _, _ = chat.say({"text": "well?"}, "", *PANEL)
    said, first = settled(chat, visitor)
    assert first["branch"] == {"number": 1, "count": 1, "previous": None, "next": None}
    chat.answer_again({"message": first["id"]}, visitor, *PANEL)
    second = settled(chat, visitor)[-1]
    assert second["branch"] == {"number": 2, "count": 2, "previous": first["id"], "next": None}
    chat.edit_message({"message": said["id"], "text": "now?"}, visitor, *PANEL)
    edited, _ = settled(chat, visitor)
    assert (edited["text"], edited["branch"]["previous"]) == ("now?", said["id"])
    _, value, _ = chat.choose_branch({"message": said["id"]}, visitor)
    assert [turn["id"] for turn in value["turns"]] == [said["id"], second["id"]]


def test_a_reply_that_goes_on_is_watched_with_its_beginning() -> None:
    scripts = iter([[Reasoning("a"), Finished("length")], [Pause(0.3), Reasoning("b"), Answer("c")]])
    chat = chat_over(lambda request: next(scripts))
    visitor, _, _ = chat.say({"text": "well?"}, "", *PANEL)
    cut = settled(chat, visitor)[-1]
    assert cut["may_continue"]
    _, value, _ = chat.resume({"message": cut["id"]}, visitor, *PANEL)
    assert value["continues"] == cut["id"]

    async def watch() -> list[dict[str, Any]]:
        return [each async for each in chat.view(visitor)]

    views = asyncio.run(watch())
    assert views[-1]["reasoning"] == {"at": 0, "text": "ab"}
    assert (views[-1]["answer"]["text"], views[-1]["reasoning_tokens"]) == ("c", 2)
    assert not settled(chat, visitor)[-1]["may_continue"]


@pytest.mark.parametrize("change", ["resume", "answer_again", "edit_message", "choose_branch"])
@pytest.mark.parametrize("data", [{}, {"message": 99, "text": "x"}, {"message": "1"}])
def test_changing_nothing_is_refused(change: str, data: dict[str, Any]) -> None:
    chat = chat_over([Answer("yes")])
    visitor, _, _ = chat.say({"text": "well?"}, "", *PANEL)
    settled(chat, visitor)
    panel = [] if change == "choose_branch" else PANEL
    assert getattr(chat, change)(data, visitor, *panel)[1]["alert"]["key"] in ("message_gone", "empty_message")
