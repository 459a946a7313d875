"""Keeps files that are made from others, such as the tokenizer of a GGUF file, in the user's cache: whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from platformdirs import user_cache_path

APP_NAME = "magistral-ui"


@cache
def _temporary_folder() -> Path:
    """Of this process alone. The system cleans it up later: llama.cpp may still have its files mapped at the end."""
    return Path(tempfile.mkdtemp(prefix=f"{APP_NAME}-"))


def cached(name: str, write: Callable[[Path], None]) -> Path:
    """The file `name` of the user's cache folder; if it is not there, `write` makes it.

    Where the cache cannot be written, a temporary folder takes its place. Raises OSError if that cannot be written either.
    """
    file = user_cache_path(APP_NAME) / name
    try:
        if file.is_file():
            return file
        return _written(file, write)
    except OSError:
        file = _temporary_folder() / name
        return file if file.is_file() else _written(file, write)


def _written(file: Path, write: Callable[[Path], None]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(suffix=f".{file.name}", prefix=".", dir=file.parent)
    os.close(number)
    unfinished = Path(name)
    try:
        write(unfinished)
        with unfinished.open("rb+") as opened:
            os.fsync(opened.fileno())
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
    return file
