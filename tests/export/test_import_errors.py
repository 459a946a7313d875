"""A file that is not sound is refused with a sentence, by its place where it has one, and nothing of it is taken."""

import base64
import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from magistral_ui.errors import ImportRefused
from magistral_ui.export.document import Document
from magistral_ui.export.json import export_json, import_json
from magistral_ui.export.json_models import ImportLimits
from magistral_ui.i18n.texts import sentence
from tests.export.conversations import image, sample


def exported(*documents: Document) -> Any:
    return json.loads(export_json(documents or (sample(),)))


def refusal(data: bytes, limits: ImportLimits | None = None) -> ImportRefused:
    with pytest.raises(ImportRefused) as caught:
        import_json(data, limits)
    assert "{" not in sentence(caught.value.message)
    return caught.value


NO_JSON = {
    "empty": b"",
    "a zero": b"\x00",
    "words": b"hello",
    "a page": b"<html>",
    "gzip": gzip.compress(b"{}"),
    "zip": b"PK\x03\x04",
    "cut": b'{"format": "magistral-ui/conversation"',
    "UTF-16": '{"format": "magistral-ui/conversation"}'.encode("utf-16"),
    "no UTF-8": b'{"a": "\xff"}',
    "a name twice": b'{"a": 1, "a": 2}',
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "infinity in digits": b'{"a": 1e999}',
    "a long number": b'{"a": ' + b"9" * 5000 + b"}",
    "deep and open": b"[" * 100_000,
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 50 + b"1" + b"}" * 50,
    "escapes without end": b'{"a": "' + b'\\"' * 100_000,
    "quotes": b'"' * 99_999,
}


@pytest.mark.parametrize("name", NO_JSON)
def test_what_is_no_json_is_refused(name: str) -> None:
    assert refusal(NO_JSON[name]).message.key == "import_not_json"


@pytest.mark.parametrize("data", [b"[]", b"1", b'"x"', b"null", b"{}", b'{"format": "chatgpt"}', b'{"format": ["x"]}'])
def test_json_of_others_is_refused(data: bytes) -> None:
    assert refusal(data).message.key == "import_not_ours"


def test_a_newer_version_is_refused_by_its_number() -> None:
    data = exported()
    data["version"] = 2
    error = refusal(json.dumps(data).encode())
    assert (error.message.key, error.message.values) == ("import_version", {"version": 2, "known": 1})


def first(data: Any) -> Any:
    return data["conversations"][0]


def said(data: Any, index: int = 0) -> Any:
    return first(data)["messages"][index]


def reply(data: Any) -> Any:
    return said(data, 1)["reply"]


