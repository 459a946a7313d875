"""Gives freed host memory back to the system; it knows nothing of models or devices."""

import ctypes
import sys
from functools import cache
from typing import Any


def trim_heap() -> None:
    """Return free pages to the system. glibc does so by itself only at the end of its heap, and Windows and macOS throughout.

    Loading and the first forward of a quantized 3B otherwise leave 0.3 GiB of free pages between its weights.
    """
    if (trim := _malloc_trim()) is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:
    """glibc's function; None where another library allocates."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
