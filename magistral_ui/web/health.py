"""The health check, /healthz, for everybody, and /metrics (Prometheus) for this machine or with the token; no content."""

import hmac
from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from magistral_ui.chat.events import Answer, Failed, Finished, Reasoning
from magistral_ui.engines.base import Loading, Ready, Unloaded, info_of
from magistral_ui.engines.generation import Generation
from magistral_ui.errors import TooManyRequests
from magistral_ui.fairness import TokenBuckets
from magistral_ui.json_log import log_event
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.web.client_address import FORWARDED_HEADERS, network_of, peer_of
from magistral_ui.web.error_responses import not_found
from magistral_ui.web.exposure import Exposure, is_loopback
from magistral_ui.web.passwords import LoginAttempts
from magistral_ui.web.request_guard import HostAndOriginMiddleware

HEALTH_PATH, METRICS_PATH = "/healthz", "/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4"
LOGGED_STATUSES = (401, 403, 408, 413, 421, 429, 503, 507)
"""Statuses of refusals to log; their number per minute is limited, because a flood must not fill the disk."""
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
METRIC_PREFIX = "magistral_ui_"
SECONDS_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
RATE_BUCKETS = (1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 400, 1000)


class Metrics:
    """All metrics of one app, in their own registry."""

    def __init__(self, visitors: Visitors) -> None:
        self.registry = CollectorRegistry()
        self._requests = self._counter("http_requests", "HTTP requests by kind and status", "kind", "status")
        self._replies = self._counter("replies", "Replies that ended, by reason", "reason")
        self._failures = self._counter("failures", "Replies that failed, by kind of error", "error")
        self._tokens = self._counter("tokens", "Tokens of replies that ended, by kind", "kind")
        self._first = self._histogram("first_token_seconds", "Seconds from asking to the first token", SECONDS_BUCKETS)
        self._seconds = self._histogram("reply_seconds", "Seconds of a whole reply, waiting included", SECONDS_BUCKETS)
        self._rate = self._histogram(
            "reply_tokens_per_second", "Tokens a second of one reply after its first", RATE_BUCKETS
        )
        self.registry.register(_StateCollector(visitors))
        for standard in (ProcessCollector, PlatformCollector, GCCollector):
            standard(registry=self.registry)
        visitors.admission.when_ended(self.reply_ended)

    def request_ended(self, kind: str, status: int) -> None:
        self._requests.labels(kind, str(status)).inc()

    def reply_ended(self, generation: Generation) -> None:
        last = generation.take(len(generation) - 1, attended=False)[-1].event
        if not isinstance(last, Finished | Failed):
            return
        reason, usage = last.why if isinstance(last, Finished) else "failed", last.usage
        self._replies.labels(reason).inc()
        error = generation.failure.key if generation.failure else None  # visitors may be told less
        if error:
            self._failures.labels(error).inc()
        counts = {"prompt": usage.prompt_tokens, "reused": usage.reused_tokens}
        counts |= {"reasoning": usage.reasoning_tokens, "answer": usage.answer_tokens}
        for kind, count in counts.items():
            self._tokens.labels(kind).inc(count)
        self._seconds.observe(usage.total_seconds)
        if usage.completion_tokens:
            self._first.observe(usage.first_token_seconds)
        if usage.tokens_per_second:
            self._rate.observe(usage.tokens_per_second)
        log_event("reply_ended", reason=reason, error=error, **counts, seconds=round(usage.total_seconds, 3))

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(METRIC_PREFIX + name, description, labels, registry=self.registry)

    def _histogram(self, name: str, description: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(METRIC_PREFIX + name, description, buckets=buckets, registry=self.registry)


class _StateCollector(Collector):
    """The gauges, computed when they are scraped."""

    def __init__(self, visitors: Visitors) -> None:
        self._visitors = visitors

    def collect(self) -> Iterator[Metric]:
        visitors = self._visitors
        running = visitors.admission.running()
        writing = sum(_has_begun(each) for each in running)
        for name, description, value in (
            ("replies_written", "Replies that are being written", writing),
            ("replies_waiting", "Replies that wait for their first token", len(running) - writing),
            ("conversations_open", "Conversations in memory", len(visitors)),
            ("model_ready", "Whether the model answers", info_of(visitors.engine.status()) is not None),
            ("model_loaded", "Whether the model is in memory", isinstance(visitors.engine.status(), Ready)),
            ("history_troubled", "Whether conversations cannot be saved", visitors.save_error is not None),
            ("closing", "Whether the app is about to end", visitors.admission.closing),
        ):
            yield GaugeMetricFamily(METRIC_PREFIX + name, description, float(value))


class HealthMiddleware:
    """Serves /healthz and /metrics outside the rate limits: a probe must get its answer when the page is full."""

    def __init__(
        self, app: ASGIApp, *, visitors: Visitors, metrics: Metrics, exposure: Exposure, token: str = ""
    ) -> None:
        """With a `token`, /metrics also answers whoever sends that as a bearer token."""
        self.app, self._visitors, self._metrics, self._exposure = app, visitors, metrics, exposure
        self._token = token
        self._own = HostAndOriginMiddleware(self._answer, exposure=exposure)
        self._lines, self._attempts = TokenBuckets(MAX_LOGGED_PER_MINUTE), LoginAttempts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
        # Behind a proxy, every request comes from its machine, which may be this one.
        proxied = self._exposure.forwarded or any(name in headers for name in FORWARDED_HEADERS)
        return not proxied and is_loopback(peer_of(scope))

    def _knows_token(self, scope: Scope, sent: str) -> bool:
        """Whether the token is right. It may be short, so guessing it is slowed down like guessing a password."""
        address = network_of(scope["client"][0])
        try:
            self._attempts.check(address)
        except TooManyRequests:
            return False
        known = hmac.compare_digest(sent.removeprefix("Bearer ").encode(), self._token.encode())
        (self._attempts.succeeded if known else self._attempts.failed)(address)
        return known


def health(visitors: Visitors) -> tuple[int, str]:
    status = visitors.engine.status()
    if visitors.admission.closing:
        return 503, "closing"
    if isinstance(status, Ready):
        return 200, "ready"
    if isinstance(status, Unloaded):  # the next message loads it
        return 200, "unloaded"
    return (200, "loading") if isinstance(status, Loading) else (503, "broken")


def kind_of(path: str, status: int) -> str:
    """The kind of a request, one of a few, so that clients cannot create more counters."""
    if status == 404:
        return "nothing"
    return next((kind for start, kind in PATH_KINDS if path.startswith(start)), "page")


def _has_begun(generation: Generation) -> bool:
    return any(isinstance(each.event, Reasoning | Answer) for each in generation.take(attended=False)[:50])
