"""The channel of a running reply, as the page's script reads it over HTTP."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from magistral_ui.chat.events import Answer, Finished, Reasoning
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.sessions.session import Session
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.actions import LIVE_PATH, live_route
from tests.scripted_engine import Pause, Script, ScriptedEngine

PARAMS = SamplingParams(seed=0)


class Reader:
    """Visitors over a script, and the channel to read their replies through."""

    def __init__(self, script: Any) -> None:
        self.visitors = Visitors(ScriptedEngine(script))
        self.app = Starlette(routes=[live_route(self.visitors)])

    def visitor(self) -> Session:
        return self.visitors.open()[1]

    def get(self, generation: str, seen: str = "0") -> httpx.Response:
        async def ask() -> httpx.Response:
            headers = {b"X-Generation": generation.encode(), b"Last-Event-ID": seen.encode()}
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://page") as client:
                return await client.get(LIVE_PATH, headers=headers)

        return asyncio.run(ask())

    def updates(self, generation: str, seen: int = 0) -> list[dict[str, Any]]:
        response = self.get(generation, str(seen))
        assert response.headers["content-type"].startswith("text/event-stream")
        parts = response.text.removesuffix("\n\n").split("\n\n")
        assert all(part.startswith("data: ") for part in parts)
        return [json.loads(part.removeprefix("data: ")) for part in parts]


SLOW: Script = [Reasoning("hm\n\n"), Reasoning("so"), Pause(0.3), Answer("é🎉"), Pause(0.3), Answer("!")]


def test_a_reply_is_read_to_its_end() -> None:
    reader = Reader(SLOW)
    running = reader.visitor().say("well?", (), PARAMS)
    updates = reader.updates(running.generation.id)
    assert "".join(each["reasoning"] for each in updates) == "hm\n\nso"
    assert "".join(each["answer"] for each in updates) == "é🎉!"
    assert updates[-1]["state"] == "ended"
    assert [each["start"] for each in updates] == [0, *[each["seen"] for each in updates[:-1]]]


def test_it_is_taken_up_behind_what_was_seen() -> None:
    reader = Reader(SLOW)
    running = reader.visitor().say("well?", (), PARAMS)
    updates = reader.updates(running.generation.id, seen=1)
    assert updates[0]["start"] == 1
    assert "".join(each["reasoning"] for each in updates) == "so"
    assert updates[-1]["reasoning_tokens"] == 2


def test_a_reply_that_continues_begins_with_its_beginning() -> None:
    scripts = iter([[Reasoning("a"), Finished("length")], [Pause(0.2), Reasoning("b"), Pause(0.2), Answer("c")]])
    reader = Reader(lambda request: next(scripts))
    session = reader.visitor()
    session.say("well?", (), PARAMS).generation.wait(60)
    running = session.resume(session.conversation.last_id, PARAMS)
    updates = reader.updates(running.generation.id)
    begun = "".join(each["reasoning"] for each in updates if each["start"] == 0 and each["seen"])
    later = "".join(each["reasoning"] for each in updates if each["start"])
    assert (begun + later, updates[-1]["answer"], updates[-1]["reasoning_tokens"]) == ("ab", "c", 2)


def test_only_a_running_reply_of_that_very_id_is_told() -> None:
    reader = Reader([Answer("a secret"), Pause(30)])
    session = reader.visitor()
    running = session.say("well?", (), PARAMS)
    other = reader.visitor().say("well?", (), PARAMS)
    assert len(running.generation.id) >= 40
    for guess in ("", "x", running.generation.id[:-1], running.generation.id.swapcase(), "é", "../" * 99):
        assert reader.get(guess).status_code == 404
    for each in (running, other):
        each.generation.stop()
        each.generation.wait(60)
    assert session.conversation.path()
    assert reader.get(running.generation.id).status_code == 404


@pytest.mark.parametrize("seen", ["-1", "x", "1.5", "9" * 40, "², "])
def test_a_place_that_is_no_number_is_refused(seen: str) -> None:
    reader = Reader([Answer("x")])
    running = reader.visitor().say("well?", (), PARAMS)
    assert reader.get(running.generation.id, seen).status_code == 400
