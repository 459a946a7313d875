"""Starts llama.cpp's server in a child process, follows its loading and its death, and ends it; it asks it for no tokens."""

import http.client
import json
import logging
import os
import secrets
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from magistral_ui.engines.gguf.child_process import ChildProcess
from magistral_ui.engines.gguf.cpu_cores import usable_cores
from magistral_ui.engines.gguf.failure_reasons import ModelNames, crash_reason_of, reason_of
from magistral_ui.engines.gguf.health import watch_health
from magistral_ui.engines.gguf.load_progress import LoadProgress, size_of
from magistral_ui.engines.weights.progress import Cancelled, Report
from magistral_ui.errors import Message, ModelError

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05
"""Between two looks whether the app closes while a child loads."""
PROPS_TIMEOUT = 60.0
"""Seconds for the first answer of a server that has just loaded, on a busy machine."""
FAILURE_TIMEOUT = 10.0
"""Seconds for the log of a child that could not load to be whole, or for its end."""
MAX_CRASHES, CRASH_SECONDS = 3, 600.0
"""A model that crashes this often within this many seconds is not started again."""
SMALL_BYTES = 2**27
"""Bytes of files from which more than one thread pays: one reads this much in a hundredth of a second.

llama.cpp's threads spin while they wait for each other. On a busy computer, a small model writes 20 times as fast with one.
"""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How the child runs a model."""

    model: Path
    """The model's file, or the first part of a split one."""
    mmproj: Path | None = None
    context: int = 8_192
    """Tokens of the pool of keys and values, which all slots share."""
    slots: int = 8
    batch: int = 256
    """Tokens of prompts that are read at a time."""
    gpu_layers: int = 0
    """How many layers are on the graphics card; 0: none, and nothing else either."""
    tensor_split: tuple[int, ...] = ()
    """How many layers, and the head, each of several graphics cards holds, in llama.cpp's order; empty: there is one card."""
    mmproj_device: str = ""
    """llama.cpp's name of the card that holds the projector; empty: the first."""
    kv_type: str = "f16"
    """How keys and values are kept: `f16` or `q8_0`."""
    threads: int | None = None
    """Of the processor; None: one for each physical core that this process may use, and only one for a small model."""
    model_name: str = ""
    """What to call the model in a message; the file's name if empty."""
    device_name: str = "CPU"
    """What to call the device in a message."""
    parts: tuple[Path, ...] = ()
    """All parts of a split model, to count their bytes; empty: `model` is all."""
    warm_up: bool | None = None
    """Whether a token is computed before it serves; None: on a graphics card only, which prepares its kernels for it.

    On a processor it takes as long as it saves: the weights are in memory already.
    """

    @property
    def warms_up(self) -> bool:
        return self.gpu_layers > 0 if self.warm_up is None else self.warm_up

    def told(self, key: str) -> dict[str, Any]:
        """What child.py is told."""
        return {
            "model": str(self.model),
            "mmproj": str(self.mmproj) if self.mmproj else None,
            "port": 0,
            "key": key,
            "context": self.context,
            "slots": self.slots,
            "batch": self.batch,
            "gpu_layers": self.gpu_layers,
            "tensor_split": self.tensor_split,
            "mmproj_device": self.mmproj_device,
            "kv_type": self.kv_type,
            "threads": self.threads or self._usual_threads(),
            "warm_up": self.warms_up,
        }

    def _usual_threads(self) -> int:
        return 1 if sum(self.sizes().values()) < SMALL_BYTES else usable_cores()

    def sizes(self) -> dict[str, int]:
        """Bytes of the files, by the names of the stages in which llama.cpp loads them."""
        return {
            "text_model": sum(size_of(each) for each in self.parts or (self.model,)),
            "mmproj_model": size_of(self.mmproj) if self.mmproj else 0,
        }

    def read_ahead(self) -> tuple[Path, ...]:
        """The files to read while the child maps them into its memory, which waits for the disk without telling how far it is.

        None where they go to a graphics card, tensor by tensor, or where the memory is too small to hold them.
        """
        fits = self.sizes()["text_model"] <= psutil.virtual_memory().available
        return (self.parts or (self.model,)) if fits and not self.gpu_layers else ()

    def names(self) -> ModelNames:
        """What messages call all this."""
        mmproj = self.mmproj.name if self.mmproj else ""
        name = self.model_name or self.model.name
        return ModelNames(name, self.model.name, mmproj, self.device_name, self.context)


@dataclass(frozen=True, slots=True)
class LlamaServer:
    """A child that serves; requests go to http://host:port with `Authorization: Bearer {key}`."""

    host: str
    port: int
    key: str = field(repr=False)
    pid: int
    props: Mapping[str, Any] = field(repr=False)
    """What /props answered: `media_marker`, `default_generation_settings` and others."""
    _child: ChildProcess = field(repr=False)

    @property
    def alive(self) -> bool:
        """Whether the child's process runs."""
        return self._child.alive

    def end_silent(self) -> None:
        """Kill a server that does not answer as it should; it is started again as after a crash."""
        self._child.end_silent()

    def stderr_tail(self) -> str:
        """The last lines of the child's log, printable; they hold no text of people."""
        return "\n".join(self._child.tail())


