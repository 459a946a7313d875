"""Estimates paces in the background, step by step, only while nothing else needs the machine; it does not know what for."""

import atexit
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from magistral_ui.engines.switching import machine
from magistral_ui.engines.switching.machine import Machine
from magistral_ui.models.ladder import Pace
from magistral_ui.models.shape import ModelShape

POLL_SECONDS = 0.1
NICENESS = 10
"""A tenth of the share of an ordinary thread, on Linux: even on a busy computer, timing ends."""
STOP_TIMEOUT = 10.0
"""Seconds for a step: making a layer takes longest, and cannot be interrupted."""
EXIT_TIMEOUT = 120.0
"""The same when Python exits, on a machine that is busy: a thread that is still inside torch then would abort the process."""

Wanted = tuple[ModelShape, str]


class _Stopped(Exception):
    """Timing is given up, because something else needs the machine."""


class PaceTimer:
    """Its methods may be called from any thread."""

    def __init__(self, machine: Machine, may_run: Callable[[], bool], is_idle: Callable[[], bool]) -> None:
        """Timing pauses unless `is_idle`, and is given up once it no longer `may_run`, as when another model is loaded."""
        self._machine, self._may_run, self._is_idle = machine, may_run, is_idle
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._wanted: dict[Wanted, None] = {}
        self._found: dict[Wanted, float | None] = {}
        """Also what could not be written to disk; None if no estimate was possible."""

    @property
    def running(self) -> bool:
        return self._thread is not None

    def known(self) -> Pace:
        """The paces known at this moment, from the file and from this process."""
        from_file = self._machine.known_pace()

        def pace(shape: ModelShape, precision: str) -> tuple[float | None, bool]:
            tokens, measured = from_file(shape, precision)
            return (tokens, measured) if tokens is not None else (self._found.get((shape, precision)), False)

        return pace

    def is_tried(self, shape: ModelShape, precision: str) -> bool:
        """Whether an estimate has been attempted; another attempt would find no more."""
        return (shape, precision) in self._found

    def want(self, shape: ModelShape, precision: str) -> None:
        """Estimate this pace as soon as the machine is idle."""
        with self._lock:
            self._wanted[shape, precision] = None
            if self._thread is not None or not self._may_run():
                return
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._time, args=(self._stop,), name="time models", daemon=True)
            atexit.register(self._stop_at_exit)
            self._thread.start()

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Give up what is being timed, so that its memory is free; the next `want` begins again."""
        with self._lock:
            self._stop.set()
            thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _stop_at_exit(self) -> None:
        self.stop(EXIT_TIMEOUT)

    def _time(self, stop: threading.Event) -> None:
        lower_priority()

        def rest() -> None:
            while not stop.is_set() and self._may_run():
                if self._is_idle():
                    return
                stop.wait(POLL_SECONDS)
            raise _Stopped

        try:
            while wanted := self._next():
                found = machine.estimated_pace(*wanted, self._machine, rest)
                with self._lock:
                    self._found[wanted] = found
                    del self._wanted[wanted]
        except _Stopped:
            pass
        finally:
            with self._lock:
                if self._thread is threading.current_thread():
                    self._thread = None
                if self._thread is None:
                    atexit.unregister(self._stop_at_exit)

    def _next(self) -> Wanted | None:
        """What to estimate next; if there is nothing, the next `want` starts another thread."""
        with self._lock:
            wanted = next(iter(self._wanted), None)
            if wanted is None:
                self._thread = None
            return wanted


def lower_priority() -> None:
    """Let other threads run first, on systems where each thread has its own priority; threads started by this one inherit it."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
