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
from magistral_ui.engines.gguf.supervisor import LlamaServer, ServerSettings, Supervisor
from tests.servers.gguf_files import write_gguf
from tests.waiting import until

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
    """A file that a child loads without end, with the GIL held; and what waits until it does so.

    It is a pipe into which nobody writes. Where the kernel does not tell what a thread waits for, it has to be opened to see
    whether somebody reads it; then llama.cpp, which cannot seek in it, soon fails.
    """
    fifo, opened = folder / "endless.gguf", []
    os.mkfifo(fifo)

    def open_it() -> bool:
        try:
            opened.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # nobody reads it yet
            return False
        return True

    def is_read() -> bool:
        waits_for = [what for child in psutil.Process().children(recursive=True) for what in waits_of(child.pid)]
        if not Path("/proc/self/wchan").exists() or (waits_for and set(waits_for) == {"0"}):
            return open_it()
        return any("wait_for_partner" in what for what in waits_for)

    try:
        yield fifo, lambda: until(is_read, "the child does not load")
    finally:
        for each in opened:
            os.close(each)


def waits_of(pid: int) -> list[str]:
    """The kernel's functions in which a process's threads wait, where it tells; "0" for none."""
    waits: list[str] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/wchan"):
        with suppress(OSError):
            waits.append(thread.read_text())
    return waits


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