class Supervisor:
    """One child process at a time, for one model. All methods may be called from any thread."""

    def __init__(self, settings: ServerSettings, report: Report, closing: threading.Event) -> None:
        """Nothing is started before `start`. Once `closing` is set, it is `close` that ends a child that serves."""
        self._settings, self._report, self._closing = settings, report, closing
        self._lock = threading.Lock()
        self._child: ChildProcess | None = None
        self._serves = False
        """Whether the child has served, so that its end is a crash."""
        self._closed = False
        self._listeners: list[Callable[[Message], None]] = []
        self._crashes: deque[float] = deque(maxlen=MAX_CRASHES)
        self._last_reason: Message | None = None

    def start(self) -> LlamaServer:
        """Start the child, and return once it serves; a child that still runs is ended first.

        Raises a ModelError with the reason from the child's log, or Cancelled once `closing` is set or `close` was called.
        After a crash it may be called again; after three crashes in ten minutes it raises the reason of the last at once.
        """
        self._end_child()
        self._check_crashes()
        key = secrets.token_urlsafe(32)
        progress = LoadProgress(self._settings.sizes(), self._report, warm_up=self._settings.warms_up)
        with self._lock:
            if self._is_closing():
                raise Cancelled
            try:
                child = ChildProcess(self._settings.told(key), progress.on_loading, self._on_end)
            except OSError as error:
                name = self._settings.names().model
                raise ModelError("gguf_ended", model=name, reason=error.strerror or str(error)) from error
            self._child, self._serves = child, False
        with progress.reading(self._settings.read_ahead()):
            while not child.answered.wait(POLL_SECONDS):
                if self._is_closing():
                    child.end()
                    raise Cancelled
        host, port = self._address(child)
        props = self._props(child, host, port, key)
        with self._lock:
            self._serves = child.alive and not self._is_closing()
        if not self._serves:
            raise self._failure(child)
        watch_health(child, host, port)
        return LlamaServer(host, port, key, child.pid, props, child)

    def when_died(self, call: Callable[[Message], None]) -> None:
        """Have `call` called with the reason, in another thread, whenever a child dies that had been serving.

        Not for a child that `close` or `start` ended.
        """
        self._listeners.append(call)

    def close(self) -> None:
        """End the child, also while it loads; returns once it has ended, in a fraction of a second unless it held much memory."""
        self._closed = True
        self._end_child()

    def _is_closing(self) -> bool:
        return self._closed or self._closing.is_set()

    def _end_child(self) -> None:
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            child.end()

    def _check_crashes(self) -> None:
        crashes = self._crashes
        if len(crashes) == MAX_CRASHES and time.monotonic() - crashes[0] < CRASH_SECONDS and self._last_reason:
            raise ModelError(self._last_reason.key, **self._last_reason.values)

    def _address(self, child: ChildProcess) -> tuple[str, int]:
        """Where the child serves; it has answered, or ended."""
        address = str((child.answer or {}).get("address", ""))
        host, separator, port = address.removeprefix("http://").rpartition(":")
        if not separator or not port.isdigit():
            raise self._failure(child)
        return host, int(port)

    def _props(self, child: ChildProcess, host: str, port: int, key: str) -> Mapping[str, Any]:
        connection = http.client.HTTPConnection(host, port, timeout=PROPS_TIMEOUT)
        try:
            connection.request("GET", "/props", headers={"Authorization": f"Bearer {key}"})
            self._wait_for(connection.sock)
            props = json.loads(connection.getresponse().read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._failure(child) from error
        finally:
            connection.close()
        return props if isinstance(props, dict) else {}

    def _wait_for(self, sock: socket.socket) -> None:
        """Wait until there is something to read, or the app closes."""
        end = time.monotonic() + PROPS_TIMEOUT
        while not select.select([sock], [], [], POLL_SECONDS)[0]:
            if self._is_closing() or time.monotonic() > end:
                raise TimeoutError

    def _failure(self, child: ChildProcess) -> ModelError | Cancelled:
        """Why a child does not serve; it is ended."""
        if not self._is_closing():
            child.logged.wait(FAILURE_TIMEOUT)
        reason = self._reason(child)
        child.end()
        if self._is_closing():
            return Cancelled()
        log.warning("llama.cpp could not load the model: %s", "; ".join(child.tail()))
        return reason

    def _reason(self, child: ChildProcess) -> ModelError:
        return reason_of(self._settings.names(), self._log_of(child), child.returncode, child.answer)

    def _crash_reason(self, child: ChildProcess) -> ModelError:
        names = self._settings.names()
        if child.was_silent:
            return ModelError("gguf_silent", model=names.model)
        return crash_reason_of(names, self._log_of(child), child.returncode)

    def _log_of(self, child: ChildProcess) -> list[str]:
        folder = f"{self._settings.model.parent}{os.sep}"
        return [line.replace(folder, "") for line in child.tail()]

    def _on_end(self, child: ChildProcess) -> None:
        with self._lock:
            crashed = self._child is child and self._serves and not child.was_ended and not self._is_closing()
            if not crashed:
                return
            self._last_reason = self._crash_reason(child).message
            self._crashes.append(time.monotonic())
            listeners = list(self._listeners)
        for call in listeners:
            call(self._last_reason)
