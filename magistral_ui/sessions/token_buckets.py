"""How often something may happen: token buckets by name, a bounded number of them; it does not know what is counted."""

import threading
import time
from collections.abc import Callable

from cachetools import LRUCache

MAX_BUCKETS = 20_000
"""Names that are remembered, in about 5 MB. The least recently used one is forgotten first."""


class TokenBuckets:
    """A rate per minute for each name, with bursts: each name has a bucket that refills over time. Thread-safe."""

    def __init__(
        self,
        per_minute: float,
        burst: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        kept: int = MAX_BUCKETS,
    ) -> None:
        """`burst` is what a full bucket holds: half a minute's, unless it is given."""
        self._per_second, self._clock = per_minute / 60, clock
        self._burst = burst if burst is not None else max(1.0, per_minute / 2)
        self._lock = threading.Lock()
        self._buckets: LRUCache[str, tuple[float, float]] = LRUCache(kept)
        """What is in a bucket, and when that was computed."""

    def wait(self, name: str, cost: float = 1.0) -> float:
        """Seconds until `name` may; 0.0 where it may now. Nothing is taken."""
        with self._lock:
            return self._wait(name, cost)

    def take(self, name: str, cost: float = 1.0) -> float:
        """Take `cost` out of the bucket and return 0.0; or, where there is not enough, the seconds until there is."""
        with self._lock:
            if wait := self._wait(name, cost):
                return wait
            self._put(name, self._level(name) - cost)
            return 0.0

    def owe(self, name: str, cost: float) -> None:
        """Take out `cost` for what has happened already, even where that leaves less than nothing."""
        with self._lock:
            self._put(name, max(-self._burst, self._level(name) - cost))

    def clear(self, name: str) -> None:
        with self._lock:
            self._buckets.pop(name, None)

    def __len__(self) -> int:
        return len(self._buckets)

    def _level(self, name: str) -> float:
        level, when = self._buckets.get(name, (self._burst, 0.0))
        return min(self._burst, level + (self._clock() - when) * self._per_second)

    def _wait(self, name: str, cost: float) -> float:
        short = min(cost, self._burst) - self._level(name)
        if short <= 0:
            return 0.0
        return short / self._per_second if self._per_second else float("inf")

    def _put(self, name: str, level: float) -> None:
        self._buckets[name] = (level, self._clock())


class RateLimit:
    """A rate per minute for each visitor and one for each address: both have to allow it."""

    def __init__(self, of_visitor: float, of_address: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._of_visitor = TokenBuckets(of_visitor, clock=clock)
        self._of_address = TokenBuckets(of_address, clock=clock)

    def take(self, visitor: str, address: str, cost: float = 1.0) -> float:
        """Take `cost` from both and return 0.0; or, where one has not enough, take nothing and return the seconds to wait."""
        if wait := self._of_visitor.wait(visitor, cost) or self._of_address.wait(address, cost):
            return wait
        self._of_visitor.take(visitor, cost)
        self._of_address.take(address, cost)
        return 0.0
