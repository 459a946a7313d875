"""Starts a probe in a child process and waits for it, a limited time; it knows no probe.

Unlike `bounded_process.py` it says how a child ended, keeps what it found before, and never waits for one that cannot be ended,
as when a driver hangs.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

from magistral_ui.errors import Message

CODE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {here} import serve; serve(*sys.argv[2:])"
CHILD = "magistral_ui.doctor.child"
KILL_TIMEOUT = 3.0
"""Seconds for a killed child to end; one that waits for a driver may never do so, and is left alone."""
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore",
}


@dataclass(slots=True)
class Probed:
    """What a probe found, and why it found no more."""

    found: dict[str, Any] = field(default_factory=dict)
    failure: Message | None = None
    stage: str = ""
    """What it was about to do when it ended."""
    ended_itself: bool = True
    """False: the process crashed or had to be ended."""


def probe(target: str, seconds: float, variables: Mapping[str, str] | None = None, **arguments: Any) -> Probed:
    """What the generator `package.module:function` finds within so many `seconds`, in a process of its own."""
    probed = Probed()
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", CODE.format(here=CHILD), json.dumps(sys.path), target, json.dumps(arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **QUIET, **(variables or {})},
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError as error:
        return Probed(failure=Message("doctor_reason_error", {"error": error.strerror or type(error).__name__}))
    assert child.stdout is not None
    done: list[bool] = []
    reader = threading.Thread(target=_read, args=(child.stdout, probed, done), daemon=True)
    reader.start()
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        probed.failure = Message("doctor_reason_timeout", {"seconds": round(seconds), "stage": probed.stage})
        probed.ended_itself = False
        done.append(True)
    finally:
        child.kill()
        with suppress(subprocess.TimeoutExpired):
            child.wait(KILL_TIMEOUT)
    reader.join(KILL_TIMEOUT)
    if not done:
        probed.ended_itself = False
        how = _how(child.returncode)
        probed.failure = Message("doctor_reason_crashed", {"how": how, "stage": probed.stage})
    return probed


def _read(stream: IO[bytes], probed: Probed, done: list[bool]) -> None:
    """Take over what the child says; `done` is no longer empty once it has said all."""
    with suppress(OSError, ValueError), stream:
        for line in stream:
            said = json.loads(line)
            probed.stage = said.pop("stage", probed.stage)
            if "error" in said:
                probed.failure = Message("doctor_reason_error", {"error": said.pop("error")})
                done.append(True)
            elif "told" in said:
                key, values = said.pop("told")
                probed.failure = Message(key, values)
                done.append(True)
            elif said.pop("done", False):
                done.append(True)
            probed.found.update(said)


def _how(code: int | None) -> str:
    """How a process ended: a signal's name, or its exit code."""
    if code is not None and code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code if code is None or code < 2**16 else hex(code)}"
