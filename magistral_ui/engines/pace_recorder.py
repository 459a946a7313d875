"""Measures the pace at which replies are written that run alone; it does not know by what, or where the pace is kept."""

import threading
from collections.abc import Callable

from magistral_ui.engines.generation import Generation

MIN_MEASURED_TOKENS = 32
"""Tokens of a reply whose pace is worth knowing."""


class PaceRecorder:
    """Hands on the tokens per second of each reply that ran alone from its first token to its last."""

    def __init__(self, record: Callable[[float], None]) -> None:
        self._record = record
        self._lock = threading.Lock()
        self._running: set[Generation] = set()
        self._disturbed: set[Generation] = set()

    def watch(self, generation: Generation) -> None:
        """To be called when a reply is submitted."""
        with self._lock:
            self._running.add(generation)
            if len(self._running) > 1:
                self._disturbed |= self._running
        generation.when_ended(lambda: self._ended(generation))

    def _ended(self, generation: Generation) -> None:
        with self._lock:
            self._running.discard(generation)
            alone = generation not in self._disturbed
            self._disturbed.discard(generation)
        usage = generation.usage
        if alone and usage.completion_tokens >= MIN_MEASURED_TOKENS and usage.tokens_per_second:
            self._record(usage.tokens_per_second)
