"""Knows which models are on this computer, and downloads, pauses and removes them in the background; it loads none.

`repository_files.py` decides what may be deleted.
"""

import logging
import shutil
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Literal

from magistral_ui.engines.base import Loading
from magistral_ui.engines.weights.gguf_download import download_gguf
from magistral_ui.engines.weights.gguf_entries import gguf_download_bytes, gguf_names, is_known_gguf, nf4_download
from magistral_ui.engines.weights.gguf_record import delete_model, recorded_model
from magistral_ui.engines.weights.held_repositories import HeldRepositories
from magistral_ui.engines.weights.hub import Snapshot, download
from magistral_ui.engines.weights.hub_cache import folder_of, hub_cache
from magistral_ui.engines.weights.large_files import existing_folder
from magistral_ui.engines.weights.pinned_revision import record, recorded
from magistral_ui.engines.weights.progress import Cancelled
from magistral_ui.engines.weights.repository_files import (
    copies_size,
    delete_files,
    delete_partial,
    held_sizes,
    record_total,
    total_of,
)
from magistral_ui.errors import BadInput, MagistralUIError, Message, ModelRefused
from magistral_ui.models.cards import CARDS, FAMILY, RE_UPLOADS, ModelCard
from magistral_ui.models.gguf_names import split_name

log = logging.getLogger(__name__)

State = Literal["absent", "partial", "downloading", "paused", "complete"]
Fetch = Callable[[str, str | None, Callable[[Loading], None], threading.Event], Snapshot]
JOIN_TIMEOUT = 10.0
"""Seconds for a download to notice that it is to pause."""


@dataclass(frozen=True, slots=True)
class LibraryEntry:
    """A repository, or a GGUF model of one, and how much of it is on this computer; sizes in bytes."""

    key: str
    """The card's, the repository's name, or `owner/repo:QUANT`."""
    repository: str
    card: ModelCard | None
    state: State
    on_disk: int
    """Everything of it: downloaded and partial files, and quantized copies."""
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    """Of the download that runs."""
    seconds: float | None = None
    """How long what is missing would take at the rate last seen."""
    failure: Message | None = None
    quantization: str = ""
    """Of a GGUF model, as its repository names it; each quantization is an entry of its own."""

    @property
    def name(self) -> str:
        """The repository's name, or `owner/repo:QUANT`; unique among the entries."""
        return f"{self.repository}:{self.quantization}" if self.quantization else self.repository


@dataclass(slots=True)
class _Download:
    """A download that runs, was paused, or failed."""

    stop: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None
    progress: Loading = field(default_factory=Loading)
    failure: Message | None = None
    then: Callable[[], None] | None = None
    """What to do once it is complete."""
    ended: bool = False
    """Whether it is over, including the call of `then`."""
    removed: bool = False
    """Whether its files are to be deleted, also those that it still writes."""

    @property
    def running(self) -> bool:
        return not self.ended and not self.stop.is_set()


