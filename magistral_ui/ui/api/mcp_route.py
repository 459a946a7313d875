"""The route /mcp for MCP clients, closed to web pages, and their sessions; the server itself is in mcp_server.py.

The first client starts it: until then the mcp package, an extra, is not imported.
"""

import asyncio
import hmac
import importlib
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from cachetools import LRUCache
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from magistral_ui.engines.generation import Generation
from magistral_ui.i18n.texts import text
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.web.client_address import client_of
from magistral_ui.web.error_responses import not_found
from magistral_ui.web.request_body import MAX_MCP_BYTES, ClientGone, read_body, replayed
from magistral_ui.web.request_guard import MCP_PATH

MAX_ENDED = 10_000
"""Ended ids to remember; a forgotten id works again, but only for its own client."""
RequestId = str | int
MCP_MAJOR_VERSION = "2"
"""The major version of the mcp package that this is written for; version 1 has a different API."""
SESSION = "mcp-session-id"
CONTROL_BYTES = 16_384
"""Bytes of a message that begins a session or cancels a call; a longer one is a question, and is not parsed here."""


@dataclass(slots=True)
class RunningCall:
    """A tool call, and the generation that it waits for, once there is one."""

    cancelled: bool = False
    generation: Generation | None = None

    def cancel(self) -> None:
        self.cancelled = True
        if self.generation is not None:
            self.generation.stop()


class McpSessions:
    """The sessions of one process, in one event loop. An id contains a proof of its owner, so only running calls are stored."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._calls: dict[tuple[str, RequestId], RunningCall] = {}
        self._ended: LRUCache[str, None] = LRUCache(MAX_ENDED)

    def begin(self, owner: str) -> str:
        """The id of a new session: 128 random bits and a proof that it is the owner's."""
        nonce = secrets.token_hex(16)
        return nonce + self._proof(nonce, owner)

    def belongs(self, session: str, owner: str) -> bool:
        nonce, proof = session[:32], session[32:]
        right = hmac.compare_digest(proof.encode("utf-8", "replace"), self._proof(nonce, owner).encode())
        return right and session not in self._ended

    def end(self, session: str) -> None:
        """End the session and cancel its calls; from now on, it belongs to nobody."""
        for (of, _), call in list(self._calls.items()):
            if of == session:
                call.cancel()
        self._ended[session] = None

    @contextmanager
    def call(self, session: str | None, request: RequestId | None) -> Iterator[RunningCall]:
        """A call that runs within the `with` block, and can be cancelled by its id if it has a session."""
        running = RunningCall()
        if session is None or request is None:
            yield running
            return
        key = (session, request)
        self._calls[key] = running
        try:
            yield running
        finally:
            if self._calls.get(key) is running:
                del self._calls[key]

    def cancel(self, session: str, request: object) -> None:
        if isinstance(request, str | int) and (call := self._calls.get((session, request))):
            call.cancel()

    def __len__(self) -> int:
        return len(self._calls)

    def _proof(self, nonce: str, owner: str) -> str:
        return hmac.new(self._key, f"{nonce} {owner}".encode("utf-8", "replace"), "sha256").hexdigest()


def mcp_route(visitors: Visitors) -> Route:
    return Route(MCP_PATH, McpApp(visitors))


def is_installed() -> bool:
    """Whether the mcp package is installed in a version that works here."""
    try:
        return version("mcp").split(".")[0] == MCP_MAJOR_VERSION
    except PackageNotFoundError:
        return False


class McpApp:
    """An ASGI app that starts the MCP server with the first request; it ends with the event loop."""

    def __init__(self, visitors: Visitors) -> None:
        self._visitors, self._sessions = visitors, McpSessions()
        self._opening = asyncio.Lock()
        self._server: ASGIApp | None = None
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, owner = Headers(scope=scope), session_owner(scope)
        session = headers.get(SESSION)
        if refusal := self._refusal(headers):
            await refusal(scope, receive, send)
        elif session is not None and not self._sessions.belongs(session, owner):
            await not_found()(scope, receive, send)  # makes the client begin a new session
        elif scope["method"] == "POST":
            await self._post(scope, receive, send, session, owner)
        elif scope["method"] == "DELETE" and session is not None:
            self._sessions.end(session)
            await Response()(scope, receive, send)
        else:  # the server sends nothing but replies, so there is no stream to open
            await Response(status_code=405, headers={"Allow": "POST, DELETE"})(scope, receive, send)

    async def _post(self, scope: Scope, receive: Receive, send: Send, session: str | None, owner: str) -> None:
        """Pass a message on. The server treats each one separately; sessions and cancelling, which connect them, are here."""
        try:
            body = await read_body(scope, receive, MAX_MCP_BYTES)
        except ClientGone:
            return
        message = control_in(body)
        if message.get("method") == "initialize":
            send = _naming(send, self._sessions.begin(owner))
        elif message.get("method") == "notifications/cancelled" and session is not None:
            params = message.get("params")
            self._sessions.cancel(session, params.get("requestId") if isinstance(params, dict) else None)
        app = self._server or await self._open()
        await app(scope, replayed(body, receive), send)

    def _refusal(self, headers: Headers) -> Response | None:
        # A browser always sends Origin with such a request, so no web page can use the visitor's own server, not even
        # by DNS rebinding.
        if "origin" in headers:
            return PlainTextResponse(text("program_mcp_from_page"), 403)
        if not is_installed():
            return PlainTextResponse(text("program_mcp_missing"), 501)
        return None

    async def _open(self) -> ASGIApp:
        async with self._opening:
            if self._server is None:
                tool = await asyncio.to_thread(importlib.import_module, "magistral_ui.ui.api.mcp_server")
                opened: asyncio.Future[ASGIApp] = asyncio.get_running_loop().create_future()
                self._running = asyncio.create_task(tool.serve(self._visitors, self._sessions, opened))
                await asyncio.wait((self._running, opened), return_when=asyncio.FIRST_COMPLETED)
                if self._running.done():
                    await self._running  # raises the reason
                self._server = opened.result()
            return self._server


def session_owner(scope: Scope) -> str:
    """Who owns a session: the login, or else the browser or address."""
    caller = client_of(scope)
    return f"login {caller.login}" if caller.login else f"browser {caller.browser}"


def control_in(body: bytes) -> dict[str, object]:
    if len(body) > CONTROL_BYTES:
        return {}
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):  # the server reports the error
        return {}
    return message if isinstance(message, dict) else {}


def _naming(send: Send, session: str) -> Send:

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            MutableHeaders(scope=message)[SESSION] = session
        await send(message)

    return named
