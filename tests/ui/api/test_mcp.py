"""The MCP tool, through the real client of the mcp package on loopback, in both of the protocol's eras."""

import asyncio
import base64
import io
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from typing import Any

import httpx
import jsonschema
import pytest
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from PIL import Image

from magistral_ui.chat.events import Answer, Failed, Finished, Reasoning
from magistral_ui.chat.prompt import UserTurn
from magistral_ui.engines.base import GenerationRequest, Loading, Ready
from magistral_ui.engines.generation import Generation
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.api import mcp_route
from magistral_ui.ui.api.models import FinishedReply
from magistral_ui.ui.launch import close, launch
from magistral_ui.ui.page import build_page
from tests.loopback import free_port
from tests.scripted_engine import INFO, Pause, Script, ScriptedEngine

ERAS = ("legacy", "auto")
"""A session that begins with a handshake (up to 2025-11-25), and requests that stand alone (2026-07-28)."""
MODULE = "magistral_ui.ui.api.mcp_server"
HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


def script(request: GenerationRequest) -> Script:
    turn = request.prompt.turns[-1]
    assert isinstance(turn, UserTurn)
    if turn.text == "fail":
        return [Reasoning("hm"), Failed("out_of_memory")]
    if turn.text == "cut":
        return [Reasoning("hm"), Finished("length")]
    if turn.text == "endless":
        return [Reasoning("hm"), Pause(60), Answer("too late")]
    if turn.text == "slow":
        return [Reasoning("hm"), Pause(1.2), Reasoning("so"), Pause(1.2), Answer("yes")]
    sizes = [f"{image.width}×{image.height}" for image in turn.images]
    return [
        Reasoning("hm"),
        Answer(f"{turn.text}|{sizes}|{request.params.temperature}|{request.prompt.system[-1].text[-9:]}"),
    ]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, ScriptedEngine]]:
    sys.modules.pop(MODULE, None)
    engine = ScriptedEngine(script)
    visitors = Visitors(engine)
    page = build_page(engine, visitors)
    url = launch(page, visitors, port=free_port())
    assert MODULE not in sys.modules, "the package is imported before anybody asks for it"
    yield url + "mcp", engine
    engine.close()
    close(page)


def call(url: str, era: str = "auto", **arguments: Any) -> Any:
    async def ask() -> Any:
        async with Client(url, mode=era) as client:
            return await client.call_tool("ask_magistral", arguments)

    return asyncio.run(ask())


def image() -> str:
    out = io.BytesIO()
    Image.new("RGB", (9, 7), "red").save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def newest(engine: ScriptedEngine, before: int) -> Generation:
    """The reply that begins after `before` of them."""
    while len(engine.generations) == before:
        threading.Event().wait(0.01)
    return engine.generations[-1]


@pytest.mark.parametrize("era", ERAS)
def test_a_question_gets_answer_and_reasoning_apart(served: tuple[str, ScriptedEngine], era: str) -> None:
    found = call(
        served[0],
        era,
        question="what?",
        pictures=[image()],
        parameters={"temperature": 0.0, "seed": 7},
        instructions="Be brief.",
    )
    assert not found.is_error
    answer, reasoning = found.content
    assert answer.text == "what?|['9×7']|0.0|Be brief."
    assert reasoning.text == "hm"
    assert reasoning.annotations.audience == ["user"]
    reply = found.structured_content
    jsonschema.validate(reply, FinishedReply.model_json_schema())
    assert (reply["reasoning"], reply["answer"], reply["finish_reason"]) == ("hm", answer.text, "stop")
    assert (reply["seed"], reply["usage"]["completion_tokens"]) == (7, 2)
    party, _, call_of_it = served[1].requests[-1].visitor.partition("/")
    assert len(party) == 32
    assert call_of_it


def test_reasoning_may_be_left_out(served: tuple[str, ScriptedEngine]) -> None:
    found = call(served[0], question="what?", include_reasoning=False)
    assert len(found.content) == 1
    assert found.structured_content["reasoning"] == ""
    assert found.structured_content["usage"]["reasoning_tokens"] == 1


@pytest.mark.parametrize("era", ERAS)
def test_the_tool_is_described_with_the_bounds_that_are_checked(served: tuple[str, ScriptedEngine], era: str) -> None:
    async def tools() -> Any:
        async with Client(served[0], mode=era) as client:
            return (await client.list_tools()).tools

    (tool,) = asyncio.run(tools())
    assert (tool.name, tool.title) == ("ask_magistral", "Ask Magistral")
    assert tool.annotations.read_only_hint
    jsonschema.Draft202012Validator.check_schema(tool.input_schema)
    jsonschema.Draft202012Validator.check_schema(tool.output_schema)
    described = jsonschema.Draft202012Validator(tool.input_schema)
    good = {"question": "a", "pictures": ["x"], "parameters": {"temperature": 2, "max_tokens": 1}}
    assert described.is_valid(good)
    for bad in ({}, {"question": 1}, {"question": "a", "x": 1}, {"question": "a", "parameters": {"temperature": 3}}):
        assert not described.is_valid(bad)
        assert call(served[0], era, **bad).is_error


