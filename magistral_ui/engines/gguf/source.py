"""Finds a GGUF model's files: a file, a folder's, the demo model's or a repository's, with projector and tokenizer."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from magistral_ui.engines.base import ModelRequest
from magistral_ui.engines.gguf.default_model import choose_gguf
from magistral_ui.engines.gguf.demo_file import demo_files
from magistral_ui.engines.gguf.devices import LlamaDevice
from magistral_ui.engines.gguf.fitting import plan_fitting
from magistral_ui.engines.gguf.repository import fetch, is_gguf_repository
from magistral_ui.engines.gguf.tekken import rebuild_tekken
from magistral_ui.engines.weights.gguf_entries import gguf_way
from magistral_ui.engines.weights.progress import Report
from magistral_ui.errors import Message, ModelError, ModelFilesBroken, ModelNotFound, unreadable
from magistral_ui.models.cards import CARDS, DEMO, ModelCard, find_card
from magistral_ui.models.folder import AUTO, DEMO_FOLDER, is_repository
from magistral_ui.models.gguf_file import MAX_PATH_LENGTH, GGUFFacts, MmprojFacts, header_of, inspect_gguf, read_mmproj
from magistral_ui.models.gguf_folder import SUFFIX, holds_gguf, is_quantized_as, mmproj_beside, model_in
from magistral_ui.models.gguf_header import is_gguf
from magistral_ui.models.gguf_names import split_name
from magistral_ui.models.gguf_types import FILE_TYPES
from magistral_ui.models.memory import MemoryPlan

PRECISIONS = frozenset(FILE_TYPES.values())
OWN_MIX = "UD-"
"""How quantizations begin that mix types in a way of their own: UD-Q4_K_XL."""
REPOSITORY_SUFFIXES = ("-gguf", "_gguf")
CHOSEN_BY_HAND = "model_chosen_by_hand"


@dataclass(frozen=True, slots=True)
class GGUFSource:
    """All files of a model, and their origin."""

    card: ModelCard
    files: tuple[Path, ...]
    """The model's file, or all files over which it is split, in order; llama.cpp is given the first."""
    facts: GGUFFacts
    """With the projector's, if there is one."""
    mmproj: Path | None
    tekken: Path
    """A tekken.json with the model's vocabulary."""
    name: str
    revision: str = ""
    chosen_because: str = CHOSEN_BY_HAND


def names_gguf(model: str | None, precision: str) -> bool:
    """Whether a request is for the GGUF engine; it asks no network.

    True for a file with a GGUF file's contents or name, a folder that holds no other models, `owner/repo:QUANT`, a repository
    that is known or named as one of GGUF files, and a precision that is one of llama.cpp's quantizations.
    """
    if precision.upper() in PRECISIONS or precision.upper().startswith(OWN_MIX):
        return True
    if model in (None, AUTO) or find_card(str(model)):
        return False
    path = Path(str(model)).expanduser()
    if path.suffix.casefold() == SUFFIX or is_gguf(path):
        return True
    if _exists(path):
        return holds_gguf(path)
    repository, label = split_name(str(model))
    return is_repository(repository) and (bool(label) or _is_known(repository))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long to be a path, or with a null character
        return False


def _is_known(repository: str) -> bool:
    name = repository.casefold()
    if name.endswith(REPOSITORY_SUFFIXES) or is_gguf_repository(repository):
        return True
    return any(name == each.casefold() for card in CARDS.values() for each in card.gguf_repositories)


def find_gguf(
    request: ModelRequest,
    device: LlamaDevice,
    report: Report,
    closing: threading.Event,
    warn: Callable[[Message], None] = lambda _: None,
) -> GGUFSource:
    """Resolve `request`; what a repository lacks here is downloaded, if the plan for `device` says that it fits.

    Whether what is here already fits is not asked.

    `warn` is told if the model could see images, but its projector is missing.

    Raises ModelNotFound, NotAMistralModel, ModelFilesBroken, DownloadFailed, DeviceTooSmall or progress.Cancelled.
    """
    why = request.chosen_because
    if request.model in (None, AUTO):
        chosen = choose_gguf(device, request.precision, closing, downloaded=request.model is None)
        why, request = chosen.why, replace(request, model=chosen.model, precision="auto")
    name = str(request.model)
    card = find_card(name)
    path = Path(name).expanduser()
    if card is not None and card.demo:
        source = _demo()
    elif card is not None or not (_exists(path) or path.suffix.casefold() == SUFFIX or not _is_remote(name)):
        source = _from_repository(name, card, request, device, report, closing)
    else:
        source = _from_path(path, request)
    if source.facts.takes_mmproj and source.mmproj is None:
        warn(Message("gguf_without_projector", {"model": source.card.name}))
    return replace(source, chosen_because=why)


