"""Reports the progress of a loading stage, in bytes, with the time left; it does not know what is counted."""

import threading
import time
from collections import deque
from collections.abc import Callable

from magistral_ui.engines.base import Loading, Stage

Report = Callable[[Loading], None]

REPORT_INTERVAL = 0.2
RATE_WINDOW_SECONDS = 15.0
"""Seconds over which the rate is measured: long enough to be steady, short enough to follow a connection that slows down."""


class Cancelled(Exception):
    """The engine is closing, so loading is abandoned."""


class Meter:
    """Counts bytes from any thread."""

    def __init__(
        self,
        stage: Stage,
        total: int,
        report: Report,
        closing: threading.Event | None = None,
        *,
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`done` of `total` bytes are finished already. Once `closing` is set, `add` raises Cancelled."""
        self._stage, self._total, self._report, self._clock = stage, total, report, clock
        self._closing, self._stopped = closing or threading.Event(), False
        self._lock = threading.Lock()
        self._done = done
        self._past = deque([(clock(), done)])
        self._told = clock()
        report(Loading(stage, done, total))

    def add(self, count: float | None) -> None:
        """Count more bytes (negative if a server starts over)."""
        if self._closing.is_set() or self._stopped:
            raise Cancelled
        with self._lock:
            self._done += int(count or 0)
            now = self._clock()
            if now - self._told < REPORT_INTERVAL and self._done < self._total:
                return
            self._told = now
            self._past.append((now, self._done))
            while now - self._past[0][0] > RATE_WINDOW_SECONDS and len(self._past) > 2:
                self._past.popleft()
            self._report(Loading(self._stage, min(self._done, self._total), self._total, self._seconds_left()))

    def stop(self) -> None:
        """From now on, `add` raises Cancelled."""
        self._stopped = True

    def _seconds_left(self) -> float | None:
        (before, had), (now, have) = self._past[0], self._past[-1]
        if now - before < 1.0 or have <= had:
            return None
        return max(0.0, (self._total - have) * (now - before) / (have - had))
