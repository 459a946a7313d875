"""Opens the engine that a request needs, one for each kind of model file; it loads nothing and runs nothing itself."""

import threading
from typing import TYPE_CHECKING, Protocol

from magistral_ui.engines.base import Engine, GenerationRequest, ModelRequest
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.local.engine import open_local

if TYPE_CHECKING:
    from magistral_ui.engines.local.tokenizer import Tokenizer


class LoadableEngine(Engine, Protocol):
    """An engine on this machine that loads one model, and frees its memory when it is closed."""

    @property
    def tokenizer(self) -> "Tokenizer | None":
        """The loaded model's; it stays usable after the engine is closed, and holds no weights."""

    @property
    def kv_bytes(self) -> int:
        """Bytes that keys and values occupy now; the weights' are in the memory plan of `status`."""

    def start(self) -> None:
        """Begin loading; returns at once. Does nothing once it has begun."""

    def submit(self, request: GenerationRequest, waiting: Generation | None = None) -> Generation:
        """As in `Engine`; the reply is written into the Generation that is `waiting` for it, if there is one."""

    def wait_closed(self, over: threading.Event) -> None:
        """After `close`: wait until the memory is free, or it is `over`."""


def open_engine(request: ModelRequest) -> LoadableEngine:
    """The engine that can run the requested model, not started yet."""
    return open_local(request)
