"""Bounds how many requests come from one address, and how many are open at once; it does not know what they ask."""

import asyncio
import math
from collections import Counter
from dataclasses import dataclass, field
from math import ceil

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from magistral_ui.client import CLIENT
from magistral_ui.fairness import FairCache
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.token_buckets import TokenBuckets
from magistral_ui.web.error_responses import error_response
from magistral_ui.web.request_body import take_back_cancel

MAX_OPEN_PER_BROWSER = 48
"""Requests of one browser that are answered at once: a tab has up to three, a browser at most six connections anyway."""
MAX_OPEN_PER_ADDRESS = 1_500
"""The same of one address, and never more than there is room left: two get a third each, ten an eleventh."""
MAX_OPEN = 3_000


@dataclass(eq=False, slots=True)
class Sending:
    """A request whose body is not there yet."""

    address: str
    task: "asyncio.Task[object]"
    over: bool = False
    started: bool = False

    def end(self) -> None:
        """Wait for it no longer."""
        self.over = True
        self.task.cancel()


@dataclass(slots=True)
class Bodies:
    """The requests whose bodies are still coming, the oldest first: those that have to go for others where all room is taken."""

    app: ASGIApp
    _coming: FairCache[Sending, Sending] = field(default_factory=lambda: FairCache(math.inf, lambda each: each.address))

    def end_one(self) -> bool:
        """End the oldest of the address that has most; whether there was one."""
        if not self._coming:
            return False
        slowest, _ = self._coming.popitem()
        slowest.end()
        return True

    async def serve(self, address: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on that has a body."""
        task = asyncio.current_task()
        assert task is not None
        sending = Sending(address, task)
        self._coming[sending] = sending

        async def watched_receive() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                self._coming.pop(sending, None)
            return message

        async def watched_send(message: Message) -> None:
            sending.started = True
            await send(message)

        try:
            await self.app(scope, watched_receive, watched_send)
        except asyncio.CancelledError:
            if not sending.over:
                raise
            take_back_cancel(task)
            if not sending.started:
                await error_response(408, "request_slow")(scope, receive, send)
        finally:
            self._coming.pop(sending, None)


class RateLimitMiddleware:
    """Refuses politely, and says when to come back."""

    def __init__(self, app: ASGIApp, *, limits: Limits) -> None:
        self.app, self._bodies = app, Bodies(app)
        self._rate = TokenBuckets(limits.requests_per_minute_per_address)
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        caller = CLIENT.get()
        if wait := self._rate.take(caller.address):
            await error_response(429, "too_many_requests", wait=ceil(wait), seconds=ceil(wait))(scope, receive, send)
            return
        # A program without cookies is its address, which many may share.
        whole, own, browser = "", f"a {caller.address}", f"b {caller.browser}"
        free = MAX_OPEN - self._open[whole]
        crowded = self._open[own] >= min(MAX_OPEN_PER_ADDRESS, max(free, MAX_OPEN_PER_BROWSER))
        if crowded or (caller.browser and self._open[browser] >= self._of_browser(scope)):
            await error_response(503, "overloaded", wait=5)(scope, receive, send)
            return
        if free <= 0 and not self._bodies.end_one():
            await error_response(503, "overloaded", wait=5)(scope, receive, send)
            return
        names = (whole, own, browser)
        self._open.update(names)
        try:
            if _has_body(scope):
                await self._bodies.serve(caller.address, scope, receive, send)
            else:
                await self.app(scope, receive, send)
        finally:
            self._open.subtract(names)
            for name in [name for name in names if self._open[name] <= 0]:
                del self._open[name]

    def _of_browser(self, scope: Scope) -> int:
        has_cookie = any(name == b"cookie" for name, _ in scope["headers"])
        return MAX_OPEN_PER_BROWSER if has_cookie else MAX_OPEN_PER_ADDRESS


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )
