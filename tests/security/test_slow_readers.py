"""Replies and files that nobody reads: they do not begin, or end, and leave nothing; tried over raw sockets."""

import asyncio
import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from magistral_ui.chat.events import Answer
from magistral_ui.client import CLIENT, Client, hashed
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.generation import Generation
from magistral_ui.sessions.visitors import place_fields
from magistral_ui.ui.import_export import ExportPurpose
from magistral_ui.web.client_address import VISITOR_COOKIE
from magistral_ui.web.queued_calls import QueuedCalls
from tests.scripted_engine import Pause, Script
from tests.security.conftest import ROOMY, Browser, Served, script, serving

QUICK = replace(ROOMY, follow_seconds=60, unread_seconds=1)
PATIENCE = 60.0
"""Seconds for what takes one or two on a quiet machine."""
TORRENT: Script = [each for _ in range(2_000) for each in (Answer("many words " * 2_000), Pause(0.05))]
"""More than any buffer takes in, for longer than the patience."""
MUCH: Script = [Answer("many words " * 200_000)]
ASSET = "/magistral/vendor/renderers.js"


def play(request: GenerationRequest) -> Script:
    said = getattr(request.prompt.turns[-1], "text", "")
    return {"torrent": TORRENT, "much": MUCH}.get(said) or script(request)


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page on which a call waits for its reader for a second."""
    with serving(tmp_path_factory.mktemp("hasty"), limits=replace(QUICK, follow_seconds=1)) as served:
        yield served


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("unread"), limits=QUICK, play=play) as served:
        yield served


def until(holds: Callable[[], Any]) -> Any:
    """What `holds` gives once that is something; waits for it."""
    end = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < end, "it has not come about"
        time.sleep(0.02)
    return found


def newest(served: Served, before: int) -> Generation:
    """The reply that has begun after `before` of them."""
    until(lambda: len(served.engine.generations) > before)
    return served.engine.generations[-1]


def left_of(served: Served) -> tuple[int, ...]:
    """What there still is of calls: with us, and in Gradio's queue and tables."""
    queue = served.page._queue
    tables = (queue.event_ids_to_events, queue.pending_messages_per_session, queue.pending_event_ids_session)
    working = [job for job in queue.active_jobs if job is not None]
    return (len(served.page.calls), *map(len, tables), len(queue), len(working))


def call(http: httpx.Client, text: str) -> httpx.Response:
    return http.post("/gradio_api/call/chat", json={"data": [text]})


def join(browser: Browser, text: str) -> str:
    body = {"data": [text], "fn_index": browser.served.numbers["chat"], "session_hash": browser.session}
    return str(browser.http.post("/gradio_api/queue/join", json=body).json()["event_id"])


