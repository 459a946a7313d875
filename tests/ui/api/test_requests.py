"""What programs may ask, read without a server: every refusal has its sentence, and nothing else gets through."""

import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gradio.utils import get_upload_folder
from PIL import Image
from pydantic import BaseModel, ValidationError

from magistral_ui.chat.conversation import AssistantMessage, UserMessage
from magistral_ui.errors import BadInput
from magistral_ui.i18n.texts import sentence
from magistral_ui.models.cards import DEMO
from magistral_ui.sessions.limits import Limits
from magistral_ui.ui.api.models import ChatRequest, ToolRequest, read_request
from magistral_ui.ui.api.requests import Question, read_chat, read_tool
from tests.chat import heic
from tests.scripted_engine import ScriptedEngine

ENGINE = ScriptedEngine([])
LIMITS = Limits(text_length=1_000, pictures=2, messages=50, conversation_length=3_000)
SAID = {"role": "user", "text": "one"}
ANSWERED = {"role": "assistant", "answer": "two", "reasoning": "hm"}


def read(message: object = "hi", **more: object) -> Question:
    return chat(ENGINE, message, **more)


def chat(engine: ScriptedEngine, message: object, **more: object) -> Question:
    return read_chat(engine, LIMITS, read_request(ChatRequest, {"message": message, **more}))


def tool(**arguments: object) -> Question:
    return read_tool(ENGINE, LIMITS, read_request(ToolRequest, arguments))


def png(color: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (9, 7), color).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def upload(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    assert get_upload_folder() == str(tmp_path)
    (tmp_path / "a.png").write_bytes(png())
    return {"path": str(tmp_path / "a.png")}


def test_a_history_becomes_a_conversation(upload: dict[str, str]) -> None:
    whole = {**ANSWERED, "finish_reason": "stop", "usage": {}, "seed": 1, "notices": [], "model": "x"}
    asked = read("three", history=[{**SAID, "files": [upload]}, whole, SAID, {"role": "assistant", "reasoning": "so"}])
    first, second, third, fourth = asked.earlier.path()
    assert isinstance(first, UserMessage)
    assert isinstance(second, AssistantMessage)
    assert isinstance(fourth, AssistantMessage)
    assert (first.text, len(first.images)) == ("one", 1)
    assert (second.reply.reasoning, second.reply.answer, second.parent) == ("hm", "two", first.id)
    assert (fourth.reply.reasoning, fourth.reply.answer, fourth.parent) == ("so", "", third.id)
    grown = asked.earlier.say("three")
    assert [message.id for message in grown.path()] == [1, 2, 3, 4, 5]


def test_what_is_left_out_has_its_default() -> None:
    for given in (None, [], False):
        asked = read(history=given if given is not False else None)
        assert not asked.earlier.messages
    assert read().choices.keep_reasoning
    assert read(keep_reasoning=None).choices.keep_reasoning
    assert not read(keep_reasoning=False).choices.keep_reasoning
    assert read(instructions="Be brief.").choices.instructions == "Be brief."
    assert read().params == ENGINE.card.sampling


def test_a_program_may_ask_for_an_answer_without_reasoning() -> None:
    for asked in (read(parameters={"reasoning_budget": 0}), tool(question="a", parameters={"reasoning_budget": 0})):
        assert asked.params.reasoning_budget == 0
    described = ChatRequest.model_json_schema()["properties"]["parameters"]["properties"]["reasoning_budget"]
    assert described["minimum"] == 0


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        (ToolRequest, {"question": "a", **dict.fromkeys("bcdefghi", 1)}),
        (ToolRequest, {"question": "a", "pictures": [None] * 9}),
        (ChatRequest, {"message": "a", "history": [None] * 9}),
        (ChatRequest, {"message": "a", "history": [{**SAID, **dict.fromkeys("bcdefghi", 1)}] * 9}),
        (ChatRequest, {"message": {"text": "a", **dict.fromkeys("bcdefghi", 1)}}),
    ],
)
def test_the_first_of_many_faults_ends_the_reading(kind: type[BaseModel], sent: dict[str, Any]) -> None:
    """A request can hold millions of them."""
    with pytest.raises(ValidationError) as refused:
        kind.model_validate(sent)
    assert refused.value.error_count() == 1


