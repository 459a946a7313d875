"""Downloads the files that a model needs from the Hugging Face Hub into the Hub's own cache; it does not read them.

The Hub's client lays out the cache, finds the token (HF_TOKEN, `hf auth login`) and the mirror (HF_ENDPOINT). The large files
are fetched by `large_files.py` instead, into the same cache.
"""

import errno
import os
import shutil
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from huggingface_hub import HfApi, ModelInfo, constants, hf_hub_download, snapshot_download
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
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

from magistral_ui.engines.base import Loading
from magistral_ui.engines.weights.hub_cache import hub_cache
from magistral_ui.engines.weights.large_files import (
    MIN_FREE_BYTES,
    BlobStore,
    LargeFile,
    disk_full,
    existing_folder,
    fetch_large,
    large_files,
)
from magistral_ui.engines.weights.originals import BORROWED_FILES, TOKENIZER, find_original
from magistral_ui.engines.weights.progress import Report
from magistral_ui.environment import ProxyUnusable, check_proxies
from magistral_ui.errors import DownloadFailed, HoldsGGUF, ModelError, ModelNotFound, causes
from magistral_ui.models.folder import inspect_folder, is_commit, read_json
from magistral_ui.models.gguf_names import is_safe_path

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
Held = TypeVar("Held")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The downloaded files of a repository, in the cache."""

    folder: Path
    commit: str


def download(repository: str, revision: str | None, report: Report, closing: threading.Event) -> Snapshot:
    """Download the needed files of `repository` at `revision` (None: the newest); complete files are never fetched again.

    The Hub is not contacted for a commit that is complete in the cache. Offline, the cached files are used. Raises
    ModelNotFound, DownloadFailed or progress.Cancelled.
    """
    disable_progress_bars()  # the page shows the progress
    report(Loading("downloading"))
    if is_commit(revision) and (held := held_snapshot(repository, revision)):
        return held
    with sentences(repository, revision):
        info = repository_info(repository, revision, lambda: _cached(repository, revision))
        if isinstance(info, Snapshot):
            return info
        needed = [file for file in info.siblings or () if any(fnmatch(file.rfilename, p) for p in NEEDED_FILES)]
        names = {file.rfilename for file in needed}
        original = None if TOKENIZER in names else find_original(info)
        _check_not_gguf(repository, info)
        _check_names(repository, names | ({TOKENIZER} if original else set()))
        own = BlobStore.of(repository, str(info.sha))
        parts = [(own, large_files(needed))]
        lent = [f for f in original.siblings or () if f.rfilename in BORROWED_FILES] if original else []
        lent = [file for file in lent if file.rfilename not in names]
        if original:
            parts.append((replace(own, repository=original.id, commit=str(original.sha)), large_files(lent)))
        fetch_parts(repository, parts, report, closing)
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=list(NEEDED_FILES)))
        if original:
            _borrow(original, lent, own, folder)
    return Snapshot(folder, folder.name)


def repository_info(repository: str, revision: str | None, held: Callable[[], Held | None]) -> ModelInfo | Held:
    """What the Hub says of a repository and its files; where it cannot be asked, what is `held` already, if anything is.

    Raises what the Hub's client does. Files with a name that leads out of the repository's folder are left out.
    """
    try:
        check_proxies()
        info = HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=10)
    except (OfflineModeIsEnabled, HTTPError, OSError) as error:
        # A refusal is more useful to know than an old cached copy.
        refused = isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403, 404)
        if refused or (found := held()) is None:
            raise
        return found
    info.siblings = [file for file in info.siblings or () if is_safe_path(file.rfilename)]
    return info


def fetch_parts(
    repository: str, parts: list[tuple[BlobStore, list[LargeFile]]], report: Report, closing: threading.Event
) -> None:
    """Download what is missing of `parts`, large files of one or more repositories, into the Hub's cache."""
    fetch_large(repository, parts, report, closing)
    for store, files in parts:
        store.place(files)


def _check_not_gguf(repository: str, info: ModelInfo) -> None:
    """Reject a repository that has GGUF files and no safetensors."""
    endings = {Path(file.rfilename).suffix.casefold() for file in info.siblings or ()}
    if ".gguf" in endings and ".safetensors" not in endings:
        raise HoldsGGUF(model=repository)


def _borrow(original: ModelInfo, lent: list[Any], own: BlobStore, folder: Path) -> None:
    """Put the files that `original` lends into the snapshot in `folder`, so that it is complete without the Hub from now on.

    The original's own folder in the cache stays as it is: otherwise it would look like a download that was begun.
    """
    for file in large_files([file for file in lent if not (folder / file.rfilename).exists()]):
        (own.blobs / file.sha256).replace(folder / file.name)
    with TemporaryDirectory() as place:
        for name in (file.rfilename for file in lent if not (folder / file.rfilename).exists()):
            found = hf_hub_download(original.id, name, revision=original.sha, local_dir=place)
            unfinished = folder / f".{name}.partial"
            shutil.copyfile(found, unfinished)
            unfinished.replace(folder / name)


def read_config(repository: str, revision: str | None) -> dict[str, Any]:
    """Read a repository's config.json before anything else is downloaded; raises what `download` does, or ModelFilesBroken."""
    with sentences(repository, revision):
        check_proxies()
        if _cached(repository, revision) is None:  # repositories of GGUF files may have a config.json, too
            _check_not_gguf(repository, HfApi().model_info(repository, revision=revision, timeout=10))
        try:
            file = hf_hub_download(repository, "config.json", revision=revision)
        except RemoteEntryNotFoundError as error:  # Mistral's own format alone
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


@contextmanager
def sentences(repository: str, revision: str | None) -> Iterator[None]:
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
            free = shutil.disk_usage(existing_folder(hub_cache())).free
            raise disk_full(repository, free + MIN_FREE_BYTES, free) from error
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise DownloadFailed(model=repository, reason=reason) from error