@contextmanager
def deaf(served: Served, path: str, headers: dict[str, str], body: bytes = b"") -> Iterator[socket.socket]:
    """A connection that asks for `path`, with a POST where there is a `body`, and takes in next to nothing."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.settimeout(PATIENCE)
        connection.connect(("127.0.0.1", served.port))
        told = {"Host": f"127.0.0.1:{served.port}", "Content-Length": str(len(body)), **headers}
        lines = [f"{'POST' if body else 'GET'} {path} HTTP/1.1", *map(": ".join, told.items()), "", ""]
        connection.sendall("\r\n".join(lines).encode() + body)
        yield connection


def is_held(served: Served, connection: socket.socket) -> bool:
    """Whether the server has this connection still; the system may drop it without a word to the other side."""
    port = connection.getsockname()[1]
    return any(each.client and each.client[1] == port for each in list(served.page.server.server_state.connections))


def cookies(browser: Browser) -> dict[str, str]:
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items())}


def test_a_call_that_nobody_follows_never_begins_and_leaves_nothing(hasty: Served) -> None:
    before = len(hasty.engine.requests)
    browser = hasty.browser().open()
    assert call(browser.http, "wait").status_code == 200
    join(browser, "wait")
    until(lambda: not any(left_of(hasty)))
    assert len(hasty.engine.requests) == before


def test_a_call_begins_when_its_stream_comes(quick: Served) -> None:
    browser, before = quick.browser().open(), len(quick.engine.requests)
    id = call(browser.http, "hello").json()["event_id"]
    queue = quick.page._queue
    until(lambda: any(job is not None for job in queue.active_jobs))  # it is its turn, and it waits
    assert len(quick.engine.requests) == before
    assert "you said hello" in browser.http.get(f"/gradio_api/call/chat/{id}").text
    until(lambda: not any(left_of(quick)))


def test_a_refused_call_tells_why_to_whoever_reads_it(quick: Served) -> None:
    browser = quick.browser().open()
    id = browser.http.post("/gradio_api/call/chat", json={"data": ["hi", {"warmth": 1}]}).json()["event_id"]
    assert "event: error" in browser.http.get(f"/gradio_api/call/chat/{id}").text
    until(lambda: not any(left_of(quick)))


@pytest.mark.parametrize("plain", [True, False])
def test_a_reply_ends_when_its_reader_leaves(quick: Served, plain: bool) -> None:
    browser, before = quick.browser().open(), len(quick.engine.generations)
    if plain:
        path = f"/gradio_api/call/chat/{call(browser.http, 'wait').json()['event_id']}"
    else:
        join(browser, "wait")
        path = f"/gradio_api/queue/data?session_hash={browser.session}"
    with browser.http.stream("GET", path):
        generation = newest(quick, before)
        assert not generation.ended
    assert generation.wait(PATIENCE)
    assert generation.stop_requested
    until(lambda: not any(left_of(quick)))


def test_no_stream_may_be_opened_and_not_read(quick: Served) -> None:
    """Each of them is sent more than the buffers between take in, and all are dropped, whatever they are."""
    alice, bob, carol = (quick.browser().open() for _ in range(3))
    with ExitStack() as held:

        def open_deaf(path: str, browser: Browser, **headers: str) -> socket.socket:
            return held.enter_context(deaf(quick, path, {**cookies(browser), **headers}))

        streams = {"asset": open_deaf(ASSET, alice)}
        before = len(quick.engine.generations)
        id = call(alice.http, "torrent").json()["event_id"]
        streams["call"] = open_deaf(f"/gradio_api/call/chat/{id}", alice)
        replies = [newest(quick, before)]
        join(bob, "torrent")
        streams["messages"] = open_deaf(f"/gradio_api/queue/data?session_hash={bob.session}", bob)
        replies.append(newest(quick, before + 1))
        streams["live"] = open_deaf("/magistral/live", carol, **{"X-Generation": carol.say("torrent")["live"]})
        until(lambda: not [name for name, stream in streams.items() if is_held(quick, stream)])
        assert all(reply.wait(PATIENCE) and reply.stop_requested for reply in replies)
        carol.act("turns/stop")
    until(lambda: not any(left_of(quick)))


def test_a_file_of_one_s_own_may_not_be_asked_for_and_not_read(quick: Served) -> None:
    alice = quick.browser().open()
    path = alice.upload(bytes(3_000_000), "a.txt").json()[0]
    with deaf(quick, f"/gradio_api/file={path}", cookies(alice)) as stream:
        until(lambda: not is_held(quick, stream))


def test_an_export_may_not_be_asked_for_and_not_read(quick: Served) -> None:
    alice, before = quick.browser().open(), len(quick.engine.generations)
    alice.say("much")
    assert newest(quick, before).wait(PATIENCE)
    alice.act("turns/ended")
    token = CLIENT.set(Client(browser=hashed(alice.http.cookies[VISITOR_COOKIE])))
    ticket = quick.visitors.tickets.issue(ExportPurpose(place_fields(alice.place), (), "json"))
    CLIENT.reset(token)
    with deaf(quick, "/magistral/export", {**cookies(alice), "X-Ticket": ticket}) as stream:
        assert stream.recv(12) == b"HTTP/1.1 200"
        until(lambda: not is_held(quick, stream))


@pytest.mark.parametrize("version", ["2025-06-18", "2026-07-28"])
def test_a_result_of_a_tool_may_not_be_left_unread(quick: Served, version: str) -> None:
    meta = {
        f"io.modelcontextprotocol/{name}": value
        for name, value in {
            "protocolVersion": version,
            "clientInfo": {"name": "a", "version": "1"},
            "clientCapabilities": {},
        }.items()
    }
    params = {"name": "ask_magistral", "arguments": {"question": "much"}, "_meta": meta}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    headers = {
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        "MCP-Protocol-Version": version,
        "Mcp-Method": "tools/call",
        "Mcp-Name": "ask_magistral",
    }
    with deaf(quick, "/mcp", headers, body) as stream:
        assert stream.recv(12) == b"HTTP/1.1 200"
        until(lambda: not is_held(quick, stream))


def test_reading_a_byte_now_and_then_is_not_reading(quick: Served) -> None:
    with deaf(quick, ASSET, {}) as stream:
        assert stream.recv(1) == b"H"
        assert is_held(quick, stream)

        def read_a_little() -> bool:
            watched = select.select([stream], [], [], 0.2)[0]
            return not is_held(quick, stream) or (bool(watched) and len(stream.recv(1)) == 0)

        until(read_a_little)
        assert not is_held(quick, stream)


def test_where_nothing_is_to_be_read_there_is_no_stream(hasty: Served) -> None:
    """Gradio would find that out once its answer has begun, and write a trace into the log each time."""
    browser = hasty.browser().open()
    assert browser.http.get("/gradio_api/queue/data", params={"session_hash": browser.session}).status_code == 404
    id = call(browser.http, "hello").json()["event_id"]
    assert "you said hello" in browser.http.get(f"/gradio_api/call/chat/{id}").text
    with browser.http.stream("GET", f"/gradio_api/call/chat/{id}") as again:
        assert again.status_code == 404, "it was read already"
    # As in the moment after the last message, while Gradio still has the session.
    queue = hasty.page._queue
    queue.pending_messages_per_session[id] = asyncio.Queue()
    with browser.http.stream("GET", f"/gradio_api/call/chat/{id}") as again:
        assert again.status_code == 404
    del queue.pending_messages_per_session[id]


def test_streams_have_no_head(hasty: Served) -> None:
    alice = hasty.browser().open()
    live = alice.say("wait")["live"]
    id = call(alice.http, "hello").json()["event_id"]
    for path in (f"/gradio_api/call/chat/{id}", f"/gradio_api/queue/data?session_hash={alice.session}"):
        assert alice.http.head(path).status_code == 404
    assert alice.http.head("/magistral/live", headers={"X-Generation": live}).status_code == 404
    alice.act("turns/stop")
    until(lambda: not any(left_of(hasty)))


def test_nobody_fills_the_queue_for_others(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Alice's call is under way while Mallory posts all that is taken, with ever new cookies."""
    limits = replace(QUICK, replies_per_address=4, replies_in_all=8)
    with (
        serving(tmp_path_factory.mktemp("filled"), limits=limits) as served,
        httpx.Client(trust_env=False, timeout=60) as mallory,
    ):
        alice = served.browser().open()
        join(alice, "wait")
        with alice.http.stream("GET", f"/gradio_api/queue/data?session_hash={alice.session}") as stream:
            newest(served, 0)
            codes: list[int] = []
            while codes.count(429) < 3:
                forged = {"Cookie": f"magistral-ui-visit={len(codes):032}"}
                posted = mallory.post(served.url + "/gradio_api/call/chat", json={"data": ["wait"]}, headers=forged)
                codes.append(posted.status_code)
                assert len(codes) < 500
            assert set(codes) == {200, 429}
            lines = stream.iter_lines()
            assert any("process_generating" in line for line in lines)
            served.engine.generations[0].stop()
            assert any("process_completed" in line for line in lines)
        assert len(served.engine.requests) == 1


