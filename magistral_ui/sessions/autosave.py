"""Has every session put down what is new, twice a second, whoever watches; stops and takes out of the history what is due."""

import threading
from collections.abc import Callable, Sequence

from magistral_ui.sessions.history.database import History
from magistral_ui.sessions.session import Session

SAVE_INTERVAL = 0.5
"""Seconds between two looks: with the writing itself, an answer is on disk within a second."""
PURGE_INTERVAL = 60.0
"""Seconds between two looks for what was deleted, or is too old."""


class Autosave:
    """A thread that ends with `close`."""

    def __init__(
        self, sessions: Callable[[], Sequence[Session]], history: History | None, tick: Callable[[], None]
    ) -> None:
        """`sessions` gives those that there are; `tick` is done at every look, too."""
        self._sessions, self._history, self._tick = sessions, history, tick
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End, with a last look."""
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        looks = 0
        while not self._ending.wait(SAVE_INTERVAL):
            self._look()
            looks += 1
            self._tick()
            if self._history is not None and looks % round(PURGE_INTERVAL / SAVE_INTERVAL) == 0:
                self._history.purge()
        self._look()

    def _look(self) -> None:
        for session in self._sessions():
            session.save()
