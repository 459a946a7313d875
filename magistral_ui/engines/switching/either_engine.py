"""Runs a model with the local engine, or with the one for GGUF files, where only loading shows which of them can."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from magistral_ui.chat.prompt import Prompt
from magistral_ui.engines.base import EngineStatus, GenerationRequest, Measure, ModelRequest
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.local.engine import import_libraries, load, open_local
from magistral_ui.errors import HoldsGGUF
from magistral_ui.models.cards import ModelCard

if TYPE_CHECKING:
    from magistral_ui.engines.local.running_model import RunningModel
    from magistral_ui.engines.local.tokenizer import Tokenizer
    from magistral_ui.engines.switching.open_engine import LoadableEngine
    from magistral_ui.engines.weights.progress import Report


class EitherEngine:
    """The local engine, until the machine has chosen a GGUF file, or a repository turns out to hold no other ones."""

    def __init__(
        self,
        request: ModelRequest,
        resolve: Callable[[ModelRequest], ModelRequest],
        is_for_gguf: Callable[[ModelRequest], bool],
        open_gguf: "Callable[[ModelRequest], LoadableEngine]",
    ) -> None:
        """Nothing is loaded before `start`. `resolve` names the model if the request leaves that to the machine."""
        self.request = request
        self._resolve, self._is_for_gguf, self._open_gguf = resolve, is_for_gguf, open_gguf
        self._lock = threading.Lock()
        self._closed = False
        self._local = open_local(request, self._load)
        self._engine: LoadableEngine = self._local

    @property
    def card(self) -> ModelCard:
        return self._engine.card

    @property
    def tokenizer(self) -> "Tokenizer | None":
        return self._engine.tokenizer

    @property
    def kv_bytes(self) -> int:
        return self._engine.kv_bytes

    def start(self) -> None:
        self._engine.start()

    def status(self) -> EngineStatus:
        return self._engine.status()

    def retry(self) -> None:
        self._engine.retry()

    def measure(self, prompt: Prompt, visitor: str = "") -> Measure:
        return self._engine.measure(prompt, visitor)

    def submit(self, request: GenerationRequest, waiting: Generation | None = None) -> Generation:
        return self._engine.submit(request, waiting)

    def forget(self, visitor: str) -> None:
        self._engine.forget(visitor)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._engine.close()
        if self._engine is not self._local:  # or it would be kept until Python exits
            self._local.close()

    def wait_closed(self, over: threading.Event) -> None:
        self._engine.wait_closed(over)

    def _load(self, request: ModelRequest, report: "Report", closing: threading.Event) -> "RunningModel | None":
        """Load for the local engine, in its thread; None once the other engine loads instead."""
        import_libraries()  # devices are asked by torch
        request = self._resolve(request)
        if not self._is_for_gguf(request):
            self.request = request
            try:
                return load(request, report, closing)
            except HoldsGGUF:
                pass
        engine = self._open_gguf(request)
        with self._lock:
            if not self._closed:
                self.request, self._engine = request, engine
                engine.start()
        return None
