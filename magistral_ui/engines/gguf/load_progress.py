"""Counts the bytes of a model's files while llama.cpp loads them: what it tells, or what is read for it meanwhile."""

import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from magistral_ui.engines.base import Loading
from magistral_ui.engines.weights.progress import Meter, Report

CHUNK = 2**22
"""Bytes that are read at a time."""


class LoadProgress:
    """Reports `reading` with the bytes of all files, then `warming_up`. Any thread may count."""

    def __init__(self, sizes: Mapping[str, int], report: Report, *, warm_up: bool) -> None:
        """`sizes` are bytes by the names of llama.cpp's stages."""
        self._sizes, self._report, self._warm_up = sizes, report, warm_up
        self._lock = threading.Lock()
        self._told: dict[str, float] = {}
        """Fraction of each stage that llama.cpp has finished."""
        self._read = 0
        self._done = 0
        self._meter = Meter("reading", sum(sizes.values()), report)

    def on_loading(self, payload: Mapping[str, Any]) -> None:
        """Count what one line of the child says, whose `value` goes from 0 to 1 for each of its `stages`."""
        stage, value = payload.get("current"), payload.get("value")
        if not isinstance(stage, str) or stage not in self._sizes or not isinstance(value, int | float):
            return
        with self._lock:
            self._told[stage] = min(1.0, max(float(value), self._told.get(stage, 0.0)))
            self._count()
        stages = payload.get("stages") or [stage]
        if self._warm_up and all(self._told.get(each) == 1.0 for each in stages):
            self._report(Loading("warming_up"))

    @contextmanager
    def reading(self, files: tuple[Path, ...]) -> Iterator[None]:
        """Meanwhile, another thread reads `files`, so that they are in the system's memory, and counts their bytes."""
        over = threading.Event()
        reader = threading.Thread(target=self._read_all, args=(files, over), name="reading ahead", daemon=True)
        reader.start()
        try:
            yield
        finally:
            over.set()

    def _read_all(self, files: tuple[Path, ...], over: threading.Event) -> None:
        buffer = bytearray(CHUNK)
        for file in filter(_is_regular, files):
            with suppress(OSError), file.open("rb", buffering=0) as opened:
                while not over.is_set() and (count := opened.readinto(buffer)):
                    with self._lock:
                        if over.is_set():
                            return
                        self._read += count
                        self._count()

    def _count(self) -> None:
        told = int(sum(self._sizes[each] * part for each, part in self._told.items()))
        done = max(told, self._read, self._done)
        if done > self._done:
            self._meter.add(done - self._done)
            self._done = done


def size_of(path: Path) -> int:
    """Bytes of a file; 0 if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False
