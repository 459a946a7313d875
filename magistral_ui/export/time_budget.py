"""How long the writing of one file may take; it does not know what is written."""

import time
from collections.abc import Callable

from magistral_ui.chat.image_decoding import decoders

EXPORT_CPU_SECONDS = 30.0
"""Seconds of the processor: about 75 photographs of 12 megapixels, or 7 million characters of answers."""


def spent() -> float:
    """Seconds of the processor that this thread has taken, with those in which pictures were decoded for it elsewhere."""
    return time.thread_time() + decoders().seconds


class TimeBudget:
    """One file's time. A piece that was begun is finished, so the whole takes at most one piece longer."""

    def __init__(self, clock: Callable[[], float] = spent) -> None:
        self._clock = clock
        self._until = clock() + EXPORT_CPU_SECONDS

    @property
    def is_over(self) -> bool:
        """Whether what is left has to be shown as it is."""
        return self._clock() >= self._until
