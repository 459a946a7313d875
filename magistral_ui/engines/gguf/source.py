"""Finds a GGUF model's files: a file, a folder's, the demo model's or a repository's, with projector and tokenizer."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from magistral_ui.engines.base import ModelRequest
from magistral_ui.engines.gguf.devices import LlamaDevice
from magistral_ui.engines.weights.progress import Report
from magistral_ui.errors import Message
from magistral_ui.models.cards import ModelCard
from magistral_ui.models.gguf_file import GGUFFacts


@dataclass(frozen=True, slots=True)
class GGUFSource:
    """All files of a model, and their origin."""

    card: ModelCard
    files: tuple[Path, ...]
    """The model's file, or all files over which it is split, in order; llama.cpp is given the first."""
    facts: GGUFFacts
    """With the projector's, if there is one."""
    mmproj: Path | None
    tekken: Path
    """A tekken.json with the model's vocabulary."""
    name: str
    revision: str = ""
    chosen_because: str = "model_chosen_by_hand"


def names_gguf(model: str | None, precision: str) -> bool:
    """Whether a request is for the GGUF engine; it asks no network.

    True for a file with a GGUF file's contents, a folder that holds no other models, `owner/repo:QUANT`, a repository
    that is known or named as one of GGUF files, and a precision that is one of llama.cpp's quantizations.
    """
    raise NotImplementedError


def find_gguf(
    request: ModelRequest,
    device: LlamaDevice,
    report: Report,
    closing: threading.Event,
    warn: Callable[[Message], None] = lambda _: None,
) -> GGUFSource:
    """Resolve `request`; what a repository lacks here is downloaded, if the plan for `device` says that it fits.

    Raises ModelNotFound, NotAMistralModel, ModelFilesBroken, DownloadFailed, DeviceTooSmall or progress.Cancelled.
    """
    raise NotImplementedError
