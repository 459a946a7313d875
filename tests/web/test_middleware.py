"""The middleware alone, without a page behind it: what it counts, remembers and reads."""

import asyncio
import html
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from magistral_ui.client import CLIENT, Client
from magistral_ui.sessions.limits import SHARED
from magistral_ui.web import uploads
from magistral_ui.web.client_address import read_cookie
from magistral_ui.web.error_responses import not_found
from magistral_ui.web.login import LoginMiddleware
from magistral_ui.web.passwords import FREE_TRIES as TRIES
from magistral_ui.web.passwords import LoginAttempts, Passwords
from magistral_ui.web.request_body import bounded, read_json
from magistral_ui.web.request_guard import OwnRoutesMiddleware
from magistral_ui.web.uploads import Ownership

SECRET = "s" * 43


@pytest.mark.parametrize(
    "line",
    [
        'prefs={"theme": "dark"}; ours=' + SECRET,
        "ours=" + SECRET + "; odd=é\x80; =; ;;",
        "ours=short; ours=" + SECRET,
        f'ours="quoted"; x=a b c; ours={SECRET} ',
    ],
)
def test_a_cookie_is_found_beside_any_that_others_have_set(line: str) -> None:
    assert read_cookie(Headers(raw=[(b"cookie", line.encode("latin-1"))]), "ours") == SECRET


@pytest.mark.parametrize(
    "line", ["", "ours=", "ours=short", "ours=" + "s" * 129, "yours=" + SECRET, "ours=" + "é" * 20]
)
def test_what_is_no_cookie_of_ours_is_none(line: str) -> None:
    assert read_cookie(Headers(raw=[(b"cookie", line.encode("latin-1"))]), "ours") == ""


def test_guesses_that_come_all_at_once_are_counted_one_by_one() -> None:
    attack = 4 * TRIES

    async def statuses() -> list[int]:
        held, waiting = asyncio.Event(), 0

        async def body() -> AsyncIterator[bytes]:
            nonlocal waiting
            waiting += 1
            await held.wait()
            yield b"password=wrong"

        login = LoginMiddleware(not_found(), passwords=Passwords({"": "right horse"}), limits=SHARED)
        transport = httpx.ASGITransport(login)
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
            posts = [asyncio.create_task(client.post("/login", content=body())) for _ in range(attack)]
            while waiting < attack:  # until all have been let in
                await asyncio.sleep(0)
            held.set()
            return [answer.status_code for answer in await asyncio.gather(*posts)]

    found = asyncio.run(statuses())
    assert found.count(401) == TRIES
    assert found.count(429) == attack - TRIES


def test_the_form_keeps_the_name_as_text_and_tells_a_long_wait_in_minutes() -> None:
    now, typed = 0.0, 'Zoë "><b>{{button}}'

    async def answers() -> list[tuple[int, str]]:
        nonlocal now
        people = Passwords({"Zoë": "right horse"})
        login = LoginMiddleware(not_found(), passwords=people, limits=SHARED, attempts=LoginAttempts(lambda: now))
        found = []
        transport, headers = httpx.ASGITransport(login), {"Accept": "text/html"}
        async with httpx.AsyncClient(transport=transport, base_url="http://page", headers=headers) as client:
            for wait in (*[0] * TRIES, 30, 60, 0):
                now += wait
                answer = await client.post("/login", data={"username": typed, "password": "wrong"})
                found.append((answer.status_code, answer.text))
        return found

    *wrong, (refused, told) = asyncio.run(answers())
    assert [status for status, _ in wrong] == [401] * len(wrong)
    assert refused == 429
    assert "in 2 min" in told
    shown = re.search(r'<input name="username" value="([^"<>]*)"', told)
    assert shown is not None
    assert html.unescape(shown[1]) == typed
    assert told.index("autofocus") > told.index('name="password"'), "one writes where something is missing"


