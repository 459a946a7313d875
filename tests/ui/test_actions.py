"""The actions of the page's script over HTTP: what bodies they take, what parts they answer with, and how a refusal looks."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from magistral_ui.chat.events import Answer
from magistral_ui.engines.base import Loading
from magistral_ui.sessions.limits import SHARED
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.actions import action_route, composer_actions, history_actions, model_actions, turn_actions
from magistral_ui.ui.asset_files import ASSETS
from magistral_ui.ui.chat import Chat
from magistral_ui.ui.history_panel import HistoryPanel
from magistral_ui.web.request_body import MAX_EVENT_BYTES, HeldBytes, JsonBodies
from magistral_ui.web.request_guard import ACTIONS_PATH
from magistral_ui.web.uploads import Ownership
from tests.scripted_engine import ScriptedEngine


class Tab:
    """A tab of the page, over a scripted engine."""

    def __init__(self) -> None:
        self.engine = ScriptedEngine([Answer("yes")])
        self.chat = Chat(self.engine, Visitors(self.engine))
        self.bodies, self.ownership = JsonBodies(SHARED), Ownership()
        self.app = Starlette(routes=[action_route(self.chat, self.bodies, self.ownership)])
        self.place: Any = {}

    def post(self, action: str, body: Any) -> httpx.Response:
        content = body if isinstance(body, str) else json.dumps(body)

        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://page") as client:
                return await client.post(ACTIONS_PATH + action, content=content)

        return asyncio.run(ask())

    def act(self, action: str, data: Any = None, **more: Any) -> dict[str, Any]:
        answer = self.post(action, {"place": self.place, "data": data or {}, **more})
        assert answer.status_code == 200, answer.text
        parts: dict[str, Any] = answer.json()
        self.place = parts.get("place", self.place)
        return parts


@pytest.fixture
def tab() -> Tab:
    return Tab()


@pytest.fixture
def opened(tab: Tab) -> Tab:
    tab.act("turns/attach")
    return tab


@pytest.mark.parametrize(
    ("action", "parts"),
    [
        ("turns/attach", {"place", "turns", "composer", "model"}),
        ("turns/new_chat", {"place", "turns", "composer", "model"}),
        ("turns/ended", {"turns", "composer", "model"}),
        ("turns/more", {"more"}),
        ("turns/stop", set()),
        ("composer/say", {"place", "turns", "composer", "model"}),
        ("composer/weigh", {"meter"}),
        ("composer/look", {"attached"}),
        ("history/refresh", {"history"}),
        ("history/open", {"place", "turns", "composer", "history", "model"}),
        ("model/poll", {"model", "composer"}),
        ("model/ready", {"turns", "composer", "parameters", "prompt", "model"}),
        ("model/compose", {"prompt"}),
    ],
)
def test_an_answer_has_the_parts_that_have_changed(opened: Tab, action: str, parts: set[str]) -> None:
    assert set(opened.act(action)) == parts


def test_a_message_is_sent_and_its_reply_comes_with_the_next_answer(opened: Tab) -> None:
    parts = opened.act("composer/say", message={"text": "well?", "files": []}, settings={"params": {"seed": 3}})
    assert parts["turns"]["alert"] is None
    assert parts["composer"]["value"] == {"text": "", "files": []}
    session = opened.chat.visitors.find(opened.place)
    assert session is not None
    if running := session.running:
        assert running.generation.wait(60)
    assert opened.engine.requests[-1].params.seed == 3
    assert [turn["role"] for turn in opened.act("turns/ended")["turns"]["turns"]] == ["user", "assistant"]


@pytest.mark.parametrize("theirs", [{"path": "theirs.png"}, {"path": ""}, None])
def test_a_file_that_is_not_the_callers_is_as_if_it_were_missing(opened: Tab, theirs: Any) -> None:
    opened.ownership.share("file", "mine.png")
    files = [{"path": "mine.png", "url": "theirs.png"}, theirs]
    parts = opened.act("composer/weigh", message={"text": "look", "files": files})
    assert parts["meter"]["of"] == [len("look"), 1]


def test_a_body_is_bounded_in_its_bytes_and_in_those_in_memory(tab: Tab) -> None:
    large = {"data": {"text": "x" * (MAX_EVENT_BYTES + 6 * SHARED.text_length)}}
    assert tab.post("turns/attach", large).status_code == 413
    assert tab.post("turns/attach", {}).status_code == 200
    tab.bodies._held = HeldBytes(max_bytes=1)
    assert tab.post("turns/attach", {}).status_code == 503


BODY: dict[str, Any] = {"place": {}, "settings": {}, "data": {}}


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        {**BODY, "more": 1},
        {**BODY, "place": "x"},
        {**BODY, "settings": None},
        {**BODY, "data": []},
        {**BODY, "message": {"text": 1}},
        {**BODY, "message": {"files": ["a.png"]}},
        {**BODY, "message": {"files": [{"path": 7}]}},
        {**BODY, "message": {"files": [{"url": "mine.png", "meta": {}}]}},
    ],
    ids=repr,
)
def test_a_body_that_the_page_never_sends_is_refused(tab: Tab, body: Any) -> None:
    answer = tab.post("composer/say", body)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert tab.engine.requests == []


def test_a_refusal_is_a_failure_that_the_browser_puts_into_words(tab: Tab) -> None:
    tab.engine.set_status(Loading())
    assert tab.act("model/poll")["composer"] == {"interactive": False}
    parts = tab.act("composer/say", message={"text": "well?"})
    assert parts["turns"]["alert"]["key"] == "not_ready"
    parts = tab.act("composer/say", message={"text": "well?"}, settings={"unknown": 1})
    assert parts["turns"]["alert"]["key"] == "bad_parameters"
    assert tab.post("turns/unknown", BODY).status_code == 404
    assert tab.post("unknown/attach", BODY).status_code == 404


def asked_for() -> set[str]:
    """The actions that the page's script names as such, in calls of `ask` and in the list of what changes a turn."""
    scripts = {each.stem: each.read_text(encoding="utf-8") for each in Path(ASSETS).glob("*.js")}
    named = set(re.findall(r'(?:ask|askLatest)\(\s*"([a-z]+/[a-z_]+)"', "".join(scripts.values())))
    found = re.search(r"CHANGE_EVENTS = new Set\(\[(.*?)\]", scripts["transcript"], re.DOTALL)
    assert found is not None
    named |= {f"turns/{each}" for each in re.findall(r'"(\w+)"', found[1])}
    return named | {f"history/{each}" for each in re.findall(r'\bask\("(\w+)"', scripts["history"])}


def test_the_page_asks_for_nothing_that_there_is_not(tab: Tab) -> None:
    listed = history_actions(HistoryPanel(tab.chat))
    known = {**turn_actions(tab.chat), **listed, **composer_actions(tab.chat), **model_actions(tab.chat)}
    assert len(asked_for()) > 20
    assert asked_for() <= set(known)
