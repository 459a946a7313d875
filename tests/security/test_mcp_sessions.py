"""Sessions of MCP clients: nobody fills them for others, uses those of others, or leaves anything behind."""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from magistral_ui.engines.generation import Generation
from tests.security.conftest import ROOMY, Served, serving
from tests.security.test_slow_readers import PATIENCE, newest, until

HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}},
}
SESSION = "mcp-session-id"
FEW = replace(ROOMY, visitors=10)


@contextmanager
def client(served: Served, **headers: str) -> Iterator[httpx.Client]:
    sent = {**HEADERS, **headers}
    with httpx.Client(base_url=served.url, headers=sent, trust_env=False, timeout=PATIENCE) as http:
        yield http


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page on which people have names, and all come from one address."""
    with serving(tmp_path_factory.mktemp("named"), passwords={"alice": "right horse", "bob": "other horse"}) as served:
        yield served


def begin(http: httpx.Client) -> str:
    answer = http.post("/mcp", json=HELLO)
    assert answer.status_code == 200, answer.text
    return answer.headers[SESSION]


def asking(question: str, id: int = 2) -> dict[str, Any]:
    params = {"name": "ask_magistral", "arguments": {"question": question}}
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}


def cancelling(id: int = 2) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}


@contextmanager
def running(served: Served, http: httpx.Client, session: str) -> Iterator[Generation]:
    """A call that is under way in that session."""
    before = len(served.engine.generations)
    with http.stream("POST", "/mcp", json=asking("wait"), headers={SESSION: session}):
        generation = newest(served, before)
        yield generation
        generation.stop()


def test_nobody_keeps_newcomers_out_by_beginning_and_leaving(tmp_path: Path) -> None:
    with serving(tmp_path, limits=FEW) as page, client(page) as mallory, client(page) as alice:
        first = begin(alice)
        for _ in range(5 * FEW.visitors):
            begin(mallory)
        begin(alice)
        answer = alice.post("/mcp", json=asking("hello"), headers={SESSION: first})
        assert answer.status_code == 200
        assert "you said hello" in answer.text


def test_what_is_begun_leaves_nothing(page: Served) -> None:
    """Tasks and streams are counted by the garbage collector, which sees those of every thread."""

    def tasks() -> int:
        gc.collect()
        # By their true type: what merely stands for something else, as parts of torch do, is asked nothing.
        return sum(issubclass(type(each), asyncio.Task) and not each.done() for each in gc.get_objects())

    with client(page) as http:
        begin(http)
        before = tasks()
        for number in range(30):
            session = begin(http)
            if number % 2:
                assert http.delete("/mcp", headers={SESSION: session}).status_code == 200
        until(lambda: tasks() <= before + 5)


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
def test_a_session_is_nothing_to_a_stranger(locked: Served, method: str) -> None:
    """Everybody has the same password here; what tells them apart is the address that the proxy names."""
    proxied = {"Host": "chat.example.org", "X-Forwarded-Proto": "https", "Authorization": "Bearer right horse"}
    with (
        client(locked, **proxied, **{"X-Forwarded-For": "93.184.216.5"}) as alice,
        client(locked, **proxied, **{"X-Forwarded-For": "93.184.216.6"}) as mallory,
    ):
        session = begin(alice)
        body = asking("hello") if method == "POST" else None
        stolen = mallory.request(method, "/mcp", json=body, headers={SESSION: session})
        unknown = mallory.request(method, "/mcp", json=body, headers={SESSION: "0" * 96})
        assert stolen.status_code == unknown.status_code == 404
        assert stolen.content == unknown.content
        assert "you said hello" in alice.post("/mcp", json=asking("hello"), headers={SESSION: session}).text


def test_a_session_belongs_to_its_login(named: Served) -> None:
    with client(named) as alice, client(named) as bob:
        alice.auth, bob.auth = ("alice", "right horse"), ("bob", "other horse")
        session = begin(alice)
        assert bob.post("/mcp", json=asking("hello"), headers={SESSION: session}).status_code == 404
        assert bob.delete("/mcp", headers={SESSION: session}).status_code == 404
        with running(named, alice, session) as generation:
            assert bob.post("/mcp", json=cancelling(), headers={SESSION: session}).status_code == 404
            bob.post("/mcp", json=cancelling(), headers={SESSION: begin(bob)})
            bob.post("/mcp", json=cancelling())
            assert not generation.stop_requested
            assert alice.post("/mcp", json=cancelling(), headers={SESSION: session}).status_code == 202
            assert generation.wait(PATIENCE)


def test_an_ended_session_is_over_and_so_is_what_runs_in_it(page: Served) -> None:
    with client(page) as alice, client(page) as other_line:
        session = begin(alice)
        with running(page, alice, session) as generation:
            assert other_line.delete("/mcp", headers={SESSION: session}).status_code == 200
            assert generation.wait(PATIENCE)
        assert generation.stop_requested
        assert alice.post("/mcp", json=asking("hello"), headers={SESSION: session}).status_code == 404


def test_a_dropped_call_ends(page: Served) -> None:
    with client(page) as alice:
        before = len(page.engine.generations)
        with alice.stream("POST", "/mcp", json=asking("wait"), headers={SESSION: begin(alice)}):
            generation = newest(page, before)
            assert not generation.stop_requested
        assert generation.wait(PATIENCE)
        assert generation.stop_requested


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS", "DELETE"])
def test_there_is_no_stream_to_hold_open(page: Served, method: str) -> None:
    with client(page) as http:
        answer = http.request(method, "/mcp", headers={SESSION: begin(http)} if method == "GET" else {})
        assert answer.status_code in (404, 405)


@pytest.mark.parametrize("body", [[HELLO, asking("hello")], [HELLO] * 1_000, [], "initialize", 1, None])
def test_many_messages_at_once_are_refused(page: Served, body: object) -> None:
    before = len(page.engine.requests)
    with client(page) as http:
        assert http.post("/mcp", json=body).status_code == 400
    assert len(page.engine.requests) == before


def test_headers_are_bounded(page: Served) -> None:
    with client(page) as http, suppress(httpx.TransportError):  # or the connection is closed while they are sent
        assert http.post("/mcp", json=HELLO, headers={SESSION: "a" * 1_000_000}).status_code == 400