def test_what_a_model_did_wrong_is_told_to_it(served: tuple[str, ScriptedEngine]) -> None:
    for arguments, told in (
        ({"question": " "}, "nothing to send"),
        ({"question": "a", "parameters": {"warmth": 1}}, "no parameter “warmth”"),
        ({"question": "a", "pictures": ["/etc/hostname"]}, "Nothing is downloaded"),
        ({"question": "fail"}, "out of memory"),
    ):
        found = call(served[0], **arguments)
        assert found.is_error
        assert told in found.content[0].text


def test_a_reply_without_an_answer_says_so(served: tuple[str, ScriptedEngine]) -> None:
    found = call(served[0], question="cut")
    assert "No answer: the reply ended" in found.content[0].text
    assert (found.structured_content["answer"], found.structured_content["finish_reason"]) == ("", "length")


def test_another_tool_is_unknown(served: tuple[str, ScriptedEngine]) -> None:
    async def ask() -> None:
        async with Client(served[0]) as client:
            with pytest.raises(MCPError, match="no tool “rm”"):
                await client.call_tool("rm", {})

    asyncio.run(ask())


@pytest.mark.parametrize("era", ERAS)
def test_progress_is_told_while_it_thinks_and_while_the_model_loads(
    served: tuple[str, ScriptedEngine], era: str
) -> None:
    told: list[tuple[float, str | None]] = []

    async def progress(seconds: float, total: float | None, message: str | None) -> None:
        assert total is None
        told.append((seconds, message))

    async def ask() -> Any:
        async with Client(served[0], mode=era) as client:
            served[1].set_status(Loading("reading", 1, 2))
            threading.Timer(1.3, lambda: served[1].set_status(Ready(INFO))).start()
            return await client.call_tool("ask_magistral", {"question": "slow"}, progress_callback=progress)

    assert asyncio.run(ask()).content[0].text == "yes"
    assert [seconds for seconds, _ in told] == sorted({seconds for seconds, _ in told})
    messages = [message for _, message in told]
    assert messages[0] == "The model is loading"
    assert any((message or "").startswith("Thinking: ") for message in messages)


@pytest.mark.parametrize("era", ERAS)
def test_who_cancels_stops_the_reply(served: tuple[str, ScriptedEngine], era: str) -> None:
    async def ask() -> Generation:
        async with Client(served[0], mode=era) as client:
            before = len(served[1].generations)
            asking = asyncio.create_task(client.call_tool("ask_magistral", {"question": "endless"}))
            generation = await asyncio.to_thread(newest, served[1], before)
            assert not generation.ended
            asking.cancel()
            assert await asyncio.to_thread(generation.wait, 20)
            return generation

    assert asyncio.run(ask()).stop_requested


def test_who_leaves_without_a_word_stops_the_reply(served: tuple[str, ScriptedEngine]) -> None:
    """A client of the older protocol whose line breaks cannot take up the answer, so nobody thinks on for it."""
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "leaver", "version": "1"}}
    with httpx.Client(trust_env=False, timeout=60, headers=HEADERS) as http:
        begun = http.post(served[0], json={"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello})
        session = {"Mcp-Session-Id": begun.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-06-18"}
        http.post(served[0], json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=session)
        before = len(served[1].generations)
        params = {"name": "ask_magistral", "arguments": {"question": "endless"}}
        job = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}
        with http.stream("POST", served[0], json=job, headers=session):
            generation = newest(served[1], before)
            assert not generation.ended
    assert generation.wait(30)
    assert generation.stop_requested


def test_web_pages_stay_outside(served: tuple[str, ScriptedEngine]) -> None:
    for origin in ("http://evil.example", "null", served[0].removesuffix("/mcp")):
        refused = httpx.post(served[0], json={}, headers={**HEADERS, "Origin": origin}, trust_env=False, timeout=60)
        assert refused.status_code == 403
        assert ("web pages cannot" in refused.text) == (origin in served[0])


def test_a_request_that_is_too_large_is_refused(served: tuple[str, ScriptedEngine]) -> None:
    huge = httpx.post(served[0], content=b" " * (32 * 2**20 + 1), headers=HEADERS, trust_env=False, timeout=60)
    assert huge.status_code == 413


@pytest.mark.parametrize("installed", [None, "1.30.0"])
def test_without_the_package_it_says_how_to_get_it(
    served: tuple[str, ScriptedEngine], monkeypatch: pytest.MonkeyPatch, installed: str | None
) -> None:
    def version(name: str) -> str:
        assert name == "mcp"
        if installed is None:
            raise PackageNotFoundError
        return installed

    monkeypatch.setattr(mcp_route, "version", version)
    refused = httpx.post(served[0], json={}, headers=HEADERS, trust_env=False, timeout=60)
    assert refused.status_code == 501
    assert "requirements-mcp.txt" in refused.text