Spoil = Callable[[Any], object]
FILE: dict[str, Spoil] = {
    "version": lambda d: d.update(version="1"),
    "version ": lambda d: d.update(version=0),
    "version  ": lambda d: d.update(version=True),
    "conversations": lambda d: d.pop("conversations"),
    "conversations ": lambda d: d.update(conversations={}),
    "conversations[0]": lambda d: d.update(conversations=[None]),
    "pictures": lambda d: d.update(pictures=[]),
}
CONVERSATION: dict[str, Spoil] = {
    "title": lambda d: first(d).update(title=1),
    "title ": lambda d: first(d).update(title="\ud800"),
    "created": lambda d: first(d).update(created="2026-11-24T15:30:00"),
    "updated": lambda d: first(d).update(updated="yesterday"),
    "updated ": lambda d: first(d).update(updated="0001-01-01T00:00:00+10:00"),
    "last_id": lambda d: first(d).pop("last_id"),
    "last_id ": lambda d: first(d).update(last_id=2**53),
    "messages[3].id": lambda d: first(d).update(last_id=3),
    "messages[0].id": lambda d: said(d).update(id=-1),
    "messages[0].id ": lambda d: said(d).update(id=1.0),
    "messages[0].id  ": lambda d: said(d).update(id=True),
    "messages[4].id": lambda d: said(d, 4).update(id=2),  # not in order
    "messages[4].id ": lambda d: said(d, 4).update(id=4),  # twice
    "messages[2].parent": lambda d: said(d, 2).update(parent=3),  # its own
    "messages[2].parent ": lambda d: said(d, 2).update(parent=4),  # in a circle
    "messages[2].parent  ": lambda d: said(d, 2).update(parent=99),
    "messages[2].parent   ": lambda d: said(d, 2).update(parent="2"),
    "messages[1].parent": lambda d: said(d, 1).update(parent=None),  # a reply to nobody
    "messages[3].parent": lambda d: said(d, 3).update(parent=2),  # a reply to a reply
    "messages[0].role": lambda d: said(d).update(role="system"),
    "messages[0].role ": lambda d: said(d).update(role=["user"]),
    "messages[0].text": lambda d: said(d).pop("text"),
    "messages[0].text ": lambda d: said(d).update(text=["x"]),
    "messages[0].pictures[0].digest ": lambda d: said(d)["pictures"][0].update(digest="<b>"),
    "messages[0].pictures[0].digest": lambda d: said(d)["pictures"][0].update(digest=None),
    "chosen": lambda d: first(d).pop("chosen"),
    "chosen[0]": lambda d: first(d).update(chosen=[99]),
    "chosen[0] ": lambda d: first(d).update(chosen=[None]),
    "chosen[3]": lambda d: first(d).update(chosen=[1, 2, 3, 5]),  # two siblings
    "messages[1].reply": lambda d: said(d, 1).pop("reply"),
    "messages[1].keep_reasoning": lambda d: said(d, 1).update(keep_reasoning=1),
}
REPLY: dict[str, Spoil] = {
    "answer": lambda d: reply(d).update(answer=1),
    "reasoning_closed": lambda d: reply(d).update(reasoning_closed="no"),
    "finish_reason": lambda d: reply(d).update(finish_reason="love"),
    "finish_reason ": lambda d: reply(d).update(finish_reason=[]),
    "notices[0]": lambda d: reply(d).update(notices=["<b>"]),
    "failure": lambda d: reply(d).update(failure="<b>"),
    "failure_values": lambda d: reply(d).update(failure_values={"a": []}),
    "failure_values ": lambda d: reply(d).update(failure_values={"a": True}),
    "failure_values  ": lambda d: reply(d).update(failure_values={"a": 2**60}),
    "usage.answer_tokens": lambda d: reply(d)["usage"].update(answer_tokens=-1),
    "usage.total_seconds": lambda d: reply(d)["usage"].update(total_seconds=True),
    "usage": lambda d: reply(d).update(usage="much"),
    "params": lambda d: reply(d)["params"].update(temperature=99),
    "params.top_k": lambda d: reply(d)["params"].update(top_k=0.5),
    "provenance": lambda d: reply(d).update(provenance="x"),
    "provenance.model": lambda d: reply(d)["provenance"].update(model=None),
}
UNSOUND = {
    **FILE,
    **{f"conversations[0].{place}": spoil for place, spoil in CONVERSATION.items()},
    **{f"conversations[0].messages[1].reply.{place}": spoil for place, spoil in REPLY.items()},
}


@pytest.mark.parametrize("place", UNSOUND)
def test_what_is_not_sound_is_refused_by_its_place(place: str) -> None:
    data = exported()
    UNSOUND[place](data)
    error = refusal(json.dumps(data).encode())
    assert (error.message.key, error.message.values) == ("import_broken", {"where": place.strip()})


MANY = [None] * 9
FAULTY: dict[str, Spoil] = {
    "conversations": lambda d: d.update(conversations=MANY),
    "messages": lambda d: first(d).update(messages=MANY),
    "chosen": lambda d: first(d).update(chosen=MANY),
    "pictures": lambda d: said(d).update(pictures=MANY),
    "notices": lambda d: reply(d).update(notices=MANY),
    "failure_values": lambda d: reply(d).update(failure_values=dict.fromkeys("abcdefghi")),
    "names": lambda d: reply(d).update(failure_values={f"{each}\ud800": 1 for each in range(9)}),
}


@pytest.mark.parametrize("name", FAULTY)
def test_the_first_of_many_faults_ends_the_reading(name: str) -> None:
    """A small file can hold millions of them."""
    data = exported()
    FAULTY[name](data)
    faults = refusal(json.dumps(data).encode()).__cause__
    assert isinstance(faults, ValidationError)
    assert faults.error_count() <= 3, "one for each type that a value may have"


