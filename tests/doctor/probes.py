"""What may happen to a probe: it crashes, hangs, ends the process, prints, fails."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from magistral_ui.errors import ModelNotFound


def found(value: int = 1) -> Iterator[dict[str, Any]]:
    print("what a library prints")
    yield {"value": value}
    yield {"stage": "second", "more": 2}


def crash() -> Iterator[dict[str, Any]]:
    yield {"value": 1, "stage": "libcuda"}
    os.kill(os.getpid(), signal.SIGSEGV)


def leave() -> Iterator[dict[str, Any]]:
    yield {"stage": "bitsandbytes"}
    os._exit(1)


def leave_politely() -> Iterator[dict[str, Any]]:
    raise SystemExit(3)
    yield {}


def hang(file: str) -> Iterator[dict[str, Any]]:
    yield {"value": 1, "stage": "driver"}
    Path(file).touch()
    time.sleep(600)


def fail() -> Iterator[dict[str, Any]]:
    raise KeyError("a name")
    yield {}


def lack() -> Iterator[dict[str, Any]]:
    raise ModuleNotFoundError("No module named 'no_such_library.part'", name="no_such_library.part")
    yield {}


def refuse() -> Iterator[dict[str, Any]]:
    raise ModelNotFound(model="x")
    yield {}
