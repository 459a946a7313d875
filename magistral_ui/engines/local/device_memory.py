"""Tells that a device has no room left from other failures, and gives back what torch holds of it without use."""

import torch


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether a device (or this machine) had no room left; also where that only led to `error`.

    A CUDA graph that breaks for want of memory says so in the error before its last one. Apple's GPU has no error of its own.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        text = str(error)
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        if "can't allocate memory" in text or "backend out of memory" in text:
            return True
        error = error.__cause__ or error.__context__
    return False


def empty_device_cache() -> None:
    """Give unused memory back to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
