"""Opens the engine that a request needs, one for each kind of model file; it loads nothing and runs nothing itself."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from magistral_ui.engines.base import Engine, GenerationRequest, ModelRequest
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.switching.either_engine import EitherEngine
from magistral_ui.engines.switching.machine import has_llama_cpp, has_torch
from magistral_ui.engines.weights.pace_file import TORCH_PRECISIONS
from magistral_ui.errors import BadSetting, LibraryMissing
from magistral_ui.models.cards import find_card
from magistral_ui.models.folder import AUTO
from magistral_ui.models.gguf_folder import has_gguf

if TYPE_CHECKING:
    from magistral_ui.engines.local.tokenizer import Tokenizer


class LoadableEngine(Engine, Protocol):
    """An engine on this machine that loads one model, and frees its memory when it is closed."""

    @property
    def request(self) -> ModelRequest:
        """What it was opened for; once it has loaded, with the model that was chosen if none was named."""

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
    """The engine for the requested model, not started yet. Raises LibraryMissing if what it needs is not installed."""
    if is_for_gguf(request):
        return open_gguf(request)
    if not has_torch():
        raise LibraryMissing(model=request.shown_name or request.precision, other=_gguf_of(request))
    return EitherEngine(request, _resolve, is_for_gguf, open_gguf)


def is_for_gguf(request: ModelRequest) -> bool:
    """Whether the engine for GGUF files is asked for: by what is named, or because no other one is installed."""
    from magistral_ui.engines.gguf.source import names_gguf

    return names_gguf(request.model, request.precision) or not (has_torch() or _needs_torch(request))


def check_settings(request: ModelRequest) -> None:
    """Raise BadSetting for what the operator set, and only the other engine knows."""
    from magistral_ui.engines.gguf.source import names_gguf

    if request.precision in TORCH_PRECISIONS and names_gguf(request.model, "auto"):
        raise BadSetting("precision_not_for_gguf", value=request.precision)
    if request.kv_type != "auto" and not is_for_gguf(request):
        raise BadSetting("kv_type_needs_gguf", value=request.kv_type)


def open_gguf(request: ModelRequest) -> LoadableEngine:
    """The engine for GGUF files; raises as `open_engine` does."""
    from magistral_ui.engines.gguf.engine import GGUFEngine

    if not has_llama_cpp():
        raise LibraryMissing("llama_cpp_missing")
    return GGUFEngine(request)


def _resolve(request: ModelRequest) -> ModelRequest:
    """As `resolve` does; what it imports takes a while."""
    from magistral_ui.engines.switching.default_model import resolve

    return resolve(request)


def _needs_torch(request: ModelRequest) -> bool:
    """Whether no GGUF file can be meant: by the precision, or because the folder that is named holds none."""
    if request.precision in TORCH_PRECISIONS:
        return True
    if request.model in (None, AUTO) or find_card(str(request.model)):
        return False
    folder = Path(str(request.model)).expanduser()
    return folder.is_dir() and not has_gguf(folder)


def _gguf_of(request: ModelRequest) -> str:
    """What to name instead of a model in safetensors."""
    card = find_card(request.model) if request.model else None
    return card.gguf_repositories[0] if card and card.gguf_repositories else "FILE.gguf"
