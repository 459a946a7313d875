"""Knows which models are on this computer, and downloads, pauses and removes them in the background; it loads none.

It deletes only what this app may: revisions of a repository in the Hub's cache, its partial files, and quantized copies of it.
Folders of the user are never touched.
"""

import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from huggingface_hub import constants, scan_cache_dir
from huggingface_hub.errors import CacheNotFound
from huggingface_hub.file_download import repo_folder_name

from magistral_ui.engines.base import Loading
from magistral_ui.engines.weights.hub import Snapshot, download, existing_folder
from magistral_ui.engines.weights.progress import Cancelled
from magistral_ui.engines.weights.quantized_cache import ORIGIN_FILE, copies_folder
from magistral_ui.engines.weights.source import REFERENCE, is_complete, record, recorded
from magistral_ui.errors import BadInput, MagistralUIError, Message, ModelRefused
from magistral_ui.models.cards import CARDS, FAMILY, RE_UPLOADS, ModelCard
from magistral_ui.models.folder import is_repository
from magistral_ui.models.shape import weight_bytes

log = logging.getLogger(__name__)

State = Literal["absent", "partial", "downloading", "paused", "complete"]
Fetch = Callable[[str, str | None, Callable[[Loading], None], threading.Event], Snapshot]
FileMarks = frozenset[tuple[str, int, int]]
JOIN_TIMEOUT = 10.0
"""Seconds for a download to notice that it is to pause."""


@dataclass(frozen=True, slots=True)
class LibraryEntry:
    """A repository, and how much of it is on this computer; sizes in bytes."""

    key: str
    """The card's, or the repository's name."""
    repository: str
    card: ModelCard | None
    state: State
    on_disk: int
    """Everything of it: downloaded and partial files, and quantized copies."""
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    failure: Message | None = None


@dataclass(slots=True)
class _Download:
    """A download that runs, was paused, or failed."""

    stop: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None
    progress: Loading = field(default_factory=Loading)
    failure: Message | None = None
    then: Callable[[], None] | None = None
    """What to do once it is complete."""

    @property
    def running(self) -> bool:
        return self.thread is not None and self.thread.is_alive()


class ModelLibrary:
    """The models of the family, and those that have run here. Its methods may be called from any thread."""

    def __init__(self, in_use: Callable[[], str | None] = lambda: None, fetch: Fetch = download) -> None:
        """`in_use` tells the repository that must not be removed now."""
        self._in_use, self._fetch = in_use, fetch
        self._lock = threading.Lock()
        self._downloads: dict[str, _Download] = {}
        self._completeness: dict[str, tuple[FileMarks, bool]] = {}
        self._closed = False

    @property
    def disk_free(self) -> int:
        """Bytes that are free where the Hub's cache is."""
        return shutil.disk_usage(existing_folder(_cache())).free

    def entries(self) -> list[LibraryEntry]:
        known = {card.repository: card for card in CARDS.values() if card.repository}
        names = [str(card.repository) for card in FAMILY]
        held = (*self._held_repositories(), *(name for name in RE_UPLOADS if _folder(name) or name in self._downloads))
        names += [name for name in dict.fromkeys(held) if name not in names]
        return [self._entry(name, known.get(name)) for name in names]

    def download(self, key: str, then: Callable[[], None] | None = None) -> None:
        """Begin or resume a download; returns at once, and only one runs at a time for each model.

        `then` is called once it is complete, but not if it is paused or fails. Raises BadInput for an unknown key.
        """
        entry = self._named(key)
        with self._lock:
            held = self._downloads.get(entry.repository)
            if held is not None and held.running:
                held.then = then or held.then
                return
            if self._closed or entry.state == "complete":
                return
            begun = self._downloads[entry.repository] = _Download(then=then)
            begun.thread = threading.Thread(target=self._run, args=(entry, begun), name="download model", daemon=True)
            begun.thread.start()

    def pause(self, key: str) -> None:
        """Stop a download; what is there is kept, and the next download continues from it."""
        held = self._downloads.get(self._named(key).repository)
        if held is not None and held.running:
            held.stop.set()

    def remove(self, key: str) -> None:
        """Delete all of a model that this app may delete. Raises ModelRefused for the one that is in use."""
        entry = self._named(key)
        if entry.repository == self._in_use():
            raise ModelRefused("model_in_use")
        with self._lock:
            held = self._downloads.pop(entry.repository, None)
        if held is not None and held.thread is not None:
            held.stop.set()
            held.thread.join(JOIN_TIMEOUT)
        _delete_revisions(entry.repository)
        _delete_leftovers(entry.repository)
        for copy in _copies_of(entry.repository):
            shutil.rmtree(copy, ignore_errors=True)

    def close(self) -> None:
        """Stop all downloads."""
        with self._lock:
            self._closed = True
            held = list(self._downloads.values())
        for each in held:
            each.stop.set()
        for each in held:
            if each.thread is not None:
                each.thread.join(JOIN_TIMEOUT)

    def _named(self, key: str) -> LibraryEntry:
        found = next((each for each in self.entries() if each.key == key), None)
        if found is None and key in RE_UPLOADS:
            return self._entry(key, None)
        if found is None:
            raise BadInput
        return found

    def _entry(self, name: str, card: ModelCard | None) -> LibraryEntry:
        held = self._downloads.get(name)
        files, partial = _sizes(name)
        on_disk = files + partial + sum(_size_of(copy) for copy in _copies_of(name))
        total = card.download_bytes if card else max(files + partial, nf4_download(name))
        key = card.key if card else name
        failure = held.failure if held else None
        if held is not None and held.running:
            now = held.progress
            done, whole = (files + partial, total) if not now.total else (total - now.total + now.done, total)
            return LibraryEntry(key, name, card, "downloading", on_disk, max(0, done), whole, now.seconds_left)
        if card is not None and self._is_complete(card):
            return LibraryEntry(key, name, card, "complete", on_disk, total, total)
        if card is None and not partial and recorded(name) is not None:
            total = files
            return LibraryEntry(key, name, card, "complete", on_disk, total, total, failure=failure)
        begun: State = "paused" if held is not None and held.stop.is_set() else "partial"
        state: State = begun if files + partial else "absent"
        return LibraryEntry(key, name, card, state, on_disk, files + partial, total, failure=failure)

    def _held_repositories(self) -> Iterator[str]:
        """Repositories that have run here, by the reference that source.py keeps, or are complete for a known card."""
        for mark in sorted(_cache().glob(f"models--*--*/refs/{REFERENCE}")):
            name = mark.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
            if is_repository(name):
                yield name
        for card in CARDS.values():
            known = card.repository
            if known and recorded(known) is None and _folder(known) and self._is_complete(card):
                yield known

    def _is_complete(self, card: ModelCard) -> bool:
        """`is_complete`, which parses a tokenizer of many megabytes; the page asks every second, so only after a change."""
        name = card.repository or ""
        marks, held = _file_marks(name), self._completeness.get(name)
        if held is None or held[0] != marks:
            held = self._completeness[name] = marks, is_complete(card)
        return held[1]

    def _run(self, entry: LibraryEntry, begun: _Download) -> None:
        def report(progress: Loading) -> None:
            begun.progress = progress

        revision = recorded(entry.repository) or (entry.card.revision if entry.card else None)
        try:
            snapshot = self._fetch(entry.repository, revision, report, begun.stop)
        except Cancelled:
            return
        except MagistralUIError as error:
            begun.failure = error.message
            log.warning("a model could not be downloaded: %s", error.message.key)
            return
        record(entry.repository, snapshot.commit)
        if begun.then is not None and not begun.stop.is_set():
            begun.then()


