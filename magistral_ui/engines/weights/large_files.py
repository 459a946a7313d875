"""Downloads a repository's large files into the Hub's own cache; it does not choose them.

The Hub's client would discard a partial file. Here a download resumes where it stopped, even after a restart, and a file is
accepted only if its SHA-256 matches the Hub's.
"""

import hashlib
import re
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_url
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # from httpx or httpx2, by version
from huggingface_hub.file_download import are_symlinks_supported, http_get
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    WeakFileLock,
    build_hf_headers,
    hf_raise_for_status,
    http_stream_backoff,
)

from magistral_ui.engines.weights.hub_cache import repository_folder
from magistral_ui.engines.weights.progress import Cancelled, Meter, Report
from magistral_ui.errors import DownloadFailed

PARALLEL_DOWNLOADS = 4
MIN_FREE_BYTES = 2**28
"""Disk space left free after a download."""
PARTIAL_CONTENT = 206
READ_ATTEMPTS = 3
"""Attempts to read a part of a file if the connection breaks."""
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class LargeFile:
    """A file that the Hub keeps by its SHA-256: weights, or a tokenizer."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class BlobStore:
    """Where the Hub's cache keeps a repository's large files."""

    repository: str
    commit: str
    blobs: Path
    """Files named by their SHA-256; a snapshot's symbolic links point here."""
    locks: Path
    snapshot: Path
    """Holds the files themselves if symbolic links are not supported (mostly Windows)."""

    @staticmethod
    def of(repository: str, commit: str) -> "BlobStore":
        folder = repository_folder(repository)
        locks = folder.parent / ".locks" / folder.name
        store = BlobStore(repository, commit, folder / "blobs", locks, folder / "snapshots" / commit)
        store.blobs.mkdir(parents=True, exist_ok=True)
        store.locks.mkdir(parents=True, exist_ok=True)
        return store

    def has(self, file: LargeFile) -> bool:
        """Whether `file` is complete, in either place."""
        return (self.blobs / file.sha256).exists() or _size(self.snapshot / file.name) == file.size

    def place(self, files: list[LargeFile]) -> None:
        """Without symbolic links, move the files to their names; the client would copy them, using the disk space twice.

        All are moved at the end, so that half a model never looks complete.
        """
        if are_symlinks_supported(constants.HF_HUB_CACHE):
            return
        for file in files:
            blob, named = self.blobs / file.sha256, self.snapshot / file.name
            if any(other.is_symlink() for other in self.snapshot.parent.glob(f"*/{escape(file.name)}")):
                continue  # an older snapshot has symbolic links, which point to the blob
            if _size(named) == file.size:
                blob.unlink(missing_ok=True)  # an older version left a copy of it
            elif blob.exists():
                named.parent.mkdir(parents=True, exist_ok=True)
                blob.replace(named)


def large_files(files: list[Any]) -> list[LargeFile]:
    """Those that the Hub keeps by their SHA-256."""
    kept = [file for file in files if file.lfs is not None and _SHA256.fullmatch(file.lfs.sha256)]
    return [LargeFile(file.rfilename, file.lfs.size, file.lfs.sha256) for file in kept]


def fetch_large(
    repository: str, parts: list[tuple[BlobStore, list[LargeFile]]], report: Report, closing: threading.Event
) -> None:
    """Fetch what is missing of `parts`, a few at once. The progress covers all of them, including complete files."""
    missing = [(store, file) for store, files in parts for file in files if not store.has(file)]
    if not missing:
        return
    left = sum(max(0, file.size - _size(partial_file(store.blobs, file))) for store, file in missing)
    total = sum(file.size for _, files in parts for file in files)
    free = shutil.disk_usage(constants.HF_HUB_CACHE).free
    if free < left + MIN_FREE_BYTES:
        raise disk_full(repository, left + MIN_FREE_BYTES, free)
    meter = Meter("downloading", total, report, closing, done=total - left)

    def fetch(store: BlobStore, file: LargeFile) -> None:
        url = hf_hub_url(store.repository, file.name, revision=store.commit)
        with WeakFileLock(store.locks / f"{file.sha256}.lock"):
            _fetch(store.repository, url, file, store, meter)

    with ThreadPoolExecutor(PARALLEL_DOWNLOADS, thread_name_prefix="download") as pool:
        fetching = [pool.submit(fetch, store, file) for store, file in missing]
        while any(not each.done() for each in fetching):
            if closing.wait(0.05) or any(each.done() and each.exception() for each in fetching):
                meter.stop()  # once one has failed, the others are pointless
                break  # the pool waits for them
    failures = [error for each in fetching if (error := each.exception()) is not None]
    if failures:
        raise next((error for error in failures if not isinstance(error, Cancelled)), failures[0])


