"""Behaves as ZeroGPU's decorator does, without a GPU: each call runs in a process that is forked for it, and for a bounded time.

After spaces 0.51.3 (zero/wrappers.py): arguments and results are pickled; results come through a pipe that never blocks the
writer; `duration` gets the same arguments; what the process leaves behind is gone; a process that is to be lost ends without a
word; refusals are raised before anything runs, as errors with a title.
"""

import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

FORK = multiprocessing.get_context("fork")


class Refused(Exception):
    """What gradio.Error is to whoever asks: a title and a message."""

    def __init__(self, title: str, message: str) -> None:
        self.title, self.message = title, message
        super().__init__(message)


@dataclass
class Lender:
    """Lends its GPU; the lists say what was asked and what happened."""

    refusals: list[Refused | None] = field(default_factory=list)
    """For the next calls, in order."""
    lose_after: list[int | None] = field(default_factory=list)
    """For the next calls: after how many results the process is lost."""
    gate: threading.Event | None = None
    """Where set: calls wait for it, as in ZeroGPU's queue."""
    durations: list[int] = field(default_factory=list)
    processes: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    """How many threads each process had when it began."""

    def __call__(self, task: Callable[..., Iterator[Any]], *, duration: Callable[..., int]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Iterator[Any]:
            self.durations.append(duration(*arguments))
            refusal = self.refusals.pop(0) if self.refusals else None
            if refusal is not None:
                raise refusal
            if self.gate is not None:
                self.gate.wait()
            yield from self._run(task, pickle.dumps(arguments))

        return call

    def _run(self, task: Callable[..., Iterator[Any]], arguments: bytes) -> Iterator[Any]:
        lost = self.lose_after.pop(0) if self.lose_after else None
        reader, writer = FORK.Pipe(duplex=False)
        process = FORK.Process(target=_work, args=(task, arguments, writer, lost), daemon=True)
        process.start()
        writer.close()
        try:
            while True:
                try:
                    kind, value = pickle.loads(reader.recv_bytes())
                except EOFError:
                    raise Refused("ZeroGPU worker error", "GPU task aborted") from None
                if kind == "began":
                    self.processes.append(value[0])
                    self.threads.append(value[1])
                elif kind == "result":
                    yield value
                elif kind == "error":
                    raise Refused("ZeroGPU worker error", value)
                else:
                    return
        finally:
            reader.close()
            process.join(10)
            process.close()


def _work(task: Callable[..., Iterator[Any]], arguments: bytes, writer: Any, lost: int | None) -> None:
    """In the forked process; it ends without cleaning up, as a killed one does."""
    writer.send_bytes(pickle.dumps(("began", (os.getpid(), threading.active_count()))))
    try:
        for number, result in enumerate(task(*pickle.loads(arguments)), 1):
            writer.send_bytes(pickle.dumps(("result", result)))
            if number == lost:
                os._exit(1)
        writer.send_bytes(pickle.dumps(("end", None)))
    except Exception as error:  # noqa: BLE001 as the package does
        writer.send_bytes(pickle.dumps(("error", type(error).__name__)))
    finally:
        os._exit(0)