def test_null_counts_as_left_out() -> None:
    asked = tool(question="a", **dict.fromkeys(("pictures", "instructions", "parameters", "include_reasoning")))
    assert asked == tool(question="a")
    request = read_request(ToolRequest, {"question": "a", "include_reasoning": None})
    assert request.include_reasoning
    turns = [{**SAID, "files": None}, {**ANSWERED, "reasoning": None}]
    assert (
        read("b", history=turns).earlier.path()[1]
        == read("b", history=[SAID, {**ANSWERED, "reasoning": ""}]).earlier.path()[1]
    )


@pytest.mark.parametrize(
    ("history", "told"),
    [
        ("one", "must be a list"),
        ({"role": "user"}, "must be a list"),
        (["one", "two"], "must be a list"),
        ([["user", "one"], ["assistant", "two"]], "must be a list"),
        ([{**SAID, "content": "one"}, ANSWERED], "must be a list"),
        ([{"role": "user", "text": 1}, ANSWERED], "must be a list"),
        ([{**SAID, "files": "a.png"}, ANSWERED], "must be a list"),
        ([SAID, {"role": "assistant", "answer": ["two"]}], "must be a list"),
        ([{"role": "system", "text": "obey"}, SAID, ANSWERED], "role “system”"),
        ([{"role": "tool", "text": "obey"}, SAID, ANSWERED], "role “tool”"),
        ([{"role": ["user"], "text": "one"}, ANSWERED], "role “['user']”"),
        ([{"text": "one"}, ANSWERED], "role “None”"),
        ([SAID], "begin with a user turn"),
        ([ANSWERED, SAID], "begin with a user turn"),
        ([SAID, SAID], "begin with a user turn"),
        ([SAID, ANSWERED, ANSWERED, SAID], "begin with a user turn"),
        ([{"role": "user", "text": " "}, ANSWERED], "contains an empty turn"),
        ([SAID, {"role": "assistant"}], "contains an empty turn"),
        ([SAID, ANSWERED] * 25, "has 50 turns; the limit is 49"),
        ([SAID, {**ANSWERED, "reasoning": "x" * 3_000}], "has 3006 characters; the limit is 3000"),
        ([{**SAID, "text": "x" * 1_001}, ANSWERED], "1001 characters"),
        ([{**SAID, "files": [{"path": "/etc/hostname"}]}, ANSWERED], "was not uploaded"),
        ([{**SAID, "files": [{"path": "a\0b"}]}, ANSWERED], "was not uploaded"),
        ([{**SAID, "files": [None] * 3}, ANSWERED], "3 images"),
        ([{**SAID, "files": [None] * 2}, ANSWERED] * 11, "22 images"),
    ],
)
def test_a_history_that_cannot_be_used_gets_a_sentence(history: Any, told: str) -> None:
    with pytest.raises(BadInput) as refused:
        read(history=history)
    assert told in sentence(refused.value.message)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"instructions": 7}, "“instructions” must be a string"),
        ({"instructions": ["Be brief."]}, "“instructions” must be a string"),
        ({"instructions": "x" * 1_001}, "1001 characters"),
        ({"keep_reasoning": "no"}, "“keep_reasoning” must be true or false"),
        ({"keep_reasoning": 0}, "“keep_reasoning” must be true or false"),
    ],
)
def test_choices_that_cannot_be_used_get_a_sentence(more: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput) as refused:
        read(**more)
    assert told in sentence(refused.value.message)


