"""What the engines that load a model themselves have in common: a thread that loads it, and runs it until the engine is closed.

It does not know which library that is.
"""

import atexit
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from magistral_ui.chat.prompt import Prompt
from magistral_ui.engines.base import Broken, EngineStatus, GenerationRequest, Loading, Measure, ModelRequest, Ready
from magistral_ui.engines.generation import Generation
from magistral_ui.errors import NotReady
from magistral_ui.models.cards import ModelCard, guess_card

if TYPE_CHECKING:
    from magistral_ui.engines.local.tokenizer import Tokenizer

CLOSE_TIMEOUT = 10.0
"""Seconds for the thread to notice that the engine is closed; reading weights cannot be interrupted."""
POLL_SECONDS = 0.1


class Running(Protocol):
    """A loaded model."""

    @property
    def card(self) -> ModelCard: ...
    @property
    def tokenizer(self) -> "Tokenizer": ...
    @property
    def kv_bytes(self) -> int: ...
    def measure(self, prompt: Prompt, visitor: str) -> Measure: ...
    def submit(self, request: GenerationRequest, waiting: Generation | None) -> Generation: ...
    def forget(self, visitor: str) -> None: ...
    def close(self) -> None: ...


R = TypeVar("R", bound=Running)


class ThreadedEngine(ABC, Generic[R]):
    """`engines/base.py` and `engines/switching/open_engine.py` say what the methods do."""

    def __init__(self, request: ModelRequest) -> None:
        """Nothing is imported or read before `start`."""
        self.request = request
        self._guess = guess_card(request.model)
        self._status: EngineStatus = Loading()
        self._running: R | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._lock = threading.Lock()

    @abstractmethod
    def _load_and_run(self) -> None:
        """What the thread does: set `_running` and `_status`, and return once the model no longer runs."""

    @property
    def card(self) -> ModelCard:
        return self._running.card if self._running else self._guess

    @property
    def tokenizer(self) -> "Tokenizer | None":
        return self._running.tokenizer if self._running else None

    @property
    def kv_bytes(self) -> int:
        return self._running.kv_bytes if self._running else 0

    def start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._load_and_run, name="engine", daemon=True)
                atexit.register(self.close)  # a thread that is inside torch when Python exits would abort the process
                self._thread.start()

    def status(self) -> EngineStatus:
        return self._status

    def retry(self) -> None:
        with self._lock:
            if not isinstance(self._status, Broken) or self._closing.is_set():
                return
            self._status, self._thread = Loading(), None
        self.start()

    def measure(self, prompt: Prompt, visitor: str = "") -> Measure:
        return self._ready().measure(prompt, visitor)

    def submit(self, request: GenerationRequest, waiting: Generation | None = None) -> Generation:
        return self._ready().submit(request, waiting)

    def forget(self, visitor: str) -> None:
        if self._running is not None:
            self._running.forget(visitor)

    def close(self) -> None:
        self._closing.set()
        if self._running is not None:
            self._running.close()
        if self._thread is not None:
            self._thread.join(CLOSE_TIMEOUT)
        self._running = None
        atexit.unregister(self.close)

    def wait_closed(self, over: threading.Event) -> None:
        thread = self._thread
        while thread is not None and thread.is_alive() and not over.is_set():
            thread.join(POLL_SECONDS)

    def _ready(self) -> R:
        running = self._running
        if running is None or not isinstance(self._status, Ready):
            raise NotReady
        return running

    def _report(self, status: Loading) -> None:
        self._status = status
