"""Answers whoever runs the app: /healthz for everybody, /metrics for this machine or who knows the token; counts requests."""

import hmac

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from magistral_ui.errors import TooManyRequests
from magistral_ui.json_log import log_event
from magistral_ui.sessions.token_buckets import TokenBuckets
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.web.client_address import network_of
from magistral_ui.web.error_responses import not_found
from magistral_ui.web.exposure import Exposure, is_loopback
from magistral_ui.web.forwarded_headers import FORWARDED_HEADERS as FORWARDING_HEADERS
from magistral_ui.web.forwarded_headers import peer_of
from magistral_ui.web.host_check import HostCheckMiddleware
from magistral_ui.web.login_attempts import LoginAttempts
from magistral_ui.web.metrics import Metrics, health

HEALTH_PATH, METRICS_PATH = "/healthz", "/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4"
LOGGED_STATUSES = (401, 403, 408, 413, 421, 429, 503, 507)
"""Statuses of refusals that are written down, at most so many a minute: a flood must not fill the disk."""
MAX_LOGGED_PER_MINUTE = 60
PATH_KINDS = (
    ("/magistral/act/", "event"),
    ("/gradio_api/queue/", "program"),
    ("/gradio_api/call/", "program"),
    ("/mcp", "program"),
    ("/gradio_api/upload", "upload"),
    ("/magistral/import", "upload"),
    ("/magistral/export", "download"),
    ("/gradio_api/file=", "download"),
    ("/magistral/live", "live"),
    ("/magistral/model", "live"),
    ("/login", "login"),
    ("/logout", "login"),
)


class HealthMiddleware:
    """Stands outside of the limits: a probe must get its answer when the page is full."""

    def __init__(
        self, app: ASGIApp, *, visitors: Visitors, metrics: Metrics, exposure: Exposure, token: str = ""
    ) -> None:
        """With a `token`, /metrics is also for whoever sends it as a bearer's."""
        self.app, self._visitors, self._metrics, self._exposure = app, visitors, metrics, exposure
        self._token = token
        self._own = HostCheckMiddleware(self._answer, exposure=exposure)
        self._lines, self._attempts = TokenBuckets(MAX_LOGGED_PER_MINUTE), LoginAttempts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on and count what became of it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"] in (HEALTH_PATH, METRICS_PATH) and scope["method"] in ("GET", "HEAD"):
            await self._own(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._count(scope, message["status"])
            await send(message)

        await self.app(scope, receive, counted)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == HEALTH_PATH:
            status, word = health(self._visitors)
            await JSONResponse({"status": word}, status)(scope, receive, send)
        elif self._may_read(scope):
            await PlainTextResponse(self._metrics.text(), media_type=CONTENT_TYPE)(scope, receive, send)
        else:
            await not_found()(scope, receive, send)

    def _count(self, scope: Scope, status: int) -> None:
        kind = kind_of(scope["path"], status)
        self._metrics.request_ended(kind, status)
        if status in LOGGED_STATUSES and not self._lines.take("refused"):
            log_event("refused", kind=kind, status=status, address=network_of(scope["client"][0]))

    def _may_read(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        if self._token and "authorization" in headers and self._knows_token(scope, headers["authorization"]):
            return True
        # Behind somebody's proxy everybody comes from this machine.
        proxied = self._exposure.forwarded or any(name in headers for name in FORWARDING_HEADERS)
        return not proxied and is_loopback(peer_of(scope))

    def _knows_token(self, scope: Scope, sent: str) -> bool:
        """The token may be a short one, so it is guessed as slowly as a password."""
        address = network_of(scope["client"][0])
        try:
            self._attempts.check(address)
        except TooManyRequests:
            return False
        known = hmac.compare_digest(sent.removeprefix("Bearer ").encode(), self._token.encode())
        (self._attempts.succeeded if known else self._attempts.failed)(address)
        return known


def kind_of(path: str, status: int) -> str:
    """What a request was for, in a few words that a stranger cannot make more of."""
    if status == 404:
        return "nothing"
    return next((kind for start, kind in PATH_KINDS if path.startswith(start)), "page")
