"""Finds the requested model's files: a card's, a repository's, or a folder's; downloads what is missing.

`pinned_revision.py` remembers which commit of a repository ran last.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from magistral_ui.engines.base import Loading, ModelRequest
from magistral_ui.engines.weights.devices import Device, choose_default, choose_plan, slow_pace
from magistral_ui.engines.weights.held_repositories import is_complete
from magistral_ui.engines.weights.hub import download, read_config
from magistral_ui.engines.weights.pace import pace_of
from magistral_ui.engines.weights.pinned_revision import pinned_named, record, recorded
from magistral_ui.engines.weights.progress import Report
from magistral_ui.engines.weights.quantization import stored_precision
from magistral_ui.engines.weights.quantized_cache import QuantizedCopy, copy_for, fingerprint
from magistral_ui.errors import Message, ModelFilesBroken
from magistral_ui.models.cards import ModelCard, find_card
from magistral_ui.models.folder import AUTO, DEMO_FOLDER, decoder_of, inspect_folder, is_commit, is_repository
from magistral_ui.models.memory import MemoryPlan
from magistral_ui.models.shape import ModelShape, read_shape


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A folder with all files of a model, and their origin."""

    card: ModelCard
    folder: Path
    name: str = ""
    revision: str = ""
    chosen_because: str = "model_chosen_by_hand"
    precision: str = "auto"
    """As requested, or as the ladder chose it with the model."""
    copy: QuantizedCopy | None = None
    """Where to save a quantized copy, if the model is quantized."""


def find_source(
    request: ModelRequest,
    device: Device,
    report: Report,
    closing: threading.Event,
    warn: Callable[[Message], None] = lambda _: None,
) -> ModelSource:
    """Resolve `request` on `device`; checks that the model fits before downloading it, if that can be known.

    `warn` is told, before any work begins, of a model that fits but will be very slow.

    Raises what `hub.download` and `inspect_folder` do, DeviceTooSmall, CopyNotSaved or progress.Cancelled.
    """
    why, card = request.chosen_because, find_card(request.model) if request.model else None
    if request.model in (None, AUTO):
        may_run = is_complete if request.model is None else lambda _: True
        card, why, precision = choose_default(device, may_run, pace_of(device), request.precision)
        request = replace(request, precision=precision)
    name = request.model or ""
    if card is not None:
        name = card.repository or card.key
    folder = Path(name).expanduser()
    if card is not None and card.repository is None:
        source = _from_folder(DEMO_FOLDER, card, card.key, why, device, request, warn)
    elif card is None and (folder.exists() or not is_repository(name)):
        source = _from_folder(folder, None, folder.resolve().name, why, device, request, warn)
    else:
        source = _from_hub(name, card, why, device, request, report, closing, warn)
    return replace(source, precision=request.precision)


def _from_folder(
    folder: Path,
    card: ModelCard | None,
    name: str,
    why: str,
    device: Device,
    request: ModelRequest,
    warn: Callable[[Message], None],
) -> ModelSource:
    facts = inspect_folder(folder)
    source = ModelSource(card or facts.card, folder, name, "", why)
    stored = stored_precision(name, facts.quantization)
    weights = facts.bytes if stored else None
    planned = choose_plan(
        source.card.name, facts.shape, device, stored or request.precision, request.context_length, weights
    )
    if pace := slow_pace(facts.shape, planned, device):
        warn(pace)
    if stored:
        return source
    copy = copy_for(request.save_quantized, str(folder.resolve()), fingerprint(facts), planned.precision)
    return _with_copy(source, copy)


def _from_hub(
    name: str,
    card: ModelCard | None,
    why: str,
    device: Device,
    request: ModelRequest,
    report: Report,
    closing: threading.Event,
    warn: Callable[[Message], None],
) -> ModelSource:
    """The revision is the requested one, else the one that ran here before, else the card's, else the newest."""
    revision = request.revision or recorded(name) or (card.revision if card else None)
    with pinned_named(name, revision, request.revision):
        shape, planned, stored = _fitting(card, name, revision, device, request)
        precision = planned.precision
        if pace := slow_pace(shape, planned, device):
            warn(pace)
        report(Loading())  # carries the warning

        def copy_of(commit: str) -> QuantizedCopy | None:
            return None if stored else copy_for(request.save_quantized, name, commit, precision)

        copy = copy_of(str(revision)) if is_commit(revision) else None
        if copy is not None and copy.is_there:
            return ModelSource(card or _card_of(copy.folder, name), copy.folder, name, copy.origin["revision"], why)
        snapshot = download(name, revision, report, closing)
    record(name, snapshot.commit)
    source = ModelSource(card or _card_of(snapshot.folder, name), snapshot.folder, name, snapshot.commit, why)
    return _with_copy(source, copy_of(snapshot.commit))


def _with_copy(source: ModelSource, copy: QuantizedCopy | None) -> ModelSource:
    """`source`, read from `copy` if that is complete, or else to be saved there."""
    return replace(source, folder=copy.folder) if copy and copy.is_there else replace(source, copy=copy)


def _card_of(folder: Path, name: str) -> ModelCard:
    return replace(inspect_folder(folder).card, key=name, name=name.rpartition("/")[2], repository=name)


def _fitting(
    card: ModelCard | None, name: str, revision: str | None, device: Device, request: ModelRequest
) -> tuple[ModelShape, MemoryPlan, str | None]:
    """The model's shape, its memory plan, and the precision in which it is stored if it is already quantized."""
    stored, shape = None, card.shape if card else None
    if shape is None:
        config = read_config(name, revision)
        decoder_of(config, name)
        stored = stored_precision(name, config.get("quantization_config"))
        try:
            shape = read_shape(config)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ModelFilesBroken(model=name, file="config.json") from error
    wanted = stored or request.precision
    return shape, choose_plan(card.name if card else name, shape, device, wanted, request.context_length), stored
