"""Downloads the files that a model needs from the Hugging Face Hub into the Hub's own cache; it does not read them.

The Hub's client lays out the cache, finds the token (HF_TOKEN, `hf auth login`) and the mirror (HF_ENDPOINT). Weights are
downloaded here instead, into the same cache, because the client discards a partial file: here the download resumes where it
stopped, even after a restart, and a file is accepted only if its SHA-256 matches the Hub's.
"""

import errno
import hashlib
import os
import shutil
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, hf_hub_download, hf_hub_url, snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError comes from httpx or httpx2, by version
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import are_symlinks_supported, http_get, repo_folder_name
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    WeakFileLock,
    build_hf_headers,
    disable_progress_bars,
)

from magistral_ui.engines.base import Loading
from magistral_ui.engines.weights.originals import BORROWED_FILES, TOKENIZER, find_original
from magistral_ui.engines.weights.progress import Cancelled, Meter, Report
from magistral_ui.environment import ProxyUnusable, check_proxies
from magistral_ui.errors import DownloadFailed, ModelError, ModelNotFound, causes
from magistral_ui.models.folder import inspect_folder, is_commit, read_json

NEEDED_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    "tekken.json",
    "SYSTEM_PROMPT.txt",
)
"""The rest of each repository is the same weights in another format, just as large."""
PARALLEL_DOWNLOADS = 4
MIN_FREE_BYTES = 2**28
"""Disk space left free after a download."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The downloaded files of a repository, in the cache."""

    folder: Path
    commit: str


@dataclass(frozen=True, slots=True)
class _Weights:
    """One weights file of a repository."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class _Store:
    """Where the Hub's cache keeps a repository's large files."""

    repository: str
    commit: str
    blobs: Path
    """Files named by their SHA-256; a snapshot's symbolic links point here."""
    locks: Path
    snapshot: Path
    """Holds the files themselves where symbolic links are not supported (mostly Windows)."""

    @staticmethod
    def of(repository: str, commit: str) -> "_Store":
        cache, folder = Path(constants.HF_HUB_CACHE), repo_folder_name(repo_id=repository, repo_type="model")
        store = _Store(
            repository,
            commit,
            cache / folder / "blobs",
            cache / ".locks" / folder,
            cache / folder / "snapshots" / commit,
        )
        store.blobs.mkdir(parents=True, exist_ok=True)
        store.locks.mkdir(parents=True, exist_ok=True)
        return store

    def has(self, file: _Weights) -> bool:
        """Whether `file` is complete, in either place."""
        return (self.blobs / file.sha256).exists() or _size(self.snapshot / file.name) == file.size

    def place(self, files: list[_Weights]) -> None:
        """Without symbolic links, move the files to their names; the client would copy them, using the disk space twice.

        All are moved at the end, so that half a model never looks complete.
        """
        if are_symlinks_supported(constants.HF_HUB_CACHE):
            return
        for file in files:
            blob, named = self.blobs / file.sha256, self.snapshot / file.name
            if any(other.is_symlink() for other in self.snapshot.parent.glob(f"*/{file.name}")):
                continue  # an older snapshot has symbolic links, which point to the blob
            if _size(named) == file.size:
                blob.unlink(missing_ok=True)  # an older version left a copy of it
            elif blob.exists():
                named.parent.mkdir(parents=True, exist_ok=True)
                blob.replace(named)


def download(repository: str, revision: str | None, report: Report, closing: threading.Event) -> Snapshot:
    """Download the needed files of `repository` at `revision` (None: the newest); complete files are never fetched again.

    The Hub is not contacted for a commit that is complete in the cache. Offline, the cached files are used. Raises
    ModelNotFound, DownloadFailed or progress.Cancelled.
    """
    disable_progress_bars()  # the page shows the progress
    report(Loading("downloading"))
    if is_commit(revision) and (held := held_snapshot(repository, revision)):
        return held
    with _sentences(repository, revision):
        try:
            check_proxies()
            info = HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=10)
        except (OfflineModeIsEnabled, HTTPError, OSError) as error:
            # A refusal is more useful to know than an old cached copy.
            refused = isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403, 404)
            if refused or (cached := _cached(repository, revision)) is None:
                raise
            return cached
        needed = [file for file in info.siblings or () if any(fnmatch(file.rfilename, p) for p in NEEDED_FILES)]
        names = {file.rfilename for file in needed}
        original = None if TOKENIZER in names else find_original(info)
        _check_names(repository, names | ({TOKENIZER} if original else set()))
        parts = [(_Store.of(repository, str(info.sha)), _large(needed))]
        if original:
            lent = [f for f in original.siblings or () if f.rfilename in BORROWED_FILES and f.rfilename not in names]
            parts.append((_Store.of(original.id, str(original.sha)), _large(lent)))
        _fetch_weights(repository, parts, report, closing)
        for store, files in parts:
            store.place(files)
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=list(NEEDED_FILES)))
        if original:
            _borrow(original.id, str(original.sha), folder)
    return Snapshot(folder, folder.name)


def _large(files: list[Any]) -> list[_Weights]:
    """Those that the Hub keeps by their SHA-256."""
    return [_Weights(file.rfilename, file.lfs.size, file.lfs.sha256) for file in files if file.lfs is not None]


def _borrow(original: str, commit: str, folder: Path) -> None:
    """Copy what the snapshot in `folder` lacks from its original, so that it is complete without the Hub from now on."""
    source = Path(snapshot_download(original, revision=commit, allow_patterns=list(BORROWED_FILES)))
    for name in BORROWED_FILES:
        if (source / name).is_file() and not (folder / name).exists():
            unfinished = folder / f".{name}.partial"
            shutil.copyfile(source / name, unfinished)
            unfinished.replace(folder / name)


