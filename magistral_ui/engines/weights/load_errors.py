"""Classifies what goes wrong while a model is loaded or memory runs out, so that each failure gets its own remedy."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import core_model_loading

from magistral_ui.errors import ModelError, ModelFilesBroken, OutOfMemory, causes, first_line
from magistral_ui.models.folder import FolderFacts, inspect_folder

NO_MEMORY = (
    "out of memory",  # CUDA, MPS, and C10 in general
    "can't allocate memory",  # torch on a processor
    "not enough memory",  # the same on Windows, and oneMKL
    "cannot allocate memory",  # mapping a file
    "paging file is too small",  # the same on Windows
    "invalid buffer size",  # MPS, for more than it could ever give
    "alloc_failed",  # cuBLAS and cuDNN
    "std::bad_alloc",
)
"""Parts of messages by which libraries without an exception type of their own report it."""
NO_MEMORY_ON_WINDOWS = (8, 14, 1455)
"""ERROR_NOT_ENOUGH_MEMORY, ERROR_OUTOFMEMORY, ERROR_COMMITMENT_LIMIT."""
LIBRARY_ERRORS = (
    OSError,
    RuntimeError,
    MemoryError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    ImportError,
    SafetensorError,
    StrictDataclassError,
)
"""What torch (whose OutOfMemoryError is a RuntimeError), transformers, safetensors and bitsandbytes raise."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether `error`, or one that caused it, says that a device (or this machine) is out of memory.

    A CUDA graph that runs out of memory says so only in the error before its last one. MPS has no exception type of its own.
    """
    return any(isinstance(each, torch.OutOfMemoryError | MemoryError) or _says_so(each) for each in causes(error))


def _says_so(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM or getattr(error, "winerror", None) in NO_MEMORY_ON_WINDOWS
    words = str(error).lower()
    return any(each in words for each in NO_MEMORY)


@contextmanager
def memory_named(model: str, device: str) -> Iterator[None]:
    """Within this context, running out of memory raises OutOfMemory, whatever the libraries make of it."""
    try:
        yield
    except LIBRARY_ERRORS as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory("out_of_memory_loading", model=model, device=device) from error


@contextmanager
def first_error_raised() -> Iterator[None]:
    """Within this context, transformers raises the first error of a conversion.

    It would otherwise collect the errors of hundreds of tensors and raise one message without a cause.
    """
    usual = core_model_loading.log_conversion_errors
    core_model_loading.log_conversion_errors = lambda *_, **__: nullcontext()
    try:
        yield
    finally:
        core_model_loading.log_conversion_errors = usual


def failure_of(error: Exception, folder: Path, model: str, device: str) -> ModelError:
    """The ModelError for `error`, raised while `folder` was loaded; only files that really are damaged are called so."""
    if is_out_of_memory(error):
        return OutOfMemory("out_of_memory_loading", model=model, device=device)
    if isinstance(error, OSError) and error.errno:
        name = Path(str(error.filename)).name if error.filename else folder.name
        return ModelFilesBroken("model_file_unreadable", model=model, file=name, reason=os.strerror(error.errno))
    try:
        inspect_folder(folder)  # a file may have been truncated since
    except ModelError as found:
        return found
    return ModelError("model_not_loaded", model=model, reason=first_line(error))


def check_tensors(facts: FolderFacts, kind: Any, config: Any, model: str) -> None:
    """Reject weights that do not match `kind` and `config` before loading them, by the names and shapes in their headers.

    transformers would initialise missing tensors at random, and quantize those of another shape. Unknown names may be other
    spellings of what is missing: then `check_loaded` decides after loading.
    """
    try:
        with torch.device("meta"):
            state = kind(config).state_dict()
    except LIBRARY_ERRORS as error:  # the configuration has the right form, but describes no model
        raise ModelFilesBroken(model=model, file="config.json") from error
    wanted = {plain(name): (name, tuple(each.shape)) for name, each in state.items()}
    held = {plain(name): shape for name, shape in facts.shapes.items()}
    known = wanted.keys() >= held.keys()
    for short, (name, expected) in wanted.items():
        found = held.get(short)
        if found is None and (not known or (short == "lm_head.weight" and facts.shape.tied)):
            continue
        if found is None:
            raise ModelFilesBroken("weights_missing", model=model, name=name)
        if found != expected:
            raise ModelFilesBroken(
                "weights_misshapen", model=model, name=name, found=_size(found), expected=_size(expected)
            )


def check_loaded(info: dict[str, Any], model: str) -> None:
    """Reject a model for which transformers reports tensors that were missing or mismatched."""
    missing = sorted({*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])})
    if missing:
        raise ModelFilesBroken("weights_missing", model=model, name=missing[0])


def plain(name: str) -> str:
    """A tensor's name without the prefixes in which checkpoints and modules differ (`model.`, `language_model.`)."""
    return ".".join(part for part in name.split(".") if part not in ("model", "language_model"))


def _size(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