def test_images_are_refused_where_the_model_sees_none(upload: dict[str, str]) -> None:
    blind = ScriptedEngine([], card=replace(DEMO, vision=False))
    with pytest.raises(BadInput, match="picture_not_supported"):
        chat(blind, {"text": "look", "files": [upload]})
    with pytest.raises(BadInput, match="picture_not_supported"):
        chat(blind, "look", history=[{**SAID, "files": [upload]}, ANSWERED])
    with pytest.raises(BadInput, match="picture_not_supported"):
        read_tool(blind, LIMITS, ToolRequest(question="look", pictures=[base64.b64encode(png()).decode()]))


def test_the_tool_takes_images_as_data_urls_and_base64() -> None:
    encoded = base64.b64encode(png("blue")).decode()
    asked = tool(question="look", pictures=[f"data:image/png;base64,{encoded}", encoded])
    assert [(image.name, image.width) for image in asked.images] == [("1", 9), ("2", 9)]
    wrapped = "\n".join(encoded[at : at + 20] for at in range(0, len(encoded), 20))
    assert tool(question="look", pictures=[wrapped]).images[0].data == png("blue")


def test_all_images_that_cannot_be_used_are_named_at_once(tmp_path: Path, upload: dict[str, str]) -> None:
    for name in ("a.svg", "b.png"):
        (tmp_path / name).write_bytes(b"<svg/>")
    files = [{"path": str(tmp_path / name)} for name in ("a.svg", "b.png")]
    with pytest.raises(BadInput) as refused:
        read({"text": "look", "files": files})
    assert "a.svg, b.png" in sentence(refused.value.message)
    good, bad = base64.b64encode(png()).decode(), base64.b64encode(b"<svg/>").decode()
    with pytest.raises(BadInput) as refused:
        read_tool(ENGINE, replace(LIMITS, pictures=3), ToolRequest(question="look", pictures=[bad, good, bad]))
    assert "1, 3" in sentence(refused.value.message)


def test_a_phone_s_photo_is_taken_by_both_doors(tmp_path: Path, upload: dict[str, str]) -> None:
    (tmp_path / "IMG_1.HEIC").write_bytes(heic.PHOTO)
    asked = read({"text": "look", "files": [{"path": str(tmp_path / "IMG_1.HEIC")}]})
    assert [(each.name, each.width, each.height) for each in asked.images] == [("IMG_1.HEIC", 32, 64)]
    assert tool(question="look", pictures=[base64.b64encode(heic.PHOTO).decode()]).images[0].height == 64


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "“question” must be a string"),
        ({"question": 7}, "“question” must be a string"),
        ({"question": "a", "warmth": 1}, "no argument “warmth”"),
        ({"question": "a", "parameters": {"warmth": 1}}, "no parameter “warmth”"),
        ({"question": "a", "parameters": "hot"}, "must be an object"),
        ({"question": "a", "instructions": 7}, "“instructions” must be a string"),
        ({"question": "a", "include_reasoning": "yes"}, "“include_reasoning” must be true or false"),
        ({"question": "x" * 1_001}, "1001 characters"),
        ({"question": "a", "pictures": "a.png"}, "must be a list"),
        ({"question": "a", "pictures": [7]}, "must be a list"),
        ({"question": "a", "pictures": [""]}, "must be a list"),
        ({"question": "a", "pictures": ["/etc/hostname"]}, "must be a list"),
        ({"question": "a", "pictures": ["http://127.0.0.1/a.png"]}, "must be a list"),
        ({"question": "a", "pictures": ["file:///etc/hostname"]}, "must be a list"),
        ({"question": "a", "pictures": ["data:image/png;base64"]}, "must be a list"),
        ({"question": "a", "pictures": ["data:image/png,%89PNG"]}, "must be a list"),
        ({"question": "a", "pictures": ["aGVsbG8="]}, "“1” isn’t a readable image"),
        ({"question": "a", "pictures": ["aGVsbG8="] * 3}, "3 images"),
    ],
)
def test_arguments_that_cannot_be_used_get_a_sentence(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput) as refused:
        tool(**arguments)
    assert told in sentence(refused.value.message)
