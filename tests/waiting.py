"""Waits for something that another thread brings about."""

import time
from collections.abc import Callable

TIMEOUT = 120.0
"""Seconds on the busiest machine; only a stuck test waits that long."""


def until(is_so: Callable[[], bool], what: str = "it has not come about") -> None:
    end = time.monotonic() + TIMEOUT
    while not is_so():
        assert time.monotonic() < end, what
        time.sleep(0.02)
