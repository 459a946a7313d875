"""Recognises out-of-memory errors of every backend, and returns torch's unused memory to the device."""

import errno

import torch

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


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether `error`, or one that caused it, says that a device (or this machine) is out of memory.

    A CUDA graph that runs out of memory says so only in the error before its last one. MPS has no exception type of its own.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or _says_so(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _says_so(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM or getattr(error, "winerror", None) in NO_MEMORY_ON_WINDOWS
    words = str(error).lower()
    return any(each in words for each in NO_MEMORY)


def empty_device_cache() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
