"""Serves the requests of those who are logged in, in their name, and ends unfinished answers when a login ends."""

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
"""Where a request says by which login its tab was opened, see assets/login.js; empty where people have no names."""
CHECK_INTERVAL = 10.0
"""Seconds between two checks whether a login has expired; the end of one by a click is told at once."""


@dataclass(frozen=True, slots=True)
class ActiveLogin:
    """The login by which a request is made."""

    login: str = ""
    """The hash of the name that owns what is theirs, see passwords.py; empty where people have no names."""
    key: str = ""
    """The hash of this browser's login; empty where each request brings its own password."""
    admin: bool = False
    """Whether the operator named it with `--admin`."""
    remaining: Callable[[], float] | None = None
    """The seconds until it expires if nothing else happens; None: it holds as long as the app runs."""

    @property
    def remaining_seconds(self) -> float:
        """How long until the next check, at most; 0.0 or less once it has expired."""
        return CHECK_INTERVAL if self.remaining is None else self.remaining()


@dataclass(eq=False, slots=True)
class OpenRequest:
    """A request that is being answered."""

    send: Send
    brief: bool = False
    """Whether it is an action of the page, which is done soon and must not be left half done."""
    cancelling: CancelScope = field(default_factory=CancelScope)
    ended: bool = False
    started: bool = False
    complete: bool = False
    is_stream: bool = False
    """Whether its answer is a stream of events, which is whole wherever it ends."""
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
    """The requests that are being answered, by their logins."""

    app: ASGIApp
    _open: dict[str, set[OpenRequest]] = field(default_factory=dict)

    async def serve(self, login: ActiveLogin, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. If its login ends first, so does the answer: a stream properly, anything else with an error.

        Not the page's own files, which are the same for everybody: half a script would break the page and stay in the cache.
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
        # Any other answer stays without its end, and the server closes the connection: nobody takes a part for the whole.


def _in_the_name_of(login: ActiveLogin, scope: Scope) -> Scope:
    """The request as the middleware behind this sees it: what belongs to a browser without names is its person's with them."""
    scope = {**scope, TAB: ""}
    if login.login:
        scope[TAB] = hashed(f"tab {login.login}")[:16]
        scope[CLIENT_KEY] = replace(CLIENT.get(), login=login.login, admin=login.admin, browser=hashed(login.login))
    return scope