def _is_remote(name: str) -> bool:
    return is_repository(split_name(name)[0])


def _demo() -> GGUFSource:
    try:
        model, mmproj = demo_files()
    except OSError as error:
        raise unreadable(DEMO.name, error.filename or DEMO.key, error) from error
    facts = inspect_gguf(model)[0].with_mmproj(read_mmproj(mmproj))
    card = replace(DEMO, shape=facts.shape)
    return GGUFSource(card, (model,), replace(facts, card=card), mmproj, DEMO_FOLDER / "tekken.json", DEMO.key)


def _from_path(path: Path, request: ModelRequest) -> GGUFSource:
    """A file, or the model in a folder, with the projector beside it."""
    try:
        file = model_in(path, request.precision) if path.is_dir() else path
    except OSError as error:
        raise ModelNotFound(model=str(path)[:MAX_PATH_LENGTH]) from error
    facts, files = inspect_gguf(file)
    if not is_quantized_as(file, request.precision):
        raise ModelFilesBroken("gguf_precision", model=file.name, found=facts.quantization, precision=request.precision)
    beside = mmproj_beside(file, facts.shape.hidden, facts.name)
    return _source(facts, files, beside, file.name)


def _from_repository(
    name: str,
    card: ModelCard | None,
    request: ModelRequest,
    device: LlamaDevice,
    report: Report,
    closing: threading.Event,
) -> GGUFSource:
    """The quantization after the colon, or as the precision; else the best that fits."""
    repository, label = split_name(name)
    if card is not None:
        if not card.gguf_repositories:
            raise ModelFilesBroken("gguf_missing", model=card.name)
        known = None if request.precision == "auto" else gguf_way(card, request.precision)
        repository, label = split_name(known or card.gguf_repositories[0])
    precision = "" if request.precision == "auto" else request.precision
    if label and precision and label.casefold() != precision.casefold():
        raise ModelFilesBroken("gguf_precision", model=repository, found=label, precision=precision)

    def planned(facts: GGUFFacts) -> MemoryPlan:
        return plan_fitting(repository, facts, request, device)

    download = fetch(repository, label or precision or None, request.revision, planned, report, closing)
    facts, files = inspect_gguf(download.files[0])
    mmproj = _projector(download.mmproj)
    beside = (download.mmproj, mmproj) if download.mmproj and mmproj and mmproj.width == facts.shape.hidden else None
    source = _source(facts, files, beside, f"{repository}:{download.label}")
    return replace(source, card=_published(source, card, repository), revision=download.commit)


def _projector(file: Path | None) -> MmprojFacts | None:
    """None if it is unusable, as those beside a file are left out: without images, the model is of use all the same."""
    try:
        return read_mmproj(file) if file else None
    except ModelError:
        return None


def _published(source: GGUFSource, card: ModelCard | None, repository: str) -> ModelCard:
    """The card of a model that is a known repository's, with what is true of these files."""
    own = source.card
    known = card or next((each for each in CARDS.values() if repository in each.gguf_repositories), None)
    if known is None:
        return replace(own, name=repository.rpartition("/")[2], repository=repository)
    context = min(known.context_length, own.context_length)
    return replace(known, shape=own.shape, vision=own.vision, context_length=context)


def _source(
    facts: GGUFFacts, files: tuple[Path, ...], beside: tuple[Path, MmprojFacts] | None, name: str
) -> GGUFSource:
    if beside is not None:
        facts = facts.with_mmproj(beside[1])
    tekken = rebuild_tekken(header_of(files[0]), facts.shape.vision, name)
    card = replace(facts.card, key=name)
    return GGUFSource(card, files, replace(facts, card=card), beside[0] if beside else None, tekken, name)
