"""The in-process engine: loads a model in a thread of its own, which then runs it until the engine is closed.

torch is imported in that thread, so that the page is served before it is there.
"""

import atexit
import logging
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from magistral_ui.chat.prompt import Prompt
from magistral_ui.engines.base import Broken, EngineStatus, GenerationRequest, Loading, Measure, ModelRequest, Ready
from magistral_ui.engines.generation import Generation
from magistral_ui.errors import MagistralUIError, NotReady
from magistral_ui.models.cards import DEMO, ModelCard, find_card

if TYPE_CHECKING:
    from magistral_ui.engines.local.running_model import RunningModel
    from magistral_ui.engines.local.tokenizer import Tokenizer
    from magistral_ui.engines.weights.progress import Report

log = logging.getLogger(__name__)
IMPORTING = threading.RLock()
"""Held while a thread imports the libraries that run models: transformers replaces its own module during its import, so a second
thread that waits for that import (Python 3.11) gets the module from before, which has none of its names."""
LoadLocal = Callable[[ModelRequest, "Report", threading.Event], "RunningModel | None"]


def load(request: ModelRequest, report: "Report", closing: threading.Event) -> "RunningModel | None":
    """As `load_model` does, which imports torch."""
    import_libraries()
    from magistral_ui.engines.local.running_model import load_model

    return load_model(request, report, closing)


def import_libraries() -> None:
    """Import torch and what stands on it, in one thread at a time; any other waits."""
    with IMPORTING:
        from magistral_ui.engines.local import running_model  # noqa: F401


class LocalEngine:
    """Runs Magistral, or the demo model, with transformers in this process; `engines/base.py` says what the methods do."""

    def __init__(
        self,
        model: str | None = None,
        *,
        device: str = "auto",
        precision: str = "auto",
        context_length: int | None = None,
        threads: int | None = None,
        revision: str | None = None,
        save_quantized: str = "auto",
        chosen_because: str = "model_chosen_by_hand",
        load: LoadLocal = load,
    ) -> None:
        """`model` is a card's key, a repository or a folder; None leaves the choice to the machine.

        Nothing is imported or read before `start`. `context_length` bounds prompt and reply together, in tokens.
        `revision` is the repository's. `save_quantized` is a folder for a quantized copy, which is read instead next time;
        `auto` keeps one beside the Hub's cache if there is plenty of room, and `no` keeps none. `load` runs in the engine's
        thread; None from it: this engine runs no model.
        """
        self.request = ModelRequest(
            model, device, precision, context_length, threads, revision, save_quantized, chosen_because=chosen_because
        )
        self._load = load
        self._guess = (find_card(model) if model else None) or DEMO
        self._status: EngineStatus = Loading()
        self._running: RunningModel | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._lock = threading.Lock()

    @property
    def card(self) -> ModelCard:
        return self._running.card if self._running else self._guess

    def start(self) -> None:
        """Begin loading; returns at once."""
        with self._lock:
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._load_and_run, name="engine", daemon=True)
                atexit.register(self.close)  # a thread that is inside torch when Python exits would abort the process
                self._thread.start()

    @property
    def tokenizer(self) -> "Tokenizer | None":
        """The loaded model's, which holds no weights."""
        return self._running.tokenizer if self._running else None

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values in the device's memory."""
        return self._running.cache.nbytes if self._running else 0

    def status(self) -> EngineStatus:
        return self._status

    def retry(self) -> None:
        with self._lock:
            if not isinstance(self._status, Broken):
                return
            self._status, self._thread = Loading(), None
        self.start()

    def measure(self, prompt: Prompt, visitor: str = "") -> Measure:
        return self._ready().measure(prompt, visitor)

    def submit(self, request: GenerationRequest, waiting: Generation | None = None) -> Generation:
        """Start a reply, in the Generation that is `waiting` for it if there is one."""
        return self._ready().submit(request, waiting)

    def forget(self, visitor: str) -> None:
        if self._running is not None:
            self._running.forget(visitor)

    def close(self) -> None:
        self._closing.set()
        if self._running is not None:
            self._running.close()
        if self._thread is not None:
            self._thread.join(timeout=10)
        self._running = None
        atexit.unregister(self.close)

    def wait_closed(self, over: threading.Event) -> None:
        """After `close`: wait until the memory is free, or it is `over`. Reading weights cannot be interrupted."""
        thread = self._thread
        while thread is not None and thread.is_alive() and not over.is_set():
            thread.join(0.1)

    def _ready(self) -> "RunningModel":
        running = self._running
        if running is None or not isinstance(self._status, Ready):
            raise NotReady
        return running

    def _report(self, status: Loading) -> None:
        self._status = status

    def _load_and_run(self) -> None:
        try:
            running = self._load(self.request, self._report, self._closing)
        except MagistralUIError as error:
            self._status = Broken(error.message.key, error.message.values)
            return
        except Exception as error:
            log.error("the model could not be loaded", exc_info=error)
            self._status = Broken("model_error", {"reason": type(error).__name__})
            return
        if running is None:
            return
        self._running = running
        self._status = Ready(running.info)
        if self._closing.is_set():  # `close` may have run before there was anything to close
            running.close()
        try:
            running.run()
        finally:
            self._status = Broken("engine_closed")


def open_local(request: ModelRequest, load: LoadLocal = load) -> LocalEngine:
    settings = asdict(request)
    del settings["kv_type"]  # only llama.cpp quantizes keys and values
    return LocalEngine(**settings, load=load)
