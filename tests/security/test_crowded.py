"""Requests that never end take no more than a share of the room, and what is slow to come makes room for what is there."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from magistral_ui.client import Client, serving
from magistral_ui.sessions.limits import Limits
from magistral_ui.web import rate_limit
from magistral_ui.web.rate_limit import RateLimitMiddleware
from magistral_ui.web.request_body import read_body
from tests.security.conftest import Served

Statuses = list[int]


class Crowd:
    """Requests to the middleware: those with a body that never comes, those that are answered at once, and streams."""

    def __init__(self) -> None:
        self.middleware = RateLimitMiddleware(self._answer, limits=Limits())
        self.hung: list[asyncio.Task[int]] = []

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/stream":
            await asyncio.Event().wait()
        await read_body(scope, receive, 100)
        await PlainTextResponse("in")(scope, receive, send)

    async def ask(self, address: str, path: str = "/", *, hangs: bool = False) -> int:
        seen: list[Message] = []

        async def receive() -> Message:
            if hangs:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": b"x", "more_body": False}

        async def send(message: Message) -> None:
            seen.append(message)

        scope = {"type": "http", "method": "POST", "path": path, "headers": [(b"content-length", b"1")]}
        if path == "/stream":
            scope["headers"] = []
        with serving(Client(address, browser=address)):
            await self.middleware(scope, receive, send)
        return int(seen[0]["status"])

    async def hang(self, address: str, path: str = "/") -> None:
        self.hung.append(asyncio.create_task(self.ask(address, path, hangs=True)))
        await asyncio.sleep(0)

    @property
    def waiting(self) -> int:
        return sum(not each.done() for each in self.hung)

    async def refused(self) -> Statuses:
        """What became of those that are over, once all have had their turn."""
        for _ in range(20):
            await asyncio.sleep(0)
        return [each.result() for each in self.hung if each.done()]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the room, so that all of it is soon taken."""
    for name in ("MAX_OPEN", "MAX_OPEN_PER_ADDRESS", "MAX_OPEN_PER_BROWSER"):
        monkeypatch.setattr(rate_limit, name, getattr(rate_limit, name) // 10)


def crowd(tried: Callable[[Crowd], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        among = Crowd()
        try:
            await tried(among)
        finally:
            for each in among.hung:
                each.cancel()
            await asyncio.gather(*among.hung, return_exceptions=True)

    asyncio.run(run())


@pytest.mark.parametrize("addresses", [1, 2, 3, 10])
@pytest.mark.parametrize("path", ["/", "/stream"])
def test_a_few_addresses_leave_room_for_others(addresses: int, path: str) -> None:
    """Two were enough to take all of it, with bodies that do not come or with streams."""

    async def tried(among: Crowd) -> None:
        for number in range(rate_limit.MAX_OPEN):
            await among.hang(f"192.0.2.{number % addresses}", path)
        assert among.waiting <= rate_limit.MAX_OPEN * addresses // (addresses + 1) + addresses
        assert set(await among.refused()) == {503}
        assert await among.ask("198.51.100.1") == 200
        for _ in range(rate_limit.MAX_OPEN_PER_BROWSER):
            await among.hang("198.51.100.1", "/stream")
        assert await among.ask("198.51.100.2") == 200

    crowd(tried)


def test_as_many_addresses_as_there_is_room_with_bodies_that_never_come_keep_nobody_out() -> None:
    async def tried(among: Crowd) -> None:
        await among.hang("198.51.100.1", "/stream")
        for number in range(2 * rate_limit.MAX_OPEN):
            await among.hang(f"address {number}")
        assert set(await among.refused()) == {408}
        assert among.waiting <= rate_limit.MAX_OPEN
        assert await among.ask("198.51.100.1") == 200, "whoever is in goes on"
        assert await among.ask("198.51.100.2") == 200, "and whoever is new comes in"
        assert not among.hung[0].done(), "what is no slow body stays"

    crowd(tried)


def test_the_slow_bodies_of_whoever_has_most_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MAX_OPEN", 20)
    monkeypatch.setattr(rate_limit, "MAX_OPEN_PER_BROWSER", 15)

    async def tried(among: Crowd) -> None:
        await among.hang("a slow line")
        for _ in range(15):
            await among.hang("an attacker")
        for number in range(10):
            await among.hang(f"somebody {number}", "/stream")
        assert await among.refused() == [408] * 6
        assert not among.hung[0].done()

    crowd(tried)


def test_nothing_turns_a_connection_into_one_that_is_not_watched(page: Served) -> None:
    """Where a library for WebSockets is installed, uvicorn hands such a connection over, and it would be counted for ever."""
    assert page.page.server.config.ws == "none"
