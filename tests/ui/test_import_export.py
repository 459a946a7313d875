"""Files in and out, over the routes as the page's script uses them."""

import asyncio
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.events import Answer, Reasoning
from magistral_ui.chat.reply import Reply
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.client import CLIENT, Client, hashed
from magistral_ui.export.document import Document
from magistral_ui.export.json import export_json, import_json
from magistral_ui.export.json_models import ImportLimits
from magistral_ui.i18n.languages import LANGUAGES
from magistral_ui.sessions.history import catalog, store
from magistral_ui.sessions.history.database import IMAGES_FOLDER, IMPORT_DISK_FACTOR, MIN_FREE_BYTES, History
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.visitors import TabState, Visitors
from magistral_ui.ui import import_export
from magistral_ui.ui.chat import Chat
from magistral_ui.ui.history_panel import HistoryPanel
from magistral_ui.ui.import_export import MAX_FILES_PER_ADDRESS, exchange_routes, import_limits
from tests.export.conversations import image
from tests.scripted_engine import ScriptedEngine


class Desk:
    """A visitor's list, and the routes beside it."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        engine = ScriptedEngine([Reasoning("hm"), Answer("**yes**")])
        self.visitors = Visitors(engine, limits, History(folder))
        self.panel = HistoryPanel(Chat(engine, self.visitors))
        self.http = TestClient(Starlette(routes=exchange_routes(self.visitors)))

    def said(self, *texts: str) -> TabState:
        place: TabState = {}
        for text in texts:
            place, session = self.visitors.begin(place)
            assert session.say(text, (), SamplingParams(seed=1)).generation.wait(60)
        return place

    def save(self, place: Any, **data: Any) -> tuple[str, bytes]:
        ticket = self.panel.save(data, place)["ticket"]
        answer = self.http.get("/magistral/export", headers={"X-Ticket": ticket["token"]})
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-disposition"] == "attachment"
        return ticket["name"], answer.content

    def bring(self, place: Any, content: bytes) -> Any:
        token = self.panel.bring({"size": len(content)}, place)["ticket"]["token"]
        return self.http.post("/magistral/import", headers={"X-Ticket": token}, content=content).json()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "data")
    yield desk
    desk.visitors.close()


def test_what_is_saved_can_be_brought_back_by_someone_else(desk: Desk, tmp_path: Path) -> None:
    place = desk.said("one", "two")
    desk.visitors.change(place, place["conversation"], catalog.rename, "A name")
    name, content = desk.save(place, format="json")
    assert name.endswith(".json")
    assert {d.title for d in import_json(content)} == {"one", "A name"}
    other, _ = desk.visitors.open()
    assert desk.bring(other, content) == {"imported": 2}
    again = desk.panel.listing({}, other)["entries"]
    assert [entry["title"] for entry in again] == ["A name", "one"]
    assert {entry["id"] for entry in again}.isdisjoint(e["id"] for e in desk.panel.listing({}, place)["entries"])
    _, value, _, _ = desk.panel.open({"id": again[0]["id"]}, other)
    assert [turn.get("answer") or turn["text"] for turn in value["turns"]] == ["two", "**yes**"]
    assert json.loads(desk.save(other, format="json")[1])["conversations"] == json.loads(content)["conversations"]


@pytest.mark.parametrize(
    ("format", "ending", "inside"), [("html", ".html", b"<strong>yes"), ("markdown", ".md", b"**yes**")]
)
def test_one_conversation_is_saved_to_be_read(desk: Desk, format: str, ending: str, inside: bytes) -> None:
    place = desk.said("one", "two")
    name, content = desk.save(place, format=format, id=place["conversation"])
    assert name == f"two{ending}"
    assert inside in content
    assert b"one" not in content.partition(b"<body")[2] or format == "markdown"


def test_a_file_to_read_is_in_the_readers_language(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    place, arabic = desk.said("one"), LANGUAGES["ar"]
    monkeypatch.setattr(import_export, "visitors_language", lambda scope: arabic)
    html = desk.save(place, format="html", id=place["conversation"])[1]
    assert b'<html lang="ar" dir="rtl">' in html


def test_a_ticket_opens_its_own_visitors_only_and_once(desk: Desk) -> None:
    mine, theirs = desk.said("mine"), desk.said("theirs")
    token = desk.panel.save({"format": "json", "id": mine["conversation"]}, theirs)["ticket"]["token"]
    first = desk.http.get("/magistral/export", headers={"X-Ticket": token})
    assert json.loads(first.content)["conversations"] == []
    for used in (token, "", "made up"):
        assert desk.http.get("/magistral/export", headers={"X-Ticket": used}).status_code == 404
        assert desk.http.post("/magistral/import", headers={"X-Ticket": used}, content=b"{}").status_code == 404
    token = desk.panel.bring({"size": 1}, mine)["ticket"]["token"]
    assert desk.http.get("/magistral/export", headers={"X-Ticket": token}).status_code == 404
    for refused in ({"format": "exe", "id": mine["conversation"]}, {"format": "html"}, {}):
        assert "ticket" not in desk.panel.save(refused, mine)


def test_a_file_that_is_refused_changes_nothing(desk: Desk) -> None:
    place = desk.said("one")
    for content, key in ((b"", "import_not_json"), (b"{}", "import_not_ours"), (b"\x1f\x8b", "import_not_json")):
        assert desk.bring(place, content)["failure"]["key"] == key
    stranger = {"visitor": "a stranger"}
    assert desk.bring(stranger, desk.save(place, format="json")[1])["failure"]["key"] == "import_not_saved"
    assert len(desk.panel.listing({}, place)["entries"]) == 1


def test_a_file_that_cannot_be_saved_to_its_end_leaves_nothing(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, whole = desk.said("one"), store.save_document

    def full(*values: Any, **more: Any) -> None:
        whole(*values, **more)
        if values[-1].title == "second":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "save_document", full)
    shown = Conversation().say("look", [image("red")])
    content = export_json([Document(shown, "first"), Document(shown, "second")])
    assert desk.bring(place, content) == {"failure": {"key": "import_not_saved", "values": {}}}
    told = desk.panel.listing({}, place)
    assert [entry["title"] for entry in told["entries"]] == ["one"]
    assert not [path for path in (tmp_path / "data" / IMAGES_FOLDER).rglob("*") if path.is_file()]
    monkeypatch.undo()
    assert desk.bring(place, content) == {"imported": 2}


def test_an_old_conversation_that_is_brought_in_is_new_where_nothing_old_is_kept(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "data")
    old = Document(Conversation().say("old"), "old", updated=datetime(2020, 1, 1, tzinfo=timezone.utc))
    content = export_json([old])
    place = desk.said("one")
    desk.bring(place, content)
    assert [entry["title"] for entry in desk.panel.listing({}, place)["entries"]] == ["one", "old"]
    desk.visitors.close()
    desk.visitors = Visitors(ScriptedEngine([]), history=History(tmp_path / "other", keep_days=30))
    other, _ = desk.visitors.open()
    desk.visitors.import_documents(other, [old])
    desk.visitors.close()
    history = History(tmp_path / "other", keep_days=30)  # opening it deletes what is too old
    listed = history.read([], catalog.listing, hashed(other["visitor"]))
    assert [entry.title for entry in listed] == ["old"]
    history.close()


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "data", Limits(import_mb=1))
    place = desk.said("one")
    told, large = {"key": "import_too_large", "values": {"limit": 1}}, b" " * (2**20 + 1)
    assert desk.panel.bring({"size": len(large)}, place)["refused"] == told
    assert "ticket" not in desk.panel.bring({}, place)
    token = desk.panel.bring({"size": 1}, place)["ticket"]["token"]
    sent = desk.http.post("/magistral/import", headers={"X-Ticket": token}, content=large)
    assert sent.json() == {"failure": told}
    desk.visitors.close()


def test_a_disk_that_is_too_small_for_a_file_is_not_filled(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    place = desk.said("one")
    content = desk.save(place, format="json")[1]
    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda folder: SimpleNamespace(free=IMPORT_DISK_FACTOR * len(content) + MIN_FREE_BYTES - 1),
    )
    assert desk.bring(place, content)["failure"] == {"key": "import_no_disk", "values": {"needed": 17}}
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: SimpleNamespace(free=IMPORT_DISK_FACTOR * len(content) + MIN_FREE_BYTES)
    )
    assert desk.bring(place, content) == {"imported": 1}


def test_a_visitor_has_room_for_so_many(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "data", Limits(conversations=3))
    place = desk.said("one", "two")
    content = desk.save(place, format="json")[1]
    assert desk.bring(place, content)["failure"] == {"key": "import_no_room", "values": {"limit": 3}}
    one = desk.save(place, format="json", id=place["conversation"])[1]
    assert desk.bring(place, one) == {"imported": 1}
    assert len(desk.panel.listing({}, place)["entries"]) == 3
    desk.visitors.close()


@pytest.mark.parametrize("limits", [Limits(messages=3), Limits(conversation_length=10)])
def test_a_conversation_that_could_not_be_written_here_is_not_brought_in(tmp_path: Path, limits: Limits) -> None:
    desk = Desk(tmp_path / "data", limits)
    place = desk.said("one")
    short, long = Conversation().say("ab"), Conversation().say("abcdef").with_reply(Reply("", "gh")).say("i")
    long = long.with_reply(Reply("", "jk"))
    failure = desk.bring(place, export_json([Document(short), Document(long)]))["failure"]
    assert (failure["key"], failure["values"]["where"]) == ("import_too_much", "conversations[1]")
    assert desk.bring(place, export_json([Document(short)])) == {"imported": 1}
    desk.visitors.close()


def test_what_a_file_may_hold_shrinks_with_its_size() -> None:
    assert import_limits(Limits()) == ImportLimits()
    small = import_limits(Limits(import_mb=8, text_length=1_000, conversations=5, picture_bytes=9, picture_pixels=7))
    whole = ImportLimits()
    assert (small.bytes, small.text_length, small.conversations) == (8 * 2**20, 1_000, 5)
    assert (small.picture_bytes, small.picture_pixels) == (9, 7)
    assert (small.messages, small.all_pixels) == (whole.messages // 32, whole.all_pixels // 32)


def test_files_are_read_and_written_beside_the_servers_loop(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    place, loops = desk.said("one"), list[bool]()

    def looping(work: Callable[..., Any]) -> Callable[..., Any]:
        def done(*values: Any) -> Any:
            try:
                asyncio.get_running_loop()
                loops.append(True)
            except RuntimeError:
                loops.append(False)
            return work(*values)

        return done

    monkeypatch.setattr(import_export, "written", looping(import_export.written))
    monkeypatch.setattr(import_export, "import_json", looping(import_export.import_json))
    desk.bring(place, desk.save(place, format="json")[1])
    assert loops == [False, False]


def test_one_address_with_many_files_is_refused_and_others_have_their_turn(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end, began = threading.Event(), threading.Semaphore(0)

    def slow(visitors: Visitors, purpose: Any, language: Any) -> bytes:
        began.release()
        assert may_end.wait(60)
        return purpose.format.encode()

    monkeypatch.setattr(import_export, "_content", slow)
    place = desk.said("one")
    (send, _) = exchange_routes(desk.visitors)

    async def fetch(address: str) -> Response:
        token = desk.panel.save({"format": "json"}, place)["ticket"]["token"]
        CLIENT.set(Client(address))
        return await send.endpoint(Request({"type": "http", "headers": [(b"x-ticket", token.encode())]}))

    async def attack() -> tuple[list[int], list[int]]:
        mallory = [asyncio.create_task(fetch("198.51.100.1")) for _ in range(MAX_FILES_PER_ADDRESS + 3)]
        assert await asyncio.to_thread(began.acquire, timeout=30)
        await asyncio.wait(mallory, return_when=asyncio.FIRST_COMPLETED)  # those who are refused need not wait
        alice = asyncio.create_task(fetch("198.51.100.2"))
        await asyncio.sleep(0)
        may_end.set()
        return [(await each).status_code for each in mallory], [(await alice).status_code]

    theirs, mine = asyncio.run(attack())
    assert theirs == [200] * MAX_FILES_PER_ADDRESS + [429] * 3
    assert mine == [200]
