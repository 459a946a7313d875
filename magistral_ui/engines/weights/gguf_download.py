"""Lists the GGUF files of a repository on the Hub, reads headers there, and downloads a model with its projector.

The quantization is named; `engines/gguf/repository.py` chooses one by what fits.
"""

import glob
import io
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from huggingface_hub import constants, snapshot_download
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

from magistral_ui.engines.weights.gguf_record import (
    HeldFile,
    HeldModel,
    forget_unfinished,
    record_model,
    recorded_models,
)
from magistral_ui.engines.weights.hub import fetch_parts, repository_info, sentences
from magistral_ui.engines.weights.large_files import BlobStore, LargeFile, large_files, read_range
from magistral_ui.engines.weights.pinned_revision import record, recorded
from magistral_ui.engines.weights.progress import Report
from magistral_ui.errors import DownloadFailed, ModelFilesBroken, ModelNotFound
from magistral_ui.models.cards import CARDS, ModelCard
from magistral_ui.models.folder import is_commit
from magistral_ui.models.gguf_header import (
    MAX_HEADER_BYTES,
    GGUFCutOff,
    GGUFDamaged,
    GGUFHeader,
    GGUFVersionUnknown,
    read_header,
)
from magistral_ui.models.gguf_names import GGUFListing, ListedFile, Quantization, list_gguf

log = logging.getLogger(__name__)

HEADER_RANGE = 2**23
"""Bytes that are read to plan a model; Magistral's header, mostly vocabulary, has 7.5 MiB."""
MMPROJ_RANGE = 2**20
"""The same for a projector, which has no vocabulary."""
MMPROJ_ARCHITECTURE, MMPROJ_WIDTH = "clip", "clip.vision.projection_dim"
MAX_MMPROJ_TRIED = 6
"""Files named like projectors whose contents are looked at."""
MAX_NAMES = 60
"""Quantizations that an error lists."""


@dataclass(frozen=True, slots=True)
class HubListing:
    """The GGUF files of a repository at one commit."""

    repository: str
    commit: str
    files: dict[str, LargeFile]
    """By their names."""
    gguf: GGUFListing

    def find(self, label: str) -> Quantization:
        """The quantization of that label. Raises ModelNotFound, with those that there are."""
        found = self.gguf.find(label)
        if found is None:
            labels = [each.label for each in self.gguf.quantizations]
            names = ", ".join((*labels[:MAX_NAMES], *(["…"] if len(labels) > MAX_NAMES else [])))
            raise ModelNotFound("quantization_not_found", model=self.repository, quantization=label, names=names)
        return found

    def held(self, file: ListedFile) -> HeldFile:
        """The file, to be remembered."""
        sha256 = self.files[file.name].sha256
        return HeldFile(repository=self.repository, commit=self.commit, name=file.name, size=file.size, sha256=sha256)


def card_of_repository(repository: str) -> ModelCard | None:
    """The card that names this GGUF repository."""
    wanted = repository.casefold()
    return next((card for card in CARDS.values() if wanted in map(str.casefold, card.gguf_repositories)), None)


def held_models(repository: str, revision: str | None) -> list[HeldModel]:
    """The models that are complete here, the latest first: at `revision`, if that is a commit."""
    found = [each for each in reversed(recorded_models(repository)) if each.is_complete]
    return [each for each in found if each.commit == revision] if is_commit(revision) else found


def held_model(repository: str, label: str, revision: str | None) -> HeldModel | None:
    """The model of that label, if it is complete here."""
    return next((each for each in held_models(repository, revision) if each.has_label(label)), None)


def list_repository(
    repository: str, revision: str | None, held: Callable[[], HeldModel | None] = lambda: None
) -> HubListing | HeldModel:
    """What the Hub lists; where it cannot be asked, what is `held`. Raises DownloadFailed or ModelNotFound."""
    with sentences(repository, revision):
        info = repository_info(repository, revision, held)
    if isinstance(info, HeldModel):
        return info
    files = {file.name: file for file in large_files(info.siblings or [])}
    listing = list_gguf(repository, [ListedFile(file.name, file.size) for file in files.values()])
    if not listing.quantizations:
        raise DownloadFailed("gguf_missing", model=repository)
    return HubListing(repository, str(info.sha), files, listing)


