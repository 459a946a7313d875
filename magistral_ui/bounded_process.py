"""Calls a function in a child process that is ended when it takes too long or too much memory; it does not know which function.

For libraries that parse untrusted input, and hold the GIL or fill the memory while they do.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import astuple, dataclass
from importlib import import_module
from pathlib import Path
from struct import Struct
from types import MappingProxyType, TracebackType
from typing import IO, Any

CPU_SECONDS = 1
"""Processor time of one call, or up to twice as much, where the system can bound it (Linux, macOS). On a busy machine a call
lasts longer, but may do no less."""
WALL_SECONDS = 60.0
"""Wall-clock time of one call, which waits for whatever is more urgent."""
MEMORY_BYTES = 512 * 2**20
"""Address space of the child, where the system can bound it (Linux)."""
MAX_STARTS = 3
"""How often a child is started: input that ends this many is not processed any more."""
LENGTH_PREFIX = Struct("<Q")
NICE = 10
"""How much lower a child's priority is than ours: the page and other programs on this machine come first."""
LOWER_PRIORITY = getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0)
"""The same for Windows."""
CHILD_CODE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {here} import serve; serve(sys.argv[2])"


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """What one call may use."""

    cpu_seconds: int = CPU_SECONDS
    memory_bytes: int = MEMORY_BYTES
    beyond: bool = False
    """Whether `memory_bytes` are in addition to what the child has before the call, such as its libraries."""


USUAL = ProcessLimits()


class ChildEnded(Exception):
    """The child ended, or was ended, before it answered: it took too long or too much memory."""


class BoundedProcess(AbstractContextManager["BoundedProcess"]):
    """A function in a child process, which starts at the first call. One call at a time; a context manager."""

    def __init__(
        self,
        function: str,
        *,
        wall_seconds: float = WALL_SECONDS,
        starts: float = MAX_STARTS,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`function` is `package.module:name`, called with JSON values, or a class whose single instance is called."""
        self._function, self._wall, self._starts = function, wall_seconds, starts
        self._variables = variables
        self._child: subprocess.Popen[bytes] | None = None

    def call(self, *arguments: Any) -> Any:
        """The function's result for `arguments`. Raises ChildEnded; the next call starts another child, a few times."""
        return self.call_with(b"", *arguments)[0]

    def call_with(self, data: bytes, *arguments: Any, bounds: ProcessLimits = USUAL) -> tuple[Any, bytes]:
        """The same with bytes beside the arguments: the function gets `data` as its first argument where there is any.

        It may return bytes, too, in a pair with what JSON can hold.
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
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with suppress(OSError):  # input that was not read any more
                        pipe.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def serve(function: str) -> None:
    """Runs in the child: answers calls until there are no more."""
    if sys.platform != "win32":
        os.nice(NICE)
    module, _, name = function.partition(":")
    calls, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not look like an answer
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
    """Have the system end this process once it takes too much; Windows cannot do that, only the wall clock counts there."""
    if sys.platform == "win32":
        return
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + bounds.cpu_seconds + 1
    space = bounds.memory_bytes + (_address_space() if bounds.beyond else 0)
    for kind, soft in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, space)):
        with suppress(OSError, ValueError):  # the system or its operator may allow less than that
            resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))


def _address_space() -> int:
    """Bytes that this process has now; very many where the system does not say, and so cannot bound them either."""
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
