"""Bounds how many requests come from one address, and how many are open at once; it does not know what they ask."""

from collections import Counter
from math import ceil

from starlette.types import ASGIApp, Receive, Scope, Send

from magistral_ui.sessions.caller import CALLER
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.rates import Rate
from magistral_ui.ui.doors.refusals import refusal

OPEN_PER_BROWSER = 48
"""Requests of one browser that are answered at once: a tab has up to three, a browser at most six connections anyway."""
OPEN_PER_ADDRESS = 1_500
OPEN = 3_000


class Flood:
    """Refuses politely, and says when to come back."""

    def __init__(self, app: ASGIApp, *, limits: Limits) -> None:
        self.app = app
        self._rate = Rate(limits.requests_per_minute_per_address)
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        caller = CALLER.get()
        if wait := self._rate.take(caller.address):
            await refusal(429, "too_many_requests", wait=ceil(wait), seconds=ceil(wait))(scope, receive, send)
            return
        # A program without cookies is its address, which many may share.
        shared = {"": OPEN, f"a {caller.address}": OPEN_PER_ADDRESS}
        bounds = shared if caller.browser == "" else {**shared, f"b {caller.browser}": self._of_browser(scope)}
        if any(self._open[name] >= most for name, most in bounds.items()):
            await refusal(503, "overloaded", wait=5)(scope, receive, send)
            return
        self._open.update(bounds.keys())
        try:
            await self.app(scope, receive, send)
        finally:
            self._open.subtract(bounds.keys())
            for name in [name for name in bounds if self._open[name] <= 0]:
                del self._open[name]

    def _of_browser(self, scope: Scope) -> int:
        has_cookie = any(name == b"cookie" for name, _ in scope["headers"])
        return OPEN_PER_BROWSER if has_cookie else OPEN_PER_ADDRESS