def read_hub_header(
    found: HubListing, file: ListedFile, closing: threading.Event, length: int = HEADER_RANGE
) -> GGUFHeader:
    """The header of a file on the Hub, by one range request of `length` bytes, or by more where it is longer.

    Raises ModelFilesBroken, DownloadFailed or progress.Cancelled.
    """
    data = b""
    while True:
        with sentences(found.repository, found.commit):
            more = read_range(found.repository, found.commit, file.name, len(data), length, closing)
        data += more
        try:
            header = read_header(io.BytesIO(data))
        except GGUFVersionUnknown as error:
            raise ModelFilesBroken("gguf_version", model=found.repository, file=file.name) from error
        except GGUFDamaged as error:
            if isinstance(error, GGUFCutOff) and len(more) == length and len(data) < MAX_HEADER_BYTES:
                continue
            raise ModelFilesBroken("gguf_damaged", model=found.repository, file=file.name) from error
        if header.data_end > file.size:
            raise ModelFilesBroken("gguf_damaged", model=found.repository, file=file.name)
        return header


def find_mmproj(found: HubListing, width: int | None, closing: threading.Event) -> HeldFile | None:
    """The projector for a decoder of that `width`: the repository's own, else one of the card's other repositories.

    Those named like one are looked into. None if there is none, or if the others cannot be asked.
    """
    own = _fitting_mmproj(found, width, closing)
    card = card_of_repository(found.repository)
    if own is not None or card is None or not card.vision:
        return own
    for other in card.gguf_repositories:
        if other.casefold() != found.repository.casefold():
            with suppress(DownloadFailed, ModelNotFound):
                listed = list_repository(other, recorded(other))
                if isinstance(listed, HubListing) and (lent := _fitting_mmproj(listed, width, closing)):
                    return lent
    return None


def _fitting_mmproj(found: HubListing, width: int | None, closing: threading.Event) -> HeldFile | None:
    for file in found.gguf.mmproj[:MAX_MMPROJ_TRIED]:
        try:
            metadata = read_hub_header(found, file, closing, MMPROJ_RANGE).metadata
        except ModelFilesBroken:
            log.warning("a projector could not be read: %s", file.name)
            continue
        fits = width is None or metadata.get(MMPROJ_WIDTH, width) == width
        if metadata.get("general.architecture") == MMPROJ_ARCHITECTURE and fits:
            return found.held(file)
        log.warning("a file that is named like a projector is none for this model: %s", file.name)
    return None


def download_gguf(
    repository: str, label: str, revision: str | None, report: Report, closing: threading.Event
) -> HeldModel:
    """Download a model in the quantization of that label, and its projector. Raises what `fetch_model` does, ModelNotFound."""
    if is_commit(revision) and (held := held_model(repository, label, revision)):
        return held
    found = list_repository(repository, revision, lambda: held_model(repository, label, revision))
    if isinstance(found, HeldModel):
        return found
    chosen, card = found.find(label), card_of_repository(repository)
    mmproj = find_mmproj(found, card.shape.hidden if card and card.shape else None, closing)
    return fetch_model(found, chosen, mmproj, report, closing)


def fetch_model(
    found: HubListing, chosen: Quantization, mmproj: HeldFile | None, report: Report, closing: threading.Event
) -> HeldModel:
    """Download the files of a model, and remember them. Raises DownloadFailed, ModelNotFound or progress.Cancelled."""
    disable_progress_bars()  # the page shows the progress
    files = tuple(found.held(file) for file in chosen.files)
    model, repository = HeldModel(label=chosen.label, files=files, mmproj=mmproj), found.repository
    with sentences(repository, model.commit):
        record_model(repository, model)
        grouped = list(_by_repository(model))
        parts = [(store, [file.large_file for file in files]) for store, files in grouped]
        fetch_parts(repository, parts, report, closing)
        for store, held in grouped:
            names = [glob.escape(file.name) for file in held]
            snapshot_download(store.repository, revision=store.commit, allow_patterns=names)
        if not model.is_complete:
            raise DownloadFailed("connection_lost", model=repository, host=constants.ENDPOINT)
        forget_unfinished(repository, model)
    record(repository, model.commit)
    return model


def _by_repository(model: HeldModel) -> Iterator[tuple[BlobStore, list[HeldFile]]]:
    places = dict.fromkeys((file.repository, file.commit) for file in model.all_files)
    for place in places:
        yield BlobStore.of(*place), [file for file in model.all_files if (file.repository, file.commit) == place]