def test_a_name_from_the_file_does_not_come_into_the_sentence() -> None:
    data = exported()
    reply(data)["failure_values"] = {"<img>": []}
    said(data)["pictures"][0]["digest"] = "<img>"
    assert "<img" not in sentence(refusal(json.dumps(data).encode()).message)
    del said(data)["pictures"]
    assert "<img" not in sentence(refusal(json.dumps(data).encode()).message)


SPOILED_IMAGES: dict[str, Spoil] = {
    "no base64": lambda p: p.update(data="!"),
    "cut": lambda p: p.update(data=p["data"][:-40]),
    "another": lambda p: p.update(data=base64.b64encode(image("green").data).decode()),
    "SVG": lambda p: p.update(data=base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode()),
    "said to be SVG": lambda p: p.update(media_type="image/svg+xml"),
    "said to be HTML": lambda p: p.update(media_type="text/html"),
    "said to be nothing": lambda p: p.pop("media_type"),
}


@pytest.mark.parametrize("name", SPOILED_IMAGES)
def test_an_image_that_is_not_what_was_exported_is_refused(name: str) -> None:
    data = exported()
    [image_value] = data["pictures"].values()
    SPOILED_IMAGES[name](image_value)
    error = refusal(json.dumps(data).encode())
    assert (error.message.key, error.message.values) == ("import_picture_broken", {"name": "sum.png"})


def test_an_image_that_is_not_in_the_file_is_refused() -> None:
    data = exported()
    data["pictures"] = {}
    assert refusal(json.dumps(data).encode()).message.key == "import_broken"


@pytest.mark.parametrize(
    ("limits", "where"),
    [
        (ImportLimits(conversations=0), "conversations"),
        (ImportLimits(messages=5), "conversations[0].messages"),
        (ImportLimits(text_length=5), "conversations[0].messages[0].text"),
        (ImportLimits(reply_length=5), "conversations[0].messages[1].reply.reasoning"),
        (ImportLimits(name_length=6), "conversations[0].messages[0].pictures[0].name"),
        (ImportLimits(images=0), "conversations[0].messages[0].pictures"),
        (ImportLimits(all_pixels=64 * 48 - 1), "pictures"),
    ],
)
def test_more_than_the_limits_is_refused(limits: ImportLimits, where: str) -> None:
    error = refusal(export_json([sample()]), limits)
    assert error.message.key == "import_too_much"
    assert error.message.values["where"] == where
    assert int(error.message.values["count"]) > int(error.message.values["limit"])


def test_messages_are_counted_over_all_conversations() -> None:
    data = export_json([sample(), sample()])
    assert len(import_json(data, ImportLimits(messages=12))) == 2
    assert refusal(data, ImportLimits(messages=11)).message.values["where"] == "conversations[1].messages"


def test_an_image_over_the_limits_is_refused() -> None:
    data = export_json([sample()])
    assert refusal(data, ImportLimits(picture_bytes=20)).message.key == "import_picture_broken"
    assert refusal(data, ImportLimits(picture_pixels=20)).message.key == "import_picture_broken"


def test_a_large_file_is_refused_before_it_is_parsed() -> None:
    assert refusal(b"x" * (2**20 + 1), ImportLimits(bytes=2**20)).message.key == "import_too_large"
    assert refusal(b"[" + b"[]," * 6_000_000 + b"[]]").message.key == "import_too_large"


def test_one_broken_conversation_refuses_the_sound_ones_beside_it() -> None:
    data = exported(sample(), sample(), sample())
    data["conversations"][2]["messages"][0]["text"] = None
    assert refusal(json.dumps(data).encode()).message.values["where"] == "conversations[2].messages[0].text"


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@given(ANYTHING, st.data())
def test_any_value_at_any_place_is_taken_whole_or_refused(value: Any, data: st.DataObject) -> None:
    whole = exported()
    at: Any = whole
    while True:
        name = data.draw(st.sampled_from(list(at) if isinstance(at, dict) else list(range(len(at)))))
        if not isinstance(at[name], dict | list) or not at[name] or data.draw(st.integers(0, 3)) == 0:
            at[name] = value
            break
        at = at[name]
    try:
        documents = import_json(json.dumps(whole).encode())
    except ImportRefused:
        return
    assert import_json(export_json(documents)) == documents