def nf4_download(repository: str) -> int:
    """Estimated bytes of a known re-upload's files; 0 for any other repository."""
    original = RE_UPLOADS.get(repository)
    return weight_bytes(original.shape, "nf4") if original is not None and original.shape is not None else 0


def _cache() -> Path:
    return Path(constants.HF_HUB_CACHE)


def _folder(repository: str) -> Path | None:
    """The folder of a repository in the Hub's cache; None where there is none, or something else stands in its place."""
    if not is_repository(repository):
        return None
    folder = _cache() / repo_folder_name(repo_id=repository, repo_type="model")
    is_inside = folder.parent == _cache() and folder.is_dir() and not folder.is_symlink()
    return folder if is_inside else None


def _sizes(repository: str) -> tuple[int, int]:
    """Bytes of the complete and of the partial files of a repository."""
    folder = _folder(repository)
    files = partial = 0
    for file in _files_in(folder) if folder else ():
        with suppress(OSError):
            size = file.stat().st_size
            if file.suffix in (".partial", ".incomplete"):
                partial += size
            else:
                files += size
    return files, partial


def _files_in(folder: Path) -> Iterator[Path]:
    for where, _, names in os.walk(folder):
        yield from (Path(where) / name for name in names if not (Path(where) / name).is_symlink())


def _file_marks(repository: str) -> FileMarks:
    """What changes with the files of a repository and of its copies: their names, sizes and times, links included."""
    folder = _folder(repository)
    marks = set()
    for top in (*([folder] if folder else ()), *_copies_of(repository)):
        for where, _, names in os.walk(top):
            for file in (Path(where) / name for name in names):
                with suppress(OSError):
                    found = file.lstat()
                    marks.add((str(file), found.st_size, found.st_mtime_ns))
    return frozenset(marks)


def _size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in _files_in(folder) if file.exists())


def _copies_of(repository: str) -> list[Path]:
    """The automatic quantized copies that were made from a repository."""
    found = []
    for origin in copies_folder().glob(f"*/{ORIGIN_FILE}"):
        with suppress(OSError, ValueError, AttributeError):
            made_from = json.loads(origin.read_text(encoding="utf-8")).get("model")
            if made_from == repository and not origin.parent.is_symlink():
                found.append(origin.parent)
    return found


def _delete_revisions(repository: str) -> None:
    """Delete what the Hub's client knows of a repository, in its own way: files that other revisions share stay with these."""
    try:
        cache = scan_cache_dir(_cache())
    except CacheNotFound:
        return
    for repo in cache.repos:
        if repo.repo_type == "model" and repo.repo_id == repository:
            commits = [revision.commit_hash for revision in repo.revisions]
            if commits:
                cache.delete_revisions(*commits).execute()


def _delete_leftovers(repository: str) -> None:
    """Delete what the Hub's client does not know: files of no revision and our own reference; then the folders that are empty.

    A download that was stopped leaves complete files, too, which belong to no revision yet.
    """
    folder = _folder(repository)
    if folder is None:
        return
    held = {file.resolve() for file in folder.glob("snapshots/**/*")}
    unheld = [blob for blob in folder.glob("blobs/*") if blob.resolve() not in held]
    for file in (*unheld, *folder.glob(f"refs/*{REFERENCE}*")):
        with suppress(OSError):
            file.unlink()
    for where, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # not empty: somebody else's files are in it
            Path(where).rmdir()
