"""Stores images as files named by the SHA-256 of their content, each one once; it does not know which messages use them."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

NAME = re.compile(r"[0-9a-f]{64}")


class ImageStore:
    """A folder of images; without a folder, they are kept in memory."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._memory: dict[str, bytes] = {}

    def put(self, digest: str, data: bytes) -> None:
        """Store `data`; all of it is on disk when this returns. Raises OSError if it cannot be written."""
        if self._folder is None:
            self._memory[digest] = data
            return
        path = self._path(digest)
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        try:
            with unfinished.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise

    def get(self, digest: str) -> bytes | None:
        if self._folder is None:
            return self._memory.get(digest)
        try:
            return self._path(digest).read_bytes()
        except OSError:
            return None

    def remove(self, digest: str) -> bool:
        """Delete an image, if it exists; whether it is gone."""
        if self._folder is None:
            self._memory.pop(digest, None)
            return True
        return _unlinked(self._path(digest))

    def all(self) -> Iterator[str]:
        if self._folder is None:
            yield from tuple(self._memory)
            return
        yield from sorted(path.name for path in self._folder.glob("*/*") if NAME.fullmatch(path.name))

    def remove_unfinished(self) -> bool:
        """Delete partly written images; whether all of them are gone."""
        unfinished = self._folder.glob("*/*.part") if self._folder is not None else ()
        gone = [_unlinked(path) for path in unfinished]
        return all(gone)

    def _path(self, digest: str) -> Path:
        if self._folder is None or not NAME.fullmatch(digest):
            raise ValueError("not a digest")
        return self._folder / digest[:2] / digest


def _unlinked(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True
