"""Serves those who have come in, by their name, and only as long as their login holds: then it ends what is not answered yet."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from magistral_ui.client import CLIENT
from magistral_ui.web.client_address import CLIENT_KEY
from magistral_ui.web.error_responses import error_response
from magistral_ui.web.request_body import take_back_cancel
from magistral_ui.web.security_headers import is_asset

TAB = "magistral.tab"
"""Where a request says by which login its tab came, see assets/login.js; nothing where there is none."""

USER_KEY = "magistral.user"
PAGE_PATH = "/gradio_api/run/predict"
CHECK_INTERVAL = 10.0
"""Seconds between two looks whether the login still holds: of those that end by a click, the click tells."""


@dataclass(frozen=True, slots=True)
class ActiveLogin:
    """Somebody who is in."""

    name: str
    login: str = ""
    """What stands for their name wherever something is theirs, see sessions/login_names.py; empty where people have no names."""
    key: str = ""
    """What stands for this login, of this browser; empty where each request brings its own password."""
    remaining: Callable[[], float] | None = None
    """Asks for how many seconds more it holds if nothing else happens; None: as long as the app runs."""


@dataclass(eq=False, slots=True)
class Request:
    """One that is being answered."""

    task: "asyncio.Task[object]"
    send: Send
    brief: bool = False
    """Whether it is an event of the page: that is done soon, and not left half done."""
    over: bool = False
    started: bool = False
    complete: bool = False
    is_stream: bool = False
    """Whether its answer is a stream of events, which is whole wherever it ends."""

    def end(self) -> None:
        """Let it go no further."""
        if not self.over and not self.complete:
            self.over = True
            if not self.brief:
                self.task.cancel()

    async def pass_on(self, message: Message) -> None:
        """Hand on what is answered, until it is over."""
        if self.over:
            return
        if message["type"] == "http.response.start":
            self.started = True
            self.is_stream = Headers(raw=message["headers"]).get("content-type", "").startswith("text/event-stream")
        elif message["type"] == "http.response.body":
            self.complete = not message.get("more_body", False)
        await self.send(message)


@dataclass(slots=True)
class ActiveLogins:
    """All requests of those who are in, by their logins."""

    app: ASGIApp
    _open: dict[str, set[Request]] = field(default_factory=dict)

    async def serve(self, entered: ActiveLogin, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. When its login ends first, it ends too: a stream here, a file on its way with an error.

        Not the page's own files, which are the same for everybody: half a script would break the page, and stay in the cache.
        """
        scope = _named(scope, entered)
        known = CLIENT.set(scope[CLIENT_KEY]) if entered.login else None
        try:
            if entered.key and not is_asset(scope["path"]) and (task := asyncio.current_task()):
                request = Request(task, send, brief=scope["path"].rstrip("/") == PAGE_PATH)
                await self._serve_while_in(entered, request, scope, receive)
            else:
                await self.app(scope, receive, send)
        finally:
            if known is not None:
                CLIENT.reset(known)

    def end(self, key: str) -> None:
        """A login is over."""
        for request in tuple(self._open.get(key, ())):
            request.end()

    async def _serve_while_in(self, entered: ActiveLogin, request: Request, scope: Scope, receive: Receive) -> None:
        self._open.setdefault(entered.key, set()).add(request)
        watch = Watch(entered, request)
        try:
            await self.app(scope, receive, request.pass_on)
        except asyncio.CancelledError:
            if not request.over:
                raise
            take_back_cancel(request.task)
        finally:
            watch.stop()
            self._open[entered.key].discard(request)
            if not self._open[entered.key]:
                del self._open[entered.key]
        if not request.over:
            return
        if not request.started:
            await error_response(401, "login_needed")(scope, receive, request.send)
        elif request.is_stream and not request.complete:
            await request.send({"type": "http.response.body", "body": b"", "more_body": False})
        # Any other answer stays without its end, and the server closes the connection: nobody takes a part for the whole.


class Watch:
    """Ends a request with its login, where that ends by itself."""

    def __init__(self, entered: ActiveLogin, request: Request) -> None:
        self._entered, self._request = entered, request
        self._timer: asyncio.TimerHandle | None = None
        self._wait(CHECK_INTERVAL if entered.remaining is None else entered.remaining())

    def stop(self) -> None:
        """It is answered."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(min(seconds, CHECK_INTERVAL), self._look)

    def _look(self) -> None:
        left = CHECK_INTERVAL if self._entered.remaining is None else self._entered.remaining()
        if left > 0:
            self._wait(left)
        else:
            self._request.end()


def _named(scope: Scope, entered: ActiveLogin) -> Scope:
    """The request as those further in see it: what is a browser's without names is its person's with them."""
    scope = {**scope, USER_KEY: entered.name, TAB: ""}
    if entered.login:
        scope[TAB] = hashlib.sha256(f"tab {entered.login}".encode()).hexdigest()[:16]
        browser = hashlib.sha256(entered.login.encode()).hexdigest()
        scope[CLIENT_KEY] = replace(CLIENT.get(), login=entered.login, browser=browser)
    return scope