def read_config(repository: str, revision: str | None) -> dict[str, Any]:
    """Read a repository's config.json before anything else is downloaded; raises what `download` does, or ModelFilesBroken."""
    with _sentences(repository, revision):
        check_proxies()
        try:
            file = hf_hub_download(repository, "config.json", revision=revision)
        except RemoteEntryNotFoundError as error:  # GGUF files, or Mistral's own format alone
            raise DownloadFailed("file_missing", model=repository, file="config.json") from error
    return read_json(Path(file).parent, "config.json", repository)


def held_snapshot(repository: str, revision: str | None) -> Snapshot | None:
    """The files at `revision`, if all that are needed are in the cache; the Hub is not contacted."""
    held = _cached(repository, revision)
    return held if held and _is_whole(held.folder) else None


def _cached(repository: str, revision: str | None) -> Snapshot | None:
    try:
        found = snapshot_download(
            repository, revision=revision, allow_patterns=list(NEEDED_FILES), local_files_only=True
        )
    except LocalEntryNotFoundError:
        return None
    return Snapshot(Path(found), Path(found).name)


def _is_whole(folder: Path) -> bool:
    try:
        return bool(inspect_folder(folder))
    except ModelError:
        return False


def _check_names(repository: str, names: set[str]) -> None:
    """Reject a repository that lacks a required file, before anything is downloaded."""
    for wanted in ("config.json", "tekken.json"):
        if wanted not in names:
            raise DownloadFailed("file_missing", model=repository, file=wanted)
    if not any(name.endswith(".safetensors") for name in names):
        raise DownloadFailed("file_missing", model=repository, file="model.safetensors")


def _fetch_weights(
    repository: str, parts: list[tuple[_Store, list[_Weights]]], report: Report, closing: threading.Event
) -> None:
    missing = [(store, file) for store, files in parts for file in files if not store.has(file)]
    if not missing:
        return
    begun = sum(min(file.size, _size(_partial(store.blobs, file))) for store, file in missing)
    total = sum(file.size for _, file in missing)
    free = shutil.disk_usage(constants.HF_HUB_CACHE).free
    if free < total - begun + MIN_FREE_BYTES:
        raise _disk_full(repository, total - begun + MIN_FREE_BYTES, free)
    stop = threading.Event()
    meter = Meter("downloading", total, report, stop, done=begun)

    def fetch(store: _Store, file: _Weights) -> None:
        url = hf_hub_url(store.repository, file.name, revision=store.commit)
        with WeakFileLock(store.locks / f"{file.sha256}.lock"):
            _fetch(store.repository, url, file, store, meter)

    with ThreadPoolExecutor(PARALLEL_DOWNLOADS, thread_name_prefix="download") as pool:
        begun_files = [pool.submit(fetch, store, file) for store, file in missing]
        while any(not each.done() for each in begun_files):
            if closing.wait(0.05) or any(each.done() and each.exception() for each in begun_files):
                stop.set()  # once one has failed, the others are pointless
    failures = [error for each in begun_files if (error := each.exception()) is not None]
    if failures:
        raise next((error for error in failures if not isinstance(error, Cancelled)), failures[0])


def _fetch(repository: str, url: str, file: _Weights, store: _Store, meter: Meter) -> None:
    blob, partial = store.blobs / file.sha256, _partial(store.blobs, file)
    if store.has(file):  # another process has downloaded it
        meter.add(file.size)
        return
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


def _partial(blobs: Path, file: _Weights) -> Path:
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


def _disk_full(repository: str, needed: int, free: int) -> DownloadFailed:
    return DownloadFailed(
        "disk_full",
        model=repository,
        needed=f"{needed / 1e9:.1f}",
        free=f"{free / 1e9:.1f}",
        folder=str(constants.HF_HUB_CACHE),
    )


@contextmanager
def _sentences(repository: str, revision: str | None) -> Iterator[None]:
    """Turn each failure of the Hub's client into an error with a remedy."""
    host = constants.ENDPOINT
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise DownloadFailed("hub_offline", model=repository) from error
    except GatedRepoError as error:
        raise DownloadFailed("access_denied", model=repository, host=host) from error
    except RevisionNotFoundError as error:
        raise ModelNotFound("revision_not_found", model=repository, revision=revision or "main") from error
    except RepositoryNotFoundError as error:
        raise ModelNotFound("repository_not_found", model=repository, host=host) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        key = {401: "token_refused", 403: "access_denied", 404: "file_gone"}.get(status, "hub_failed")
        raise DownloadFailed(key, model=repository, host=host, status=status) from error
    except ProxyUnusable as error:
        raise DownloadFailed("proxy_unusable", model=repository, name=error.name) from error
    except (HTTPError, LocalEntryNotFoundError) as error:  # the latter: a file is neither cached nor reachable
        cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
        unreachable = "Connect" in type(cause).__name__
        key = "hub_unreachable" if unreachable else "connection_lost"
        if any(isinstance(each, ssl.SSLCertVerificationError) for each in causes(error)):
            key = "hub_certificate"  # of the Hub, or of an inspecting proxy
        raise DownloadFailed(key, model=repository, host=host) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(existing_folder(Path(constants.HF_HUB_CACHE))).free
            raise _disk_full(repository, free + MIN_FREE_BYTES, free) from error
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise DownloadFailed(model=repository, reason=reason) from error


def existing_folder(path: Path) -> Path:
    """`path` itself, or the nearest folder above it that exists."""
    return next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
