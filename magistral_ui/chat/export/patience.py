"""How long the writing of one file may take; it does not know what is written."""

import time
from collections.abc import Callable

PATIENCE = 30.0
"""Seconds of the processor: about 75 photographs of 12 megapixels, or 7 million characters of answers."""


class Patience:
    """One file's time. A piece that was begun is finished, so the whole takes at most one piece longer."""

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._until = clock() + PATIENCE

    @property
    def is_over(self) -> bool:
        """Whether what is left has to be shown as it is."""
        return self._clock() >= self._until
