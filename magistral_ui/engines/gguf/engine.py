"""The engine for GGUF files: a thread that loads a model, runs replies on llama.cpp, and starts it again after a crash.

llama.cpp's server runs in a child process and only turns token ids into token ids: prompts, reasoning and control are ours.
"""

import atexit
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from magistral_ui.chat.prompt import Prompt
from magistral_ui.engines.base import Broken, EngineStatus, GenerationRequest, Loading, Measure, ModelRequest, Ready
from magistral_ui.engines.generation import Generation
from magistral_ui.errors import MagistralUIError, Message, NotReady
from magistral_ui.models.cards import ModelCard, guess_card

if TYPE_CHECKING:
    from magistral_ui.engines.gguf.loading import LoadedGGUF
    from magistral_ui.engines.gguf.running_gguf import RunningGGUF
    from magistral_ui.engines.local.tokenizer import Tokenizer
    from magistral_ui.engines.weights.progress import Report

log = logging.getLogger(__name__)

CLOSE_TIMEOUT = 10.0
LoadGGUF = Callable[[ModelRequest, "Report", threading.Event], "LoadedGGUF"]


def load(request: ModelRequest, report: "Report", closing: threading.Event) -> "LoadedGGUF":
    """Import what loads a model only in the engine's thread: the page is served before mistral-common is there."""
    from magistral_ui.engines.gguf.loading import load_gguf

    return load_gguf(request, report, closing)


class GGUFEngine:
    """Runs a GGUF file with llama.cpp in a child process; `engines/base.py` says what the methods do."""

    def __init__(self, request: ModelRequest, load: LoadGGUF = load) -> None:
        """Nothing is imported or read before `start`."""
        self.request, self._load = request, load
        self._guess = guess_card(request.model)
        self._status: EngineStatus = Loading()
        self._running: RunningGGUF | None = None
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
                atexit.register(self.close)
                self._thread.start()

    @property
    def tokenizer(self) -> "Tokenizer | None":
        """The loaded model's, which holds no weights."""
        return self._running.tokenizer if self._running else None

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values, all of which llama.cpp takes when it loads the model."""
        return self._running.kv_bytes if self._running else 0

    def status(self) -> EngineStatus:
        return self._status

    def retry(self) -> None:
        with self._lock:
            if not isinstance(self._status, Broken):
                return
            self._status, self._thread = Loading(), None
        self.start()

    def measure(self, prompt: Prompt, visitor: str = "") -> Measure:
        running = self._running
        if running is None:
            raise NotReady
        return running.measure(prompt, visitor)

    def submit(self, request: GenerationRequest, waiting: Generation | None = None) -> Generation:
        """Start a reply, in the Generation that is `waiting` for it if there is one."""
        running = self._running
        if running is None or not isinstance(self._status, Ready):
            raise NotReady
        return running.submit(request, waiting)

    def forget(self, visitor: str) -> None:
        if self._running is not None:
            self._running.forget(visitor)

    def close(self) -> None:
        self._closing.set()
        if self._running is not None:
            self._running.close()
        if self._thread is not None:
            self._thread.join(CLOSE_TIMEOUT)
        atexit.unregister(self.close)

    def wait_closed(self, over: threading.Event) -> None:
        """After `close`: wait until the child has ended and its memory is free, or it is `over`."""
        thread = self._thread
        while thread is not None and thread.is_alive() and not over.is_set():
            thread.join(0.1)

    def _report(self, status: Loading) -> None:
        self._status = status

    def _load_and_run(self) -> None:
        from magistral_ui.engines.gguf.running_gguf import RunningGGUF
        from magistral_ui.engines.weights.progress import Cancelled

        running: RunningGGUF | None = None
        broken: Message = Broken("engine_closed")
        try:
            self._running = running = RunningGGUF(self._load(self.request, self._report, self._closing))
            self._serve(running)
        except Cancelled:
            pass
        except MagistralUIError as error:
            broken = error.message
        except Exception as error:
            log.error("the model could not be loaded", exc_info=error)
            broken = Message("model_error", {"reason": type(error).__name__})
        finally:
            self._running = None
            if running is not None:
                running.end(None if self._closing.is_set() else broken)
            self._status = Broken(broken.key, broken.values)

    def _serve(self, running: "RunningGGUF") -> None:
        """Serve until `close`. Each time that the child has crashed, replies that wait do so until it runs again."""
        while True:
            self._status = Ready(running.info)
            if self._closing.is_set():  # `close` may have run before there was anything to close
                running.close()
            running.serve()
            if self._closing.is_set():
                return
            log.warning("llama.cpp has ended, and is started again: %s", running.server.stderr_tail())
            self._status = Loading("restarting", notices=running.info.notices)
            running.restart()