def test_signing_out_ends_streams_cuts_files_and_leaves_the_page_s_own(caplog: pytest.LogCaptureFixture) -> None:
    """All come in pieces without a length. A stream of events is whole wherever it ends; of a file, somebody would take the
    part for all of it, so its connection breaks; and half a script would break the page."""
    caplog.set_level("CRITICAL", "uvicorn.error")  # it says that the file's answer was not completed
    kinds = {
        "/magistral/live": "text/event-stream; charset=utf-8",
        "/magistral/export": "application/json",
        "/gradio_api/file=picture.png": "image/png",
        "/assets/index.js": "text/javascript",
        "/magistral/page.js": "text/javascript",
    }

    async def found() -> list[bytes | BaseException]:
        began, going_on = asyncio.Semaphore(0), asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            kind = (b"content-type", kinds[scope["path"]].encode())
            await send({"type": "http.response.start", "status": 200, "headers": [kind]})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            began.release()
            await going_on.wait()
            await send({"type": "http.response.body", "body": b", last"})

        login = LoginMiddleware(app, passwords=Passwords({"": "right horse"}), limits=SHARED)
        async with served(login) as url, httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
            await client.post("/login", data={"password": "right horse"})
            asked = [asyncio.create_task(client.get(path)) for path in kinds]
            for _ in kinds:
                await began.acquire()
            await client.post("/logout")
            going_on.set()
            answers = await asyncio.gather(*asked, return_exceptions=True)
            return [each.content if isinstance(each, httpx.Response) else each for each in answers]

    stream, export, file, *own = asyncio.run(found())
    assert stream == b"first"
    assert [type(each) for each in (export, file)] == [httpx.RemoteProtocolError] * 2, "incomplete"
    assert own == [b"first, last"] * 2


def test_the_page_s_own_routes_never_reach_what_is_behind_them() -> None:
    async def mine(request: Request) -> Response:
        return PlainTextResponse(request.path_params["name"])

    async def found() -> list[tuple[int, str]]:
        app = OwnRoutesMiddleware(not_found(), routes=[Route("/own/{name}", mine, methods=["POST"])])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://page") as client:
            answers = await client.post("/own/thing"), await client.get("/own/thing"), await client.post("/other")
            return [(answer.status_code, answer.text) for answer in answers]

    assert asyncio.run(found()) == [(200, "thing"), (404, "Not Found"), (404, "Not Found")]


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[str]:
    """`app` on the server that the page has, in this event loop; its address."""
    config = uvicorn.Config(app, http="h11", ws="none", lifespan="off", log_config=None)
    server = await asyncio.get_running_loop().create_server(
        lambda: H11Protocol(config, ServerState(), {}), "127.0.0.1", 0
    )
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    "body",
    [b"[" + b"0," * 20 + b"0]", b'{"a":[[],[],[],[],[],[],[],[],[],[],[]]}', b"[" + b"[]," * 1_000_000 + b"0]"],
    ids=["flat", "nested", "not even parsed"],
)
def test_json_of_more_values_than_allowed_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="too many values"):
        read_json(body, values=11)


def test_json_of_as_many_values_as_allowed_is_read_whatever_signs_its_texts_have() -> None:
    assert read_json(b'{"a":["' + b"[,{" * 1_000 + b'",2,3]}', values=4) == {"a": ["[,{" * 1_000, 2, 3]}


def test_only_so_many_browsers_own_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_OWNERS", 3)
    held = Ownership()

    def as_browser(name: str, share: bool) -> bool:
        token = CLIENT.set(Client(browser=name))
        try:
            if share:
                held.share("file", "/a.png")
            return held.owns("file", "/a.png")
        finally:
            CLIENT.reset(token)

    for name in "abcab":
        assert as_browser(name, share=True)
    assert as_browser("d", share=True)
    assert [name for name in "abcd" if as_browser(name, share=False)] == ["a", "b", "d"]


@pytest.mark.parametrize("ticks", range(6))
def test_who_is_cancelled_while_a_piece_comes_is_cancelled(ticks: int) -> None:
    """Whenever that is: up to Python 3.11, asyncio.wait_for forgets it where the piece has just come."""

    async def cancelled() -> bool:
        come = asyncio.get_running_loop().create_future()

        async def receive() -> Message:
            await come
            return {"type": "http.request", "body": b"a", "more_body": True}

        async def read() -> None:
            pieces = bounded(receive, 10)
            await pieces()
            await asyncio.Event().wait()

        reading = asyncio.create_task(read())
        for _ in range(4):
            await asyncio.sleep(0)
        come.set_result(None)
        for _ in range(ticks):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait({reading}, timeout=10)
        return reading.cancelled()

    assert asyncio.run(cancelled())