class ModelLibrary:
    """The models of the family, and those that have run here. Its methods may be called from any thread."""

    def __init__(self, in_use: Callable[[], Collection[str]] = tuple, fetch: Fetch = download) -> None:
        """`in_use` tells the repositories that must not be removed now."""
        self._in_use, self._fetch = in_use, fetch
        self._lock = threading.Lock()
        self._downloads: dict[str, _Download] = {}
        self._held = HeldRepositories()
        self._rate: float | None = None
        """Bytes per second of the latest download."""
        self._closed = False

    @property
    def disk_free(self) -> int:
        """Bytes that are free where the Hub's cache is."""
        return shutil.disk_usage(existing_folder(hub_cache())).free

    def entries(self) -> list[LibraryEntry]:
        known = {card.repository: card for card in CARDS.values() if card.repository}
        names = [str(card.repository) for card in FAMILY]
        held = (
            *self._held.names(),
            *(name for name in RE_UPLOADS if folder_of(name) or self._has_download(name)),
        )
        names += [name for name in dict.fromkeys(held) if name not in names]
        begun = [name for name in list(self._downloads) if ":" in name and self._has_download(name)]
        return [*(self._entry(name, known.get(name)) for name in names), *map(self._gguf_entry, gguf_names(begun))]

    def download(self, key: str, then: Callable[[], None] | None = None) -> None:
        """Begin or resume a download; returns at once, and only one runs at a time for each model.

        `then` is called once it is complete, but not if it is paused or fails. Raises BadInput for an unknown key.
        """
        entry = self._named(key)
        with self._lock:
            held = self._downloads.get(entry.name)
            if held is not None and held.running:
                held.then = then or held.then
                return
            if self._closed:
                return
            if entry.state != "complete":
                begun = self._downloads[entry.name] = _Download(then=then)
                before = held.thread if held else None  # one that was paused may not have noticed yet
                begun.thread = threading.Thread(
                    target=self._run, args=(entry, begun, before), name="download model", daemon=True
                )
                begun.thread.start()
                return
        if then is not None:
            then()

    def pause(self, key: str) -> None:
        """Stop a download; what is there is kept, and the next download continues from it."""
        held = self._downloads.get(self._named(key).name)
        if held is not None and held.running:
            held.stop.set()

    def remove(self, key: str) -> None:
        """Delete all of a model that this app may delete. Raises ModelRefused for the one that is in use."""
        entry = self._named(key)
        if _is_used(entry, {name.casefold() for name in self._in_use()}):
            raise ModelRefused("model_in_use")
        with self._lock:
            held = self._downloads.get(entry.name)
            if held is not None:
                held.removed = True
                held.stop.set()
        if held is not None and held.thread is not None:
            held.thread.join(JOIN_TIMEOUT)
        _delete(entry)

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
        if found is None and is_known_gguf(key):
            return self._gguf_entry(key)
        if found is None:
            raise BadInput
        return found

    def _has_download(self, name: str) -> bool:
        """Whether this process has begun to download it, and nobody has removed it since."""
        held = self._downloads.get(name)
        return held is not None and not held.removed

    def _entry(self, name: str, card: ModelCard | None) -> LibraryEntry:
        held = self._downloads.get(name)
        files, partial = held_sizes(name)
        done = files + partial
        state = self._state(name, lambda: self._held.is_complete(name, card), done)
        total = total_of(name) or (card.download_bytes if card else nf4_download(name))
        if state == "complete":
            done = total = total if card else files
        elif held is not None and state == "downloading" and held.progress.total:
            done, total = held.progress.done, held.progress.total
        return self._made(
            LibraryEntry(
                card.key if card else name, name, card, state, files + partial + copies_size(name), done, total
            )
        )

    def _gguf_entry(self, name: str) -> LibraryEntry:
        repository, label = split_name(name)
        held, model = self._downloads.get(name), recorded_model(repository, label)
        done = model.bytes_here if model else 0
        state = self._state(name, lambda: model is not None and model.is_complete, done)
        total = model.bytes if model else gguf_download_bytes(repository, label)
        if held is not None and state == "downloading" and held.progress.total:
            total = held.progress.total
        return self._made(LibraryEntry(name, repository, None, state, done, done, total, quantization=label))

    def _made(self, entry: LibraryEntry) -> LibraryEntry:
        """`entry` with the time that its download takes, and the reason if it failed."""
        held, left = self._downloads.get(entry.name), entry.total - entry.done
        return replace(
            entry,
            total=max(entry.done, entry.total),
            seconds_left=held.progress.seconds_left if held is not None and entry.state == "downloading" else None,
            seconds=max(0.0, left / self._rate) if self._rate and entry.state != "complete" else None,
            failure=held.failure if held is not None and not held.removed else None,
        )

    def _state(self, name: str, is_complete: Callable[[], bool], on_disk: int) -> State:
        held = self._downloads.get(name)
        if held is not None and held.running:
            return "downloading"
        if is_complete():
            return "complete"
        if not on_disk:
            return "absent"
        return "paused" if held is not None and held.stop.is_set() else "partial"

    def _run(self, entry: LibraryEntry, begun: _Download, before: threading.Thread | None) -> None:
        if before is not None:
            before.join()
        whole = False
        try:
            whole = not begun.stop.is_set() and self._fetch_all(entry, begun)
        finally:
            with self._lock:
                begun.ended = True
                stopped, then = begun.stop.is_set(), begun.then
        if begun.removed:
            _delete(entry)
        elif whole and not stopped and then is not None:
            then()

    def _fetch_all(self, entry: LibraryEntry, begun: _Download) -> bool:
        """Download everything; whether it is complete."""

        def report(progress: Loading) -> None:
            if progress.total and not begun.progress.total and not entry.quantization:
                record_total(entry.repository, progress.total)
            if progress.seconds_left:
                self._rate = (progress.total - progress.done) / progress.seconds_left
            begun.progress = progress

        revision = recorded(entry.repository) or (entry.card.revision if entry.card else None)
        try:
            if entry.quantization:
                download_gguf(entry.repository, entry.quantization, revision, report, begun.stop)
                return True
            snapshot = self._fetch(entry.repository, revision, report, begun.stop)
        except Cancelled:
            return False
        except MagistralUIError as error:
            begun.failure = error.message
            log.warning("a model could not be downloaded: %s", error.message.key)
            return False
        record(entry.repository, snapshot.commit)
        delete_partial(entry.repository)
        return True


def _is_used(entry: LibraryEntry, names: Collection[str]) -> bool:
    """Whether `names` has the entry, or its repository without a quantization, so that any may be meant."""
    name, repository = entry.name.casefold(), entry.repository.casefold()
    is_named = any(each.startswith(f"{repository}:") for each in names)
    return name in names or (repository in names and not is_named)


def _delete(entry: LibraryEntry) -> None:
    if entry.quantization:
        delete_model(entry.repository, entry.quantization)
    else:
        delete_files(entry.repository)
