"""Rate limits: requests per address, open requests, and uploaded bytes per address and hour; it does not read the requests."""

import math
from collections import Counter
from dataclasses import dataclass, field
from math import ceil

from anyio import CancelScope
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from magistral_ui.client import CLIENT
from magistral_ui.fairness import FairCache, TokenBuckets
from magistral_ui.sessions.limits import Limits
from magistral_ui.web.error_responses import error_response

MAX_OPEN_PER_BROWSER = 48
"""Open requests of one browser: a tab has up to three, and a browser opens at most six connections per host anyway."""
MAX_OPEN_PER_ADDRESS = 1_500
"""The same for one address, which also gets no more than is still free: two addresses get a third each, ten an eleventh."""
MAX_OPEN = 3_000
RETRY_AFTER_SECONDS = 5


@dataclass(eq=False, slots=True)
class IncomingBody:
    """A request whose body has not arrived completely."""

    address: str
    cancelling: CancelScope = field(default_factory=CancelScope)
    answered: bool = False


@dataclass(slots=True)
class IncomingBodies:
    """The requests whose bodies are still arriving, the oldest first: if all places are taken, they make room for others."""

    app: ASGIApp
    _coming: FairCache[IncomingBody, IncomingBody] = field(
        default_factory=lambda: FairCache(math.inf, lambda each: each.address)
    )

    def end_one(self) -> bool:
        """End the oldest one of the address that has most; returns whether there was one."""
        if not self._coming:
            return False
        slowest, _ = self._coming.popitem()
        slowest.cancelling.cancel()
        return True

    async def serve(self, address: str, scope: Scope, receive: Receive, send: Send) -> None:
        body = IncomingBody(address)
        self._coming[body] = body

        async def watched_receive() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                self._coming.pop(body, None)
            return message

        async def watched_send(message: Message) -> None:
            body.answered = True
            await send(message)

        try:
            with body.cancelling:
                await self.app(scope, watched_receive, watched_send)
        finally:
            self._coming.pop(body, None)
        if body.cancelling.cancelled_caught and not body.answered:
            await error_response(408, "request_slow")(scope, receive, send)


class RateLimitMiddleware:
    """Refuses requests of an address or browser that makes too many, and says when to retry."""

    def __init__(self, app: ASGIApp, *, limits: Limits) -> None:
        self.app, self._bodies = app, IncomingBodies(app)
        self._rate = TokenBuckets(limits.requests_per_minute_per_address)
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = CLIENT.get()
        if wait := self._rate.take(client.address):
            await error_response(429, "too_many_requests", wait=ceil(wait), seconds=ceil(wait))(scope, receive, send)
            return
        # A program without cookies counts by its address, which many may share.
        all_, address, browser = "", f"a {client.address}", f"b {client.browser}"
        free = MAX_OPEN - self._open[all_]
        has_cookie = any(name == b"cookie" for name, _ in scope["headers"])
        most_of_browser = MAX_OPEN_PER_BROWSER if has_cookie else MAX_OPEN_PER_ADDRESS
        crowded = self._open[address] >= min(MAX_OPEN_PER_ADDRESS, max(free, MAX_OPEN_PER_BROWSER)) or (
            bool(client.browser) and self._open[browser] >= most_of_browser
        )
        if crowded or (free <= 0 and not self._bodies.end_one()):
            await error_response(503, "overloaded", wait=RETRY_AFTER_SECONDS)(scope, receive, send)
            return
        names = (all_, address, browser)
        self._open.update(names)
        try:
            if _has_body(scope):
                await self._bodies.serve(client.address, scope, receive, send)
            else:
                await self.app(scope, receive, send)
        finally:
            self._open.subtract(names)
            for name in [name for name in names if self._open[name] <= 0]:
                del self._open[name]


class QuotaExceeded(Exception):
    """The address has used up its bytes for this hour; it may retry after `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds

    @property
    def refusal(self) -> ASGIApp:
        return error_response(429, "too_many_uploads", wait=int(self.seconds) + 1, minutes=int(self.seconds // 60) + 1)


class ByteQuota:
    """The bytes that an address may send per hour. All bodies count as they arrive: files, imports, actions and API calls."""

    def __init__(self, limits: Limits) -> None:
        hourly = limits.upload_mb_per_hour_per_address * 10**6
        self._rate = TokenBuckets(hourly / 60, burst=hourly)

    def check(self, address: str, count: int) -> None:
        """Raises QuotaExceeded if `count` more bytes would be too many; takes nothing."""
        if wait := self._rate.wait(address, max(1, count)):
            raise QuotaExceeded(wait)

    def take(self, address: str, count: int) -> None:
        """Take `count` bytes. Raises QuotaExceeded if they are too many."""
        if count and (wait := self._rate.take(address, count)):
            raise QuotaExceeded(wait)

    def owe(self, address: str, count: int) -> None:
        """Take bytes that have arrived already, even if they are too many."""
        self._rate.owe(address, count)

    def counted(self, receive: Receive, address: str) -> Receive:
        """`receive` that counts each piece of a body, and raises QuotaExceeded for one that is too large."""

        async def count() -> Message:
            message = await receive()
            self.take(address, len(message.get("body", b"")))
            return message

        return count


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )
