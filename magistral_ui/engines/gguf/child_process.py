"""Starts child.py, reads its two streams and ends it; it does not know what the child is asked to do."""

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

CHILD = Path(__file__).with_name("child.py")
LIBRARY_PREFIXES = ("LLAMA_", "GGML_", "MTMD_")
"""How the variables begin that would make llama.cpp load, compute or log otherwise than this app says."""
KEPT_VARIABLES = ("GGML_VK_VISIBLE_DEVICES",)
SET_VARIABLES = {
    "LLAMA_SERVER_ROUTER_PORT": "1",  # has it tell how far it has loaded
    "GGML_NO_BACKTRACE": "1",  # it would start a debugger, and what that prints may hold text of prompts
}
LAST_LINE = "exiting due to"
"""In the last line of the log of a server that could not load."""
LOADING_PREFIX = b"cmd_child_to_router:state:"
TAIL_LINES, MAX_LINE_BYTES = 60, 2_000
END_TIMEOUT = 10.0
"""Seconds that a killed process may take to end: it frees its memory first, of which the next model needs all."""
DRAIN_TIMEOUT = 0.5
"""Seconds to wait for the rest of its streams after a process has ended."""


class ChildProcess:
    """One run of child.py. All methods may be called from any thread."""

    def __init__(
        self,
        told: Mapping[str, Any],
        on_loading: Callable[[Mapping[str, Any]], object] | None = None,
        on_end: Callable[["ChildProcess"], object] | None = None,
    ) -> None:
        """`on_loading` gets what llama.cpp says while it loads; `on_end` is called once, in another thread. Raises OSError."""
        self.answer: Mapping[str, Any] | None = None
        """What the child answered; None before, and where it ended without an answer."""
        self.answered = threading.Event()
        """Set once there is an answer, or will be none."""
        self.logged = threading.Event()
        """Set once its log is whole: after a failure, or its end."""
        self.ended = threading.Event()
        self.was_ended = False
        """Whether `end` was called: its death is no crash."""
        self.was_silent = False
        """Whether `end_silent` was called."""
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._on_loading, self._on_end = on_loading, on_end
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment(os.environ),
            start_new_session=True,  # a terminal's Ctrl-C is for the page, which still has replies to save
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = (
            self._run(self._read_answers, self._process.stdout),
            self._run(self._read_log, self._process.stderr),
        )
        self._waiter = self._run(self._wait)
        self._tell({**told, "path": sys.path, "parent": os.getpid()})

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """Its exit code, unless `end` was called; None while it runs."""
        return None if self.was_ended else self._process.poll()

    def tail(self) -> list[str]:
        """The last lines of its log, printable."""
        return list(self._tail)

    def end(self) -> None:
        """Kill the process if it runs, and wait for its end."""
        self.was_ended = True
        self._process.kill()
        if threading.current_thread() is not self._waiter:
            self._waiter.join(END_TIMEOUT)

    def end_silent(self) -> None:
        """Kill the process because it answers nothing any more: for all others, it has crashed."""
        self.was_silent = True
        self._process.kill()

    def wait(self, timeout: float) -> bool:
        """Whether the process ends within `timeout` seconds, and all that it wrote has been read."""
        return self.ended.wait(timeout)

    def _tell(self, told: Mapping[str, Any]) -> None:
        stream = self._process.stdin
        assert stream is not None
        with suppress(OSError, ValueError):  # it has ended already; its log says why
            stream.write(json.dumps(told).encode() + b"\n")
            stream.flush()

    def _run(self, call: Callable[..., None], *arguments: Any) -> threading.Thread:
        thread = threading.Thread(target=call, args=arguments, name=f"llama.cpp {self._process.pid}", daemon=True)
        thread.start()
        return thread

    def _read_answers(self, stream: IO[bytes]) -> None:
        for line in _lines(stream):
            if line.startswith(LOADING_PREFIX):
                said = parsed_object(line.removeprefix(LOADING_PREFIX))
                if self._on_loading and said.get("state") == "loading" and isinstance(said.get("payload"), dict):
                    self._on_loading(said["payload"])
            elif line.startswith(b"{") and self.answer is None and (said := parsed_object(line)):
                self.answer = said
                self.answered.set()
        self.answered.set()

    def _read_log(self, stream: IO[bytes]) -> None:
        for line in _lines(stream):
            if text := printable(line.decode("utf-8", "replace")):
                self._tail.append(text)
                if LAST_LINE in text:
                    self.logged.set()

    def _wait(self) -> None:
        self._process.wait()
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        for reader in self._readers:
            reader.join(DRAIN_TIMEOUT)
        self.logged.set()
        self.answered.set()
        self.ended.set()
        if self._on_end:
            self._on_end(self)


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` without what would change llama.cpp."""
    kept = {
        name: value
        for name, value in environment.items()
        if name in KEPT_VARIABLES or not name.upper().startswith(LIBRARY_PREFIXES)
    }
    return kept | SET_VARIABLES


def printable(text: str) -> str:
    """`text` in one line without control characters."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """The lines of `stream`, long ones in pieces; it is closed at its end."""
    with stream:
        yield from iter(lambda: stream.readline(MAX_LINE_BYTES), b"")


def parsed_object(text: bytes) -> dict[str, Any]:
    """The JSON object in `text`; empty if there is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
