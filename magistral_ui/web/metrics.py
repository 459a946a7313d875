"""Counts what the page does, in Prometheus' form; it knows numbers, and neither words nor visitors."""

from collections.abc import Callable, Iterator
from typing import Protocol

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

from magistral_ui.chat.events import Answer, Failed, Finished, Reasoning
from magistral_ui.engines.base import Loading, Ready
from magistral_ui.engines.generation import Generation
from magistral_ui.json_log import log_event
from magistral_ui.sessions.visitors import Visitors

METRIC_PREFIX = "magistral_ui_"
SECONDS_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
RATE_BUCKETS = (1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 400, 1000)


class CounterLine(Protocol):
    """One line of a counter."""

    def inc(self, amount: float = 1) -> None:
        """Add."""


class Metrics:
    """All counters of one page, in a registry of their own."""

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
        """Count an HTTP request."""
        self._requests(kind, str(status)).inc()

    def reply_ended(self, generation: Generation) -> None:
        """Count a reply, and write its numbers down."""
        last = generation.take(len(generation) - 1, looking=False)[-1].event
        if not isinstance(last, Finished | Failed):
            return
        reason, usage = last.why if isinstance(last, Finished) else "failed", last.usage
        self._replies(reason).inc()
        error = generation.failure.key if generation.failure else None  # what strangers read may say less
        if error:
            self._failures(error).inc()
        counts = {"prompt": usage.prompt_tokens, "reused": usage.reused_tokens}
        counts |= {"reasoning": usage.reasoning_tokens, "answer": usage.answer_tokens}
        for kind, count in counts.items():
            self._tokens(kind).inc(count)
        self._seconds.observe(usage.total_seconds)
        writing = usage.total_seconds - usage.first_token_seconds
        if usage.completion_tokens:
            self._first.observe(usage.first_token_seconds)
        if usage.completion_tokens > 1 and writing > 0:
            self._rate.observe((usage.completion_tokens - 1) / writing)
        log_event("reply_ended", reason=reason, error=error, **counts, seconds=round(usage.total_seconds, 3))

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, told: str, *labels: str) -> Callable[..., CounterLine]:
        return Counter(METRIC_PREFIX + name, told, labels, registry=self.registry).labels

    def _histogram(self, name: str, told: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(METRIC_PREFIX + name, told, buckets=buckets, registry=self.registry)


class _StateCollector(Collector):
    """What is so at the moment when it is asked for."""

    def __init__(self, visitors: Visitors) -> None:
        self._visitors = visitors

    def collect(self) -> Iterator[Metric]:
        """The gauges."""
        visitors = self._visitors
        running = visitors.admission.running()
        writing = sum(_has_begun(each) for each in running)
        for name, told, value in (
            ("replies_written", "Replies that are being written", writing),
            ("replies_waiting", "Replies that wait for their first token", len(running) - writing),
            ("conversations_open", "Conversations in memory", len(visitors)),
            ("model_ready", "Whether the model answers", isinstance(visitors.engine.status(), Ready)),
            ("history_troubled", "Whether conversations cannot be saved", visitors.save_error is not None),
            ("closing", "Whether the app is about to end", visitors.admission.closing),
        ):
            yield GaugeMetricFamily(METRIC_PREFIX + name, told, float(value))


def _has_begun(generation: Generation) -> bool:
    return any(isinstance(each.event, Reasoning | Answer) for each in generation.take(looking=False)[:50])


def health(visitors: Visitors) -> tuple[int, str]:
    """The status and the one word with which /healthz answers."""
    status = visitors.engine.status()
    if visitors.admission.closing:
        return 503, "closing"
    if isinstance(status, Ready):
        return 200, "ready"
    return (200, "loading") if isinstance(status, Loading) else (503, "broken")
