"""Calls one function in a child process that is ended when it takes too long or too much memory; it does not know which.

For libraries that read what strangers write, and hold Python's lock, or fill the memory, while they do.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass
from importlib import import_module
from pathlib import Path
from struct import Struct
from types import MappingProxyType, TracebackType
from typing import IO, Any

CPU_SECONDS = 1
"""Processor time of one call, up to twice as much, where the system can bound it (Linux, macOS); on a busy machine it lasts
longer, and is no less."""
WALL_SECONDS = 60.0
"""Time on the clock of one call, which waits for whatever is more urgent."""
MEMORY_BYTES = 512 * 2**20
"""Address space of the child, where the system can bound it (Linux)."""
MAX_STARTS = 3
"""How often a child is started: who ends that many is not served any more."""
LENGTH_PREFIX = Struct("<Q")
NICE = 10
"""By how much a child's priority is lower than ours: the page, and whoever uses this machine, come first."""
LOWER_PRIORITY = getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0)
"""The same on Windows."""
CHILD_CODE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {here} import serve; serve(sys.argv[2])"


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """What one call may take."""

    cpu_seconds: int = CPU_SECONDS
    memory_bytes: int = MEMORY_BYTES
    beyond: bool = False
    """Whether that is memory beyond what the child has before the call, its libraries, or all of it."""


USUAL = ProcessLimits()


class ChildEnded(Exception):
    """The child was ended, or has ended, before it answered: it took too long, or too much memory."""


class BoundedProcess:
    """One function in a child process, which starts with the first call. One call at a time; a context manager."""

    def __init__(
        self,
        function: str,
        *,
        wall_seconds: float = WALL_SECONDS,
        starts: float = MAX_STARTS,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`function` is `package.module:name`, or a class whose one object is called; it takes and gives what JSON can hold.

        `variables` are laid over the environment in which the child is started.
        """
        self._function, self._wall, self._starts = function, wall_seconds, starts
        self._variables = variables
        self._child: subprocess.Popen[bytes] | None = None

    def call(self, *arguments: Any) -> Any:
        """What the function gives for `arguments`. Raises Ended; the next call starts another child, a few times."""
        return self.call_with(b"", *arguments)[0]

    def call_with(self, data: bytes, *arguments: Any, bounds: ProcessLimits = USUAL) -> tuple[Any, bytes]:
        """The same with bytes beside the arguments: the function gets `data` first where there is any.

        It may give bytes, too, as a pair with what JSON can hold.
        """
        child = self._started()
        assert child.stdin is not None
        assert child.stdout is not None
        watchdog = threading.Timer(self._wall, child.kill)
        watchdog.start()
        try:
            _write(child.stdin, json.dumps((astuple(bounds), arguments)).encode(), data)
            return json.loads(_read(child.stdout)), _read(child.stdout)
        except (OSError, EOFError) as error:
            self.close()
            raise ChildEnded from error
        finally:
            watchdog.cancel()

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._child is None:
            if not self._starts:
                raise ChildEnded
            self._starts -= 1
            start = CHILD_CODE.format(here=__name__)
            command = [sys.executable, "-c", start, json.dumps(sys.path), self._function]
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **self._variables},
                creationflags=LOWER_PRIORITY,
            )
        return self._child

    def close(self) -> None:
        """End the child, and wait until it has ended."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with suppress(OSError):  # what was not read any more
                        pipe.close()

    def __enter__(self) -> "BoundedProcess":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def serve(function: str) -> None:
    """In the child: answer calls until there are no more."""
    if sys.platform != "win32":
        os.nice(NICE)
    module, _, name = function.partition(":")
    calls, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    found = getattr(import_module(module), name)
    act = found() if isinstance(found, type) else found
    with suppress(EOFError):
        while True:
            (bounds, arguments), data = json.loads(_read(calls)), _read(calls)
            _bound(ProcessLimits(*bounds))
            given = act(data, *arguments) if data else act(*arguments)
            del data
            value, beside = given if isinstance(given, tuple) else (given, b"")
            _write(answers, json.dumps(value).encode(), beside)
            del given, beside  # not kept while nobody calls


def _bound(bounds: ProcessLimits) -> None:
    """Have the system end this process once it has taken too much; Windows cannot, there only the clock counts."""
    if sys.platform == "win32":
        return
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + bounds.cpu_seconds + 1
    space = bounds.memory_bytes + (_address_space() if bounds.beyond else 0)
    for kind, soft in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, space)):
        with suppress(OSError, ValueError):  # a system, or its operator, may allow less than that
            resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))


def _address_space() -> int:
    """Bytes that this process has now; very many where the system does not tell, and then bounds nothing either."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 2**40


def _write(pipe: IO[bytes], *parts: bytes) -> None:
    for part in parts:
        pipe.write(LENGTH_PREFIX.pack(len(part)))
        pipe.write(part)
    pipe.flush()


def _read(pipe: IO[bytes]) -> bytes:
    head = pipe.read(LENGTH_PREFIX.size)
    if len(head) < LENGTH_PREFIX.size:
        raise EOFError
    (length,) = LENGTH_PREFIX.unpack(head)
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return data
