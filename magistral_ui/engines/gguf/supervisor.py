"""Starts llama.cpp's server in a child process, follows its loading and its death, and ends it; it asks it for no tokens."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magistral_ui.engines.weights.progress import Report
from magistral_ui.errors import Message


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
    kv_type: str = "f16"
    """How keys and values are kept: `f16` or `q8_0`."""
    threads: int | None = None
    """Of the processor; None: one for each physical core that this process may use."""
    model_name: str = ""
    """What to call the model in a message; the file's name if empty."""
    device_name: str = "CPU"
    """What to call the device in a message."""
    parts: tuple[Path, ...] = ()
    """All parts of a split model, to count their bytes; empty: `model` is all."""


@dataclass(frozen=True, slots=True)
class LlamaServer:
    """A child that serves; requests go to http://host:port with `Authorization: Bearer {key}`."""

    host: str
    port: int
    key: str
    pid: int
    props: Mapping[str, Any]
    """What /props answered: `media_marker`, `default_generation_settings` and others."""
    _is_alive: Callable[[], bool]
    _tail: Callable[[], str]

    @property
    def alive(self) -> bool:
        """Whether the child's process runs."""
        return self._is_alive()

    def stderr_tail(self) -> str:
        """The last lines of the child's log, printable; they hold no text of people."""
        return self._tail()


class Supervisor:
    """One child process at a time, for one model. All methods may be called from any thread."""

    def __init__(self, settings: ServerSettings, report: Report, closing: threading.Event) -> None:
        self._settings, self._report, self._closing = settings, report, closing

    def start(self) -> LlamaServer:
        """Start the child, and return once it serves; a child that still runs is ended first.

        Raises a ModelError with the reason from the child's log, or Cancelled once `closing` is set or `close` was called.
        After a crash it may be called again; after three crashes in ten minutes it raises the reason of the last at once.
        """
        raise NotImplementedError

    def when_died(self, call: Callable[[Message], None]) -> None:
        """Have `call` called with the reason, in another thread, whenever a child dies that had been serving.

        Not for a child that `close` or `start` ended.
        """
        raise NotImplementedError

    def close(self) -> None:
        """End the child, also while it loads; returns once it has ended, within a second."""
        raise NotImplementedError
