"""What the context meter tells before anything is sent: what the message costs, whether it fits, what can be done."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from magistral_ui.chat.events import Answer, Reasoning
from magistral_ui.engines.base import Loading, Ready
from magistral_ui.errors import ImageRefused, TooManyImages
from magistral_ui.models.cards import DEMO, MAGISTRAL_1_1, MINISTRAL_3_8B
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.upload_cache import UploadCache
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.chat import Chat
from tests.chat import heic
from tests.scripted_engine import INFO, Pause, ScriptedEngine

SYSTEM = sum(len(part.text.split()) for part in DEMO.system())


def chat_over(script: Any, context: int = 1_000, **options: Any) -> Chat:
    engine = ScriptedEngine(script, status=Ready(replace(INFO, context_length=context)), **options)
    return Chat(engine, Visitors(engine))


def talked(chat: Chat, text: str = "one two three") -> str:
    visitor, _, _ = chat.say({"text": text}, "", {})
    session = chat.visitors.find(visitor)
    assert session is not None
    assert session.running is None or session.running.generation.wait(60)
    return visitor


def image(folder: Path, name: str = "red.png", size: tuple[int, int] = (30, 20)) -> str:
    Image.new("RGB", size, "red").save(folder / name)
    return str(folder / name)


def test_an_empty_conversation_costs_its_system_prompt() -> None:
    chat = chat_over([])
    visitor, _ = chat.visitors.open()
    value = chat.weigh({"text": "", "files": []}, visitor, {})
    assert (value["total"], value["room"], value["fit"]) == (SYSTEM, 1_000 - SYSTEM, "fits")
    assert value["use"]["message"] == 0


def test_every_token_is_told_by_what_it_is_for(tmp_path: Path) -> None:
    chat = chat_over([Reasoning("a b c d"), Answer("yes no")])
    visitor = talked(chat)
    value = chat.weigh({"text": "now this", "files": [image(tmp_path)]}, visitor, {})
    use = value["use"]
    assert use["conversation"] == 5
    assert (use["reasoning"], use["left_out"]) == (4, 0)
    assert (use["message"], use["message_pictures"], use["pictures"]) == (102, (100,), 0)
    assert value["total"] == SYSTEM + 5 + 4 + 102
    without = chat.weigh({"text": "now this"}, visitor, {"keep_reasoning": False})["use"]
    assert (without["reasoning"], without["left_out"]) == (0, 4)


def test_an_image_that_was_sent_is_an_earlier_one(tmp_path: Path) -> None:
    chat = chat_over([Answer("red")])
    visitor, _, _ = chat.say({"text": "look", "files": [image(tmp_path)]}, "", {})
    session = chat.visitors.find(visitor)
    assert session is not None
    assert session.running is None or session.running.generation.wait(60)
    use = chat.weigh({"text": "and?"}, visitor, {})["use"]
    assert (use["pictures"], use["message"], use["conversation"]) == (100, 1, 2)


def test_a_value_says_which_message_it_is_about(tmp_path: Path) -> None:
    chat = chat_over([])
    visitor, _ = chat.visitors.open()
    assert chat.weigh({"text": "hé 🙂", "files": []}, visitor, {})["of"] == (5, 0)  # as a browser counts
    assert chat.weigh({"text": "", "files": [image(tmp_path)]}, visitor, {})["of"] == (0, 1)
    assert chat.weigh({"text": "a", "files": ["nowhere.png"]}, visitor, {})["of"] == (1, 1)
    assert chat.weigh(None, visitor, {})["of"] == (0, 0)


def test_a_full_conversation_is_not_told_as_a_message_that_does_not_fit() -> None:
    chat = chat_over([Answer("yes " * 50)], context=SYSTEM + 20)
    visitor = talked(chat)
    assert chat.weigh({"text": ""}, visitor, {})["fit"] == "full"
    assert chat.weigh({"text": "more"}, visitor, {})["fit"] == "too_long"


def test_what_is_attached_is_looked_at_before_it_is_sent(tmp_path: Path) -> None:
    (tmp_path / "half.png").write_bytes(Path(image(tmp_path, "whole.png")).read_bytes()[:60])
    (tmp_path / "photo.heic").write_bytes(heic.PHOTO)
    files = [str(tmp_path / name) for name in ("whole.png", "half.png", "photo.heic", "gone.png")]
    value = chat_over([]).look({"number": 7}, {"text": "", "files": files})
    assert value["number"] == 7
    whole, half, photo, gone = value["attached"]
    assert whole == {"failure": None, "thumbnail": None}
    assert half["failure"] == {"key": "picture_broken", "values": {"name": "half.png"}}
    assert photo["failure"] is None
    assert photo["thumbnail"].startswith("data:image/jpeg;base64,")  # most browsers cannot show the file itself
    assert gone["failure"]["key"] == "picture_broken"
    blind = chat_over([], card=MAGISTRAL_1_1).look({}, {"files": files[:1]})["attached"]
    assert blind[0]["failure"]["key"] == "picture_not_supported"


def test_weighing_sends_and_changes_nothing() -> None:
    chat = chat_over([Answer("yes")])
    visitor = talked(chat)
    session = chat.visitors.find(visitor)
    assert session is not None
    before = session.conversation
    chat.weigh({"text": "more"}, visitor, {})
    assert session.conversation == before
    assert len(chat.engine.requests) == 1  # type: ignore[attr-defined]


def test_what_does_not_fit_is_told_with_what_helps(tmp_path: Path) -> None:
    chat = chat_over([Reasoning("a b c d"), Answer("yes no")], context=60 + SYSTEM)
    visitor = talked(chat)
    files = [image(tmp_path, size=(1200, 700))]
    value = chat.weigh({"text": "look", "files": files}, visitor, {})
    assert (value["fit"], value["room"]) == ("too_long", 0)
    assert value["remedies"] == [
        {"key": "leave_reasoning_out", "count": 4, "advised_against": False},
        {"key": "smaller_pictures", "side": 1024},
        {"key": "new_chat"},
    ]
    value = chat.weigh({"text": "look", "files": files}, visitor, {"keep_reasoning": False, "picture_side": 512})
    assert [remedy["key"] for remedy in value["remedies"]] == ["new_chat"]
    tight = chat.weigh({"text": "w " * 45}, visitor, {})
    assert (tight["fit"], tight["room"]) == ("tight", 6)
    assert chat.weigh({"text": "w " * 45}, visitor, {"params": {"max_tokens": 5}})["fit"] == "fits"


def test_leaving_reasoning_out_comes_last_where_its_makers_advise_against_it() -> None:
    system = sum(len(part.text.split()) for part in MINISTRAL_3_8B.system())
    chat = chat_over([Reasoning("a b c d"), Answer("yes no")], context=60 + system, card=MINISTRAL_3_8B)
    value = chat.weigh({"text": "w " * 60}, talked(chat), {})
    assert value["remedies"] == [
        {"key": "new_chat"},
        {"key": "leave_reasoning_out", "count": 4, "advised_against": True},
    ]


def test_while_a_reply_is_written_the_message_is_not_counted() -> None:
    chat = chat_over([Pause(30)])
    visitor, _, _ = chat.say({"text": "one two"}, "", {})
    value = chat.weigh({"text": "three four five"}, visitor, {})
    assert (value["use"]["conversation"], value["use"]["message"]) == (2, 0)
    chat.stop(visitor)


@pytest.mark.parametrize(
    ("message", "sent", "key"),
    [
        ({"text": "x" * 11}, {}, "text_too_long"),
        ({"text": "x"}, {"params": {"top_p": 9}}, "parameter_out_of_range"),
        ({"text": "x", "files": ["/nowhere/gone.png"]}, {}, "picture_broken"),
    ],
)
def test_what_cannot_be_sent_is_told_before(message: Any, sent: Any, key: str) -> None:
    engine = ScriptedEngine([])
    chat = Chat(engine, Visitors(engine, Limits(text_length=10)))
    visitor, _ = chat.visitors.open()
    assert chat.weigh(message, visitor, sent)["failure"]["key"] == key


def test_a_model_without_eyes_is_told_before(tmp_path: Path) -> None:
    chat = chat_over([], card=MAGISTRAL_1_1)
    visitor, _ = chat.visitors.open()
    assert chat.weigh({"files": [image(tmp_path)]}, visitor, {})["failure"]["key"] == "picture_not_supported"


def test_nobody_and_a_model_that_loads_have_no_meter() -> None:
    chat = chat_over([])
    assert chat.weigh({"text": "x"}, "a guess", {})["limit"] is None
    visitor, _ = chat.visitors.open()
    chat.engine.set_status(Loading())  # type: ignore[attr-defined]
    assert chat.weigh({"text": "x"}, visitor, {})["limit"] is None


def test_images_are_sent_as_small_as_was_asked_for(tmp_path: Path) -> None:
    chat = chat_over([Answer("red")])
    files = [image(tmp_path, size=(1200, 700)), image(tmp_path, "small.png")]
    chat.say({"text": "look", "files": files}, "", {"picture_side": 512})
    (turn,) = chat.engine.requests[0].prompt.turns  # type: ignore[attr-defined]
    assert [(p.width, p.height, p.name) for p in turn.images] == [(512, 299, "red.png"), (30, 20, "small.png")]


def test_an_upload_is_read_once_and_a_refusal_stays_one(tmp_path: Path) -> None:
    path = image(tmp_path, size=(900, 600))
    (tmp_path / "junk.png").write_bytes(b"no picture")
    uploads = UploadCache(Limits(pictures=2))
    first, shrunk = uploads.read([path]), uploads.read([path], 512)
    Path(path).unlink()
    assert uploads.read([path]) == first
    assert uploads.read([path], 512) == shrunk
    assert (shrunk[0].width, shrunk[0].height) == (512, 341)
    for _ in range(2):
        with pytest.raises(ImageRefused):
            uploads.read([str(tmp_path / "junk.png")])
    with pytest.raises(TooManyImages):
        uploads.read([path] * 3)
