"""The door for MCP clients at /mcp: closed to web pages, and opened by the first client; what is behind it is in mcp_tool.py.

Until then the mcp package, which is an extra, is neither imported nor run.
"""

import asyncio
import importlib
from importlib.metadata import PackageNotFoundError, version

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.i18n import text

PATH = "/mcp"
MAJOR = "2"
"""The mcp package's version that this is written for; the first knows other names."""


def mcp_route(visitors: Visitors) -> Route:
    """Where MCP clients come in."""
    return Route(PATH, McpDoor(visitors))


def is_installed() -> bool:
    """Whether the package is there, in a version that serves."""
    try:
        return version("mcp").split(".")[0] == MAJOR
    except PackageNotFoundError:
        return False


class McpDoor:
    """An ASGI app that starts the MCP server when it is first asked for; it ends with the event loop."""

    def __init__(self, visitors: Visitors) -> None:
        self._visitors = visitors
        self._opening = asyncio.Lock()
        self._server: ASGIApp | None = None
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        app = self._refusal(Headers(scope=scope)) or self._server or await self._open()
        await app(scope, receive, send)

    def _refusal(self, headers: Headers) -> Response | None:
        # A browser says where a request comes from and cannot be made not to: so no page, not even one whose name was
        # turned to this machine behind the browser's back, can use the visitor's own server.
        if "origin" in headers:
            return PlainTextResponse(text("program_mcp_from_page"), 403)
        if not is_installed():
            return PlainTextResponse(text("program_mcp_missing"), 501)
        return None

    async def _open(self) -> ASGIApp:
        async with self._opening:
            if self._server is None:
                tool = await asyncio.to_thread(importlib.import_module, "magistral_ui.ui.mcp_tool")
                opened: asyncio.Future[ASGIApp] = asyncio.get_running_loop().create_future()
                self._running = asyncio.create_task(tool.serve(self._visitors, opened))
                await asyncio.wait((self._running, opened), return_when=asyncio.FIRST_COMPLETED)
                if self._running.done():
                    await self._running  # raises why
                self._server = opened.result()
            return self._server
