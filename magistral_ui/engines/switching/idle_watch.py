"""Notices that a model has not been used for a number of minutes (idle timeout); it does not know what happens then."""

import threading
import time
from collections.abc import Callable

POLL_SECONDS = 5.0


class IdleWatch:
    """Calls `act` at each check that finds the model unused for that long."""

    def __init__(self, minutes: int, in_use: Callable[[], bool], act: Callable[[], object]) -> None:
        """`minutes` may be changed at any time; 0: never."""
        self.minutes = minutes
        self._in_use, self._act = in_use, act
        self._used = time.monotonic()
        self._thread: threading.Thread | None = None

    def start(self, over: threading.Event) -> None:
        """Check regularly until it is `over`; a second call does nothing."""

        def watch() -> None:
            while not over.wait(POLL_SECONDS):
                self.look()

        if self._thread is None:
            self._thread = threading.Thread(target=watch, name="idle model", daemon=True)
            self._thread.start()

    def note_use(self) -> None:
        self._used = time.monotonic()

    def look(self) -> None:
        if self._in_use():
            self.note_use()
        elif self.minutes and time.monotonic() - self._used >= 60 * self.minutes:
            self._act()
