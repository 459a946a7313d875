"""The child process of llama.cpp with the demo model, and a file at which it loads for as long as a test needs."""

import http.client
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from magistral_ui.engines.base import Loading
from magistral_ui.engines.gguf.child_process import CHILD
from magistral_ui.engines.gguf.supervisor import LlamaServer, ServerSettings, Supervisor
from tests.servers.gguf_files import write_gguf
from tests.waiting import until

STILL_LOOKS = 10
"""So often in a row, a child that waits for its file is seen to have done nothing."""
KEPT: list[tempfile.TemporaryDirectory[str]] = []


@cache
def files() -> Path:
    """A folder with `model.gguf` and `mmproj.gguf`."""
    KEPT.append(tempfile.TemporaryDirectory())
    folder = Path(KEPT[0].name)
    write_gguf(folder)
    return folder


def model() -> Path:
    return files() / "model.gguf"


def settings(path: Path | None = None, **changed: Any) -> ServerSettings:
    values: dict[str, Any] = {"context": 2_048, "slots": 2, "threads": 1, "warm_up": False} | changed
    return ServerSettings(path or model(), **values)


def supervisor(
    path: Path | None = None, report: Callable[[Loading], None] = lambda said: None, **changed: Any
) -> Supervisor:
    return Supervisor(settings(path, **changed), report, threading.Event())


@contextmanager
def serving(path: Path | None = None, **changed: Any) -> Iterator[LlamaServer]:
    """A child that serves."""
    runs = supervisor(path, **changed)
    try:
        yield runs.start()
    finally:
        runs.close()


@contextmanager
def endless_file(folder: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A file that a child opens without end, with the GIL held; and what waits until it does so.

    Nobody writes to it: llama.cpp cannot seek in it, and would give up.
    """
    fifo, before = folder / "endless.gguf", {each.pid for each in started()}
    os.mkfifo(fifo)

    def wait() -> None:
        seen: list[object] = []

        def stands_still() -> bool:
            found = [each for each in started() if each.pid not in before]
            seen.append([(each.pid, each.cpu_times(), each.status()) for each in found])
            sleeps = bool(found) and all(each.status() == psutil.STATUS_SLEEPING for each in found)
            return len(seen) > STILL_LOOKS and sleeps and all(each == seen[-1] for each in seen[-STILL_LOOKS:])

        until(stands_still, "the child does not load")

    yield fifo, wait


def started() -> list[psutil.Process]:
    """The children of this process, and of the pages that it started, which are told what to load."""
    found = []
    for each in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if str(CHILD) in each.cmdline() and "--watch" not in each.cmdline():
                found.append(each)
    return found


def ask(server: LlamaServer, path: str, body: Any = None, key: str | None = None) -> tuple[int, bytes]:
    """Status and body of an answer; `key` empty: without one."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=120)
    key = server.key if key is None else key
    try:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        said = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("GET" if said is None else "POST", path, said, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def runs(pid: int) -> bool:
    """Whether a process runs; what nobody has waited for yet does not."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
