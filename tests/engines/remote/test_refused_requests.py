"""Servers and proxies that refuse, each told as what it is: no JSON on the page, no wait without a word, no wrong cause."""

import asyncio
import threading
from collections.abc import Callable

import pytest
from aiohttp import web

from magistral_ui.chat.events import Event, Failed, Queued
from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import Broken, GenerationRequest, Ready
from magistral_ui.engines.remote import request_errors, server_monitor
from magistral_ui.engines.remote.engine import RemoteEngine
from magistral_ui.i18n.texts import sentence
from tests.engines.contract import all_events, words
from tests.servers.fake_gateway import FakeGateway

Connect = Callable[..., RemoteEngine]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_errors, "RETRY_DELAYS", (0.01,) * 6)
    monkeypatch.setattr(server_monitor, "CHECK_INTERVAL_READY", 0.05)


def ask(engine: RemoteEngine) -> list[Event]:
    return all_events(engine.submit(GenerationRequest(Prompt((), (UserTurn("hi"),)), SamplingParams(seed=1))))


def told(events: list[Event]) -> tuple[str, str]:
    last = events[-1]
    assert isinstance(last, Failed), last
    shown = sentence(last)
    assert "{" not in shown
    return last.key, shown


def answering(gateway: FakeGateway, status: int, body: str, kind: str = "application/json", **headers: str) -> None:
    gateway.refuse = lambda _: web.Response(text=body, status=status, content_type=kind, headers=headers)


@pytest.mark.parametrize(
    ("status", "body", "kind", "key", "part"),
    [
        (400, '{"error": "out of cheese"}', "application/json", "remote_refused", "out of cheese"),
        (422, '{"detail": "out of cheese"}', "application/json", "remote_refused", "out of cheese"),
        (400, "", "text/plain", "remote_refused", "HTTP 400"),
        (400, '{"error": "the model context is 4096"}', "application/json", "remote_prompt_too_long", "doesn’t fit"),
        (
            413,
            "<html><title>413 Request Entity Too Large</title></html>",
            "text/html",
            "remote_body_too_large",
            "nginx",
        ),
        (
            413,
            "Maximum request body size 1048576 exceeded",
            "text/plain",
            "remote_body_too_large",
            "client_max_body_size",
        ),
        (413, '{"error": "Request too large: Limit 6000 tokens"}', "application/json", "remote_refused", "6000 tokens"),
        (401, '{"error": "no"}', "application/json", "remote_key_refused", "access key"),
        (403, "<html><title>403 Forbidden</title></html>", "text/html", "remote_key_refused", "access key"),
        (403, '{"error": "Your input was flagged"}', "application/json", "remote_refused", "flagged"),
        (404, "<html><title>404 Not Found</title></html>", "text/html", "remote_not_compatible", "/v1"),
        (404, '{"detail": "Not Found"}', "application/json", "remote_not_compatible", "/v1"),
        (
            404,
            '{"error": {"message": "The model x does not exist"}}',
            "application/json",
            "remote_refused",
            "does not exist",
        ),
        (402, '{"error": "Insufficient credits"}', "application/json", "remote_refused", "credits"),
        (
            429,
            '{"error": {"message": "Pay", "code": "insufficient_quota"}}',
            "application/json",
            "remote_refused",
            "Pay",
        ),
        (501, "Not Implemented", "text/plain", "remote_refused", "Not Implemented"),
    ],
)
def test_a_refusal_is_told_in_words(
    gateway: FakeGateway, connect: Connect, status: int, body: str, kind: str, key: str, part: str
) -> None:
    engine = connect(gateway.base_url)
    answering(gateway, status, body, kind)
    found, shown = told(ask(engine))
    assert found == key
    assert part in shown
    assert not set('{}<>"') & set(shown)
    assert len(gateway.requests) == 1


@pytest.mark.parametrize("status", [502, 504])
def test_a_gateway_without_a_server_behind_it_says_so(gateway: FakeGateway, connect: Connect, status: int) -> None:
    engine = connect(gateway.base_url)
    answering(gateway, status, f"<html><title>{status} Bad Gateway</title></html>", "text/html")
    events = ask(engine)
    assert told(events)[0] == "remote_gateway"
    assert "Bad Gateway" in told(events)[1]
    assert any(isinstance(event, Queued) and event.retry_seconds for event in events), "that it is asked again is shown"


def test_an_error_that_comes_again_is_told_soon(gateway: FakeGateway, connect: Connect) -> None:
    engine = connect(gateway.base_url)
    answering(gateway, 500, '{"error": {"message": "CUDA error"}}')
    key, shown = told(ask(engine))
    assert key == "remote_failing"
    assert "CUDA error" in shown
    assert len(gateway.requests) == 3


def test_a_redirect_names_the_place(gateway: FakeGateway, connect: Connect) -> None:
    engine = connect(gateway.base_url)
    answering(gateway, 308, "", "text/plain", Location="https://elsewhere.example/v1/chat/completions")
    key, shown = told(ask(engine))
    assert key == "remote_redirects"
    assert "https://elsewhere.example" in shown


@pytest.mark.parametrize(
    ("status", "headers", "key"),
    [
        (301, {"Location": "https://elsewhere.example/v1/models"}, "remote_redirects"),
        (502, {}, "remote_gateway"),
        (500, {}, "remote_failing"),
    ],
)
def test_what_is_wrong_with_a_server_is_told_before_anybody_writes(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, status: int, headers: dict[str, str], key: str
) -> None:
    async def models(self: FakeGateway, request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers=headers, text="<title>Oh</title>", content_type="text/html")

    monkeypatch.setattr(FakeGateway, "models", models)
    fake = FakeGateway()
    try:
        state = connect(fake.base_url).status()
        assert isinstance(state, Broken)
        assert state.key == key
        assert "{" not in sentence(state)
    finally:
        fake.close()


OLD = b"HTTP/1.0 200 OK\r\nContent-Type: %s\r\n\r\n%s"
LIST = b'{"object": "list", "data": [{"id": "some-model"}]}'
REPLY = b'data: {"choices": [{"index": 0, "delta": {"content": "Fine."}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


def test_a_server_of_http_1_0_is_read(connect: Connect) -> None:
    """It says no length and keeps no connection: its end is the end of the answer."""
    loop = asyncio.new_event_loop()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        chat = head.startswith(b"POST")
        writer.write(OLD % ((b"text/event-stream", REPLY) if chat else (b"application/json", LIST)))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def no_other_task() -> None:
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)  # type: ignore[type-var]

    listening = loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        engine = connect(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1")
        assert isinstance(engine.status(), Ready)
        assert words(ask(engine)) == ("", "Fine.")
        engine.close()  # it checks the server all the time, and what it has asked for is answered before the loop ends
        asyncio.run_coroutine_threadsafe(no_other_task(), loop).result(60)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        listening.close()
        loop.close()
