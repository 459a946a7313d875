"""Keeps the page shut until its doors stand before it: Gradio opens the port first, and puts its own layers outermost."""

from functools import reduce
from typing import Any

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from magistral_ui.web.error_responses import not_found

STARTUP_REQUEST = ("GET", "/gradio_api/startup-events")
"""What Gradio asks of itself before `launch` returns."""


class StartupGate:
    """Closed at first, inside; `open` puts the doors outside and lets requests through."""

    def __init__(self) -> None:
        self.is_open = False

    @property
    def middleware(self) -> Middleware:
        """For Gradio's app, before it serves."""
        return Middleware(_GateMiddleware, shutter=self)

    def open(self, app: Any, middleware: list[Middleware]) -> None:
        """Put `middleware`, the first one outermost, around all that `app` (a Starlette app that is running) does."""
        stack: ASGIApp = app.middleware_stack
        app.middleware_stack = reduce(
            lambda inner, door: door.cls(inner, *door.args, **door.kwargs), middleware[::-1], stack
        )
        self.is_open = True


class _GateMiddleware:
    def __init__(self, app: ASGIApp, *, shutter: StartupGate) -> None:
        self.app, self._shutter = app, shutter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on once the doors are there."""
        asked = (scope.get("method"), scope.get("path"))
        if self._shutter.is_open or scope["type"] != "http" or asked == STARTUP_REQUEST:
            await self.app(scope, receive, send)
        else:
            await not_found()(scope, receive, send)
