"""Serves the requests of logged-in clients in their name, and ends unfinished responses when a login ends."""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

from anyio import CancelScope
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from magistral_ui.client import CLIENT, hashed, serving
from magistral_ui.web.client_address import CLIENT_KEY
from magistral_ui.web.error_responses import error_response
from magistral_ui.web.request_guard import ACTIONS_PATH
from magistral_ui.web.security_headers import is_asset

TAB = "magistral.tab"
"""Key in the scope of the login with which the tab was opened, see assets/login.js; empty without names."""
CHECK_INTERVAL = 10.0
"""Seconds between two checks whether a login has expired; logging out takes effect at once."""


@dataclass(frozen=True, slots=True)
class ActiveLogin:
    """The login of a request."""

    login: str = ""
    """The owner of the conversations: a hash of the name, see passwords.py; empty without names."""
    key: str = ""
    """A hash of this browser's session; empty if each request brings its own password."""
    admin: bool = False
    """Whether the operator named it with `--admin`."""
    remaining: Callable[[], float] | None = None
    """The seconds until it expires if there are no more requests; None: it is valid as long as the app runs."""

    @property
    def remaining_seconds(self) -> float:
        """At most how long until the next check; 0.0 or less if it has expired."""
        return CHECK_INTERVAL if self.remaining is None else self.remaining()


@dataclass(eq=False, slots=True)
class OpenRequest:
    """A request that is being served."""

    send: Send
    brief: bool = False
    """Whether it is an action of the page, which is short and must not be interrupted halfway."""
    cancelling: CancelScope = field(default_factory=CancelScope)
    ended: bool = False
    started: bool = False
    complete: bool = False
    is_stream: bool = False
    """Whether its response is a stream of events, which may end anywhere."""
    timer: asyncio.TimerHandle | None = None

    def end(self) -> None:
        if not self.ended and not self.complete:
            self.ended = True
            if not self.brief:
                self.cancelling.cancel()

    def end_with(self, login: ActiveLogin) -> None:
        if (seconds := login.remaining_seconds) > 0:
            loop = asyncio.get_running_loop()
            self.timer = loop.call_later(min(seconds, CHECK_INTERVAL), self.end_with, login)
        else:
            self.end()

    async def pass_on(self, message: Message) -> None:
        if self.ended:
            return
        if message["type"] == "http.response.start":
            self.started = True
            self.is_stream = Headers(raw=message["headers"]).get("content-type", "").startswith("text/event-stream")
        elif message["type"] == "http.response.body":
            self.complete = not message.get("more_body", False)
        await self.send(message)


@dataclass(slots=True)
class OpenRequests:
    """The requests that are being served, by login."""

    app: ASGIApp
    _open: dict[str, set[OpenRequest]] = field(default_factory=dict)

    async def serve(self, login: ActiveLogin, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request. If its login ends first, so does the response: a stream properly, anything else with an error.

        The page's own files, which are the same for everybody, are excepted: half a script would stay in the browser's cache.
        """
        scope = _in_the_name_of(login, scope)
        with serving(scope[CLIENT_KEY]) if login.login else nullcontext():
            if login.key and not is_asset(scope["path"]):
                request = OpenRequest(send, brief=scope["path"].startswith(ACTIONS_PATH))
                await self._serve_until_end(login, request, scope, receive)
            else:
                await self.app(scope, receive, send)

    def end(self, key: str) -> None:
        for request in tuple(self._open.get(key, ())):
            request.end()

    async def _serve_until_end(self, login: ActiveLogin, request: OpenRequest, scope: Scope, receive: Receive) -> None:
        self._open.setdefault(login.key, set()).add(request)
        request.end_with(login)
        try:
            with request.cancelling:
                await self.app(scope, receive, request.pass_on)
        finally:
            if request.timer is not None:
                request.timer.cancel()
            self._open[login.key].discard(request)
            if not self._open[login.key]:
                del self._open[login.key]
        if not request.ended:
            return
        if not request.started:
            await error_response(401, "login_needed")(scope, receive, request.send)
        elif request.is_stream and not request.complete:
            await request.send({"type": "http.response.body", "body": b"", "more_body": False})
        # Any other response is left unfinished and the server closes the connection, so that a part is not taken for the whole.


def _in_the_name_of(login: ActiveLogin, scope: Scope) -> Scope:
    """The request as the inner layers see it: with names, conversations belong to the person and not to the browser."""
    scope = {**scope, TAB: ""}
    if login.login:
        scope[TAB] = hashed(f"tab {login.login}")[:16]
        scope[CLIENT_KEY] = replace(CLIENT.get(), login=login.login, admin=login.admin, browser=hashed(login.login))
    return scope
