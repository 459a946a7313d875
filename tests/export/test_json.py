"""Whatever was said comes back as it was."""

import json
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magistral_ui.chat.conversation import AssistantMessage, Conversation
from magistral_ui.chat.events import Usage
from magistral_ui.chat.images import read_image
from magistral_ui.chat.reply import Provenance, Reply
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.export.document import Document
from magistral_ui.export.html import export_html
from magistral_ui.export.json import export_json, import_json
from magistral_ui.export.json_models import schema
from magistral_ui.i18n.texts import text_in
from tests.chat import heic
from tests.export.conversations import DOCUMENTS, image, sample

SCHEMA_FILE = Path(__file__).parents[2] / "docs" / "export.schema.json"
SCHEMA = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def exported(*documents: Document) -> Any:
    return json.loads(export_json(documents or (sample(),)))


@settings(max_examples=40)  # each is dear to draw
@given(st.lists(DOCUMENTS, max_size=2))
def test_every_conversation_comes_back_as_it_was(documents: list[Document]) -> None:
    data = export_json(documents)
    assert import_json(data) == documents
    VALIDATOR.validate(json.loads(data))


def test_the_order_of_siblings_comes_back_too() -> None:
    document = sample()
    [back] = import_json(export_json([document]))
    assert list(back.conversation.messages) == list(document.conversation.messages)
    assert back.conversation.siblings(3) == document.conversation.siblings(3) == (3, 5)
    assert back.conversation.path() == document.conversation.path()


def test_an_image_that_many_messages_share_is_written_once() -> None:
    red = image("red", "PNG", "a.png")
    conversation = Conversation().say("a", (red,)).edit(1, "b").edit(1, "c")
    data = exported(Document(conversation), Document(Conversation().say("d", (replace(red, name="b.png"),))))
    assert list(data["pictures"]) == [red.digest]
    assert data["pictures"][red.digest]["media_type"] == "image/png"


def test_a_phone_s_photo_comes_back_as_it_was() -> None:
    document = Document(Conversation().say("a", (read_image(heic.PHOTO, "IMG_1.HEIC"),)))
    data = export_json([document])
    VALIDATOR.validate(json.loads(data))
    assert import_json(data) == [document]
    assert "data:image/jpeg;base64," in export_html([document], partial(text_in, "en"), "en", "ltr")


def test_half_a_surrogate_pair_becomes_a_question_mark() -> None:
    [back] = import_json(export_json([Document(Conversation().say("a\ud800b"), "\udfff")]))
    assert back == Document(Conversation().say("a?b"), "?")


def test_the_schema_is_sound_and_knows_every_field() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for kind, name in (
        (Usage, "Usage"),
        (SamplingParams, "SamplingParams"),
        (Provenance, "Provenance"),
        (Reply, "ReplyEntry"),
    ):
        assert set(SCHEMA["$defs"][name]["properties"]) == {field.name for field in fields(kind)}


def test_the_schema_is_the_models() -> None:
    assert SCHEMA_FILE.read_bytes() == schema(), f"{SCHEMA_FILE.name}: python -m magistral_ui.export.json_models"


def test_every_field_of_a_reply_is_written() -> None:
    reply = exported()["conversations"][0]["messages"][1]["reply"]
    assert set(reply) == {field.name for field in fields(Reply)}


def test_the_schema_refuses_what_is_not_sound() -> None:
    for spoil in (lambda d: d.pop("version"), lambda d: d["conversations"][0]["messages"][0].update(role="system")):
        data = exported()
        spoil(data)
        with pytest.raises(jsonschema.ValidationError):
            VALIDATOR.validate(data)


def test_fields_of_a_newer_app_are_left_and_those_that_an_older_one_lacks_get_their_default() -> None:
    data = exported()
    data["made_by"] = data["conversations"][0]["colour"] = "new"
    reply = data["conversations"][0]["messages"][1]["reply"]
    reply["usage"]["joules"] = 12
    for name in ("provenance", "notices", "failure_values", "params", "model", "reasoning_closed"):
        del reply[name]
    del reply["usage"]["reused_tokens"]
    del data["conversations"][0]["title"]
    [back] = import_json(json.dumps(data).encode())
    assert back.title == ""
    message = back.conversation.path()[1]
    assert isinstance(message, AssistantMessage)
    assert message.reply == Reply("First, 487 + 265.\n\nCarry the one.", "It is **752**.", True, "stop", usage=USAGE)


USAGE = Usage(40, 0, 843, 60, 0.4, 12.3, 15.0)


def test_a_mark_at_the_beginning_escapes_and_other_ways_to_write_the_time_are_fine() -> None:
    data = exported()
    data["conversations"][0]["created"] = "2026-11-24T16:30:00+01:00"
    data["conversations"][0]["updated"] = "2026-11-24T15:30:00Z"
    assert import_json(b"\xef\xbb\xbf" + json.dumps(data, ensure_ascii=True).encode()) == [sample()]
