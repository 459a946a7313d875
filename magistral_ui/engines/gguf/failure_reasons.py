"""Finds the reason for which llama.cpp could not load or has ended, in its log and its return code; it reads no files."""

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magistral_ui.errors import LibraryMissing, ModelError, ModelFilesBroken, NotAMistralModel, OutOfMemory

MAX_REASON = 200
"""Characters of a line of the log in a sentence."""
PACKAGE = "xllamacpp"
CRASH_LINES = 10
"""Of the log of a child that crashed; those before may be days old."""
NO_MEMORY = re.compile(
    r"insufficient memory|failed to allocate|unable to allocate|out ?of ?memory|cannot allocate memory|bad_alloc"
    r"|outofdevicememory|outofhostmemory|cudamalloc failed|not enough memory|paging file is too small|alloc_failed",
    re.I,
)
CONTEXT = re.compile(r"kv cache|initialize the context", re.I)
PROJECTOR = re.compile(r"\bmtmd|\bclip|multimodal|mmproj", re.I)
UNOPENED = re.compile(r"failed to open (?:GGUF file )?'?(?P<file>[^'(]*)'? ?\((?P<reason>[^()]+)\)")
UNSUPPORTED = re.compile(
    r"(unknown model architecture: '[^']*'|unknown (?:pre-)?tokenizer(?: type)?: '[^']*'|GGUF file is version \d+"
    r"|GGUFv1 is no longer supported|invalid ggml type \d+|of type \d+ \(DEPRECATED\)|unknown projector type[^,]*)",
    re.I,
)
DAMAGED = re.compile(
    r"within the file bounds|corrupted|incomplete|failed to read|failed to seek|invalid magic|must be in \["
    r"|exceeds remaining|duplicate (?:tensor|key)|has offset|has wrong shape|wrong number of tensors|key not found"
    r"|tensor '[^']+' not found|incorrect shape|invalid number of dimensions|not a multiple of block size"
    r"|extremely large|wrong type",
    re.I,
)
REFUSED = re.compile(r"error loading model|llama-[\w-]+\.cpp:\d+: GGML_ASSERT\(hparams")
"""What llama.cpp says of a file that it could not load for any other reason; nothing is gained by trying it again."""
CARD = re.compile(
    r"(CUDA error.*|ROCm error.*|hipError.*|vk::.*|ErrorDeviceLost.*|ggml_metal.*error.*|SYCL error.*|driver version is.*)",
    re.I,
)
PREFIX = re.compile(r"^(?:\d+\.)+\d+ [EWIDT] (?:(?:cmn|srv|slot|que|res)\s+)?(?P<text>.*)$")
"""The time and the level that llama.cpp writes before a line."""
WINDOWS_CODES = {0xC000001D: "SIGILL", 0xC0000006: "SIGBUS", 0xC0000005: "SIGSEGV", 0xC0000409: "SIGABRT"}


@dataclass(frozen=True, slots=True)
class ModelNames:
    """What messages call the model, its files and its device."""

    model: str
    file: str
    mmproj: str
    device: str
    context: int


def reason_of(
    names: ModelNames, lines: Sequence[str], returncode: int | None, answer: Mapping[str, Any] | None = None
) -> ModelError:
    """The error for a child with this log, return code (None: it was ended) and answer."""
    if answer and answer.get("failed") == "import":
        return _import_failure(str(answer.get("detail", "")), bool(answer.get("missing")))
    text = "\n".join(lines)
    by_signal = _by_signal(names, returncode)
    detail = str((answer or {}).get("detail", ""))
    return _by_log(names, text) or by_signal or _unknown(names, lines or [detail], returncode)


def crash_reason_of(names: ModelNames, lines: Sequence[str], returncode: int | None) -> ModelError:
    """The error for a child that had been serving: what its log says about files is of requests that failed before."""
    text = "\n".join(lines[-CRASH_LINES:])
    if found := _by_signal(names, returncode) or _by_card(names, text):
        return found
    return OutOfMemory("out_of_memory") if NO_MEMORY.search(text) else _unknown(names, lines, returncode)


def signal_name(returncode: int | None) -> str:
    """The signal that ended a process; empty if none did."""
    if returncode is None:
        return ""
    if returncode & 0xFFFFFFFF in WINDOWS_CODES:
        return WINDOWS_CODES[returncode & 0xFFFFFFFF]
    number = -returncode if returncode < 0 else returncode - 128
    try:
        return signal.Signals(number).name
    except ValueError:
        return ""


def last_error(lines: Sequence[str]) -> str:
    """The last line of a log that says something, without its time, cut to a sentence's length."""
    said = [match["text"] if (match := PREFIX.match(line)) else line for line in lines]
    worth = [
        each for each in said if not re.search(r"exiting due to|failed to load model|failed to create_?context", each)
    ]
    return (worth or said or [""])[-1][:MAX_REASON].rstrip(" .")


def _import_failure(detail: str, missing: bool) -> ModelError:
    if missing:
        return LibraryMissing("llama_cpp_missing")
    return ModelError("gguf_library_unusable", reason=detail[:MAX_REASON].rstrip(" ."))


def _by_card(names: ModelNames, text: str) -> ModelError | None:
    card = CARD.search(text)
    if card is None:
        return None
    if NO_MEMORY.search(card[1]):
        return OutOfMemory("gguf_out_of_memory", model=names.model, device=names.device)
    return ModelError("gguf_card_failed", device=names.device, reason=card[1][:MAX_REASON].rstrip(" ."))


def _by_log(names: ModelNames, text: str) -> ModelError | None:
    if card := _by_card(names, text):
        return card
    if NO_MEMORY.search(text):
        if CONTEXT.search(text):
            return OutOfMemory("gguf_context_too_large", model=names.model, device=names.device, tokens=names.context)
        return OutOfMemory("gguf_out_of_memory", model=names.model, device=names.device)
    if unopened := UNOPENED.search(text):
        file = Path(unopened["file"]).name or names.file
        return ModelFilesBroken("model_file_unreadable", model=names.model, file=file, reason=unopened["reason"])
    projector = names.mmproj and PROJECTOR.search(text)
    if unsupported := UNSUPPORTED.search(text):
        return ModelError("gguf_unsupported", model=names.model, reason=unsupported[1][:MAX_REASON])
    if "CLIP cannot be used as main model" in text:
        return NotAMistralModel("gguf_projector", model=names.file)
    if projector:
        return ModelFilesBroken("gguf_projector_unusable", model=names.model, file=names.mmproj)
    if DAMAGED.search(text):
        return ModelFilesBroken(model=names.model, file=names.file)
    if REFUSED.search(text):
        return ModelFilesBroken("gguf_damaged", model=names.model, file=names.file)
    return None


def _by_signal(names: ModelNames, returncode: int | None) -> ModelError | None:
    name = signal_name(returncode)
    if name == "SIGILL":
        return ModelError("gguf_processor_too_old")
    if name == "SIGBUS":
        return ModelFilesBroken("gguf_file_changed", model=names.model, file=names.file)
    if name == "SIGKILL":
        return OutOfMemory("gguf_killed", model=names.model)
    return None


def _unknown(names: ModelNames, lines: Sequence[str], returncode: int | None) -> ModelError:
    reason = last_error(lines) or signal_name(returncode) or f"exit code {returncode}"
    return ModelError("gguf_ended", model=names.model, reason=reason)