def test_only_one_s_own_call_can_be_cancelled(quick: Served) -> None:
    alice, mallory = quick.browser().open(), quick.browser().open()
    before = len(quick.engine.generations)
    event = join(alice, "wait")
    with alice.http.stream("GET", f"/gradio_api/queue/data?session_hash={alice.session}"):
        generation = newest(quick, before)
        body = {"event_id": event, "session_hash": mallory.session, "fn_index": quick.numbers["chat"]}
        assert mallory.http.post("/gradio_api/cancel", json=body).status_code == 404
        assert not generation.stop_requested
        mine = {**body, "session_hash": alice.session}
        assert alice.http.post("/gradio_api/cancel", json=mine).status_code == 200
        assert generation.wait(PATIENCE)


def test_the_calls_of_one_visitor_are_counted(hasty: Served) -> None:
    calls: QueuedCalls = hasty.page.calls
    visitor = hasty.browser().open()
    codes = [call(visitor.http, "wait").status_code for _ in range(QUICK.replies + 9)]
    assert (codes[0], codes[-1]) == (200, 429)
    refused = call(visitor.http, "wait")
    assert int(refused.headers["retry-after"]) > 0
    assert json.loads(refused.text)["detail"]
    until(lambda: not len(calls))
    assert call(visitor.http, "wait").status_code == 200
    until(lambda: not any(left_of(hasty)))