def read_range(repository: str, commit: str, name: str, start: int, length: int, closing: threading.Event) -> bytes:
    """Up to `length` bytes of a file on the Hub, from `start`; nothing is kept. Raises what the Hub's client does, or Cancelled.

    A server that ignores the range sends the file from its beginning; the connection is closed as soon as enough has come.
    """
    url, data = hf_hub_url(repository, name, revision=commit), bytearray()
    for attempt in range(1, READ_ATTEMPTS + 1):
        try:
            _read_range(url, data, start, length, closing)
            break
        except HTTPError:
            if attempt == READ_ATTEMPTS:
                raise
    return bytes(data)


def _read_range(url: str, data: bytearray, start: int, length: int, closing: threading.Event) -> None:
    """Add to `data`, which may hold the beginning already, until it has `length` bytes or the file ends."""
    begin = start + len(data)
    headers = build_hf_headers() | {"Range": f"bytes={begin}-{start + length - 1}", "Accept-Encoding": "identity"}
    timeout, retried = constants.HF_HUB_DOWNLOAD_TIMEOUT, (408, 429)
    with http_stream_backoff(
        "GET", url, headers=headers, timeout=timeout, retry_on_exceptions=(), retry_on_status_codes=retried
    ) as response:
        hf_raise_for_status(response)
        skip = 0 if response.status_code == PARTIAL_CONTENT else begin
        for chunk in response.iter_bytes():
            if closing.is_set():
                raise Cancelled
            data += chunk[skip : skip + length - len(data)]
            skip = max(0, skip - len(chunk))
            if len(data) >= length:
                break


def _fetch(repository: str, url: str, file: LargeFile, store: BlobStore, meter: Meter) -> None:
    blob, partial = store.blobs / file.sha256, partial_file(store.blobs, file)
    if store.has(file):  # another process has downloaded it
        meter.add(file.size)
        return
    if file.size > constants.MAX_HTTP_DOWNLOAD_SIZE:  # the Hub serves larger files by its own protocol only
        reason = f"{file.name}: {round(file.size / 1e9)} GB > {round(constants.MAX_HTTP_DOWNLOAD_SIZE / 1e9)} GB"
        raise DownloadFailed(model=repository, reason=reason)
    if _size(partial) > file.size:
        partial.unlink()
    with partial.open("ab") as out:
        http_get(
            url,
            out,
            resume_size=_size(partial),
            headers=build_hf_headers(),
            expected_size=file.size,
            tqdm_class=_bars(meter.add),
        )
    if _sha256(partial, meter) != file.sha256:
        partial.unlink()
        raise DownloadFailed("file_corrupt", model=repository, file=file.name)
    partial.replace(blob)


def partial_file(blobs: Path, file: LargeFile) -> Path:
    return blobs / f"{file.sha256}.partial"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path, meter: Meter) -> str:
    found = hashlib.sha256()
    with path.open("rb") as opened:
        while block := opened.read(2**22):
            found.update(block)
            meter.add(0)
    return found.hexdigest()


def _bars(add: Callable[[float | None], None]) -> Any:

    class Bar(nullcontext[Any]):
        def __init__(self, **_: object) -> None:
            super().__init__(self)

        def update(self, count: float | None = 1) -> None:
            add(count)

    return Bar


def disk_full(repository: str, needed: int, free: int) -> DownloadFailed:
    return DownloadFailed(
        "disk_full",
        model=repository,
        needed=round(needed / 1e9, 1),
        free=round(free / 1e9, 1),
        folder=str(constants.HF_HUB_CACHE),
    )


def existing_folder(path: Path) -> Path:
    """`path` itself, or the nearest folder above it that exists."""
    return next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
