"""Chooses a quantization of a GGUF repository by what fits, and downloads it with its projector; it loads none."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from magistral_ui.engines.base import Loading
from magistral_ui.engines.weights.gguf_download import (
    HubListing,
    card_of_repository,
    fetch_model,
    find_mmproj,
    held_model,
    held_models,
    list_repository,
    read_hub_header,
)
from magistral_ui.engines.weights.gguf_record import HeldFile, HeldModel, recorded_models
from magistral_ui.engines.weights.pinned_revision import pinned_named, recorded
from magistral_ui.engines.weights.progress import Report
from magistral_ui.errors import DeviceTooSmall, ModelError
from magistral_ui.models.cards import ModelCard
from magistral_ui.models.folder import is_commit
from magistral_ui.models.gguf_choice import PlannedQuantization, choose_quantization, scaled_weights
from magistral_ui.models.gguf_file import GGUFFacts, facts_of, inspect_gguf
from magistral_ui.models.gguf_names import ListedFile, Quantization, is_quantization
from magistral_ui.models.gguf_plan import estimated_weights
from magistral_ui.models.memory import MemoryPlan
from magistral_ui.models.shape import MAGISTRAL_SMALL_1_2, ModelShape

PlanGGUF = Callable[[GGUFFacts], MemoryPlan]
"""How a model would be run here. Raises DeviceTooSmall if it does not fit."""
USUAL = "Q4_K_M"
"""The quantization that is looked into first where nothing is known of a model."""
MAX_HEADERS = 4
"""Files whose header is read before one is chosen; each takes a request of some megabytes."""


@dataclass(frozen=True, slots=True)
class GGUFDownload:
    """The files of a model in one quantization, all in the Hub's cache."""

    files: tuple[Path, ...]
    """The model's file, or all files over which it is split, in order."""
    mmproj: Path | None
    """Its projector, which may be another repository's; None: there is none, so the model reads text only."""
    commit: str
    label: str
    """The quantization as it is named in the repository: `UD-Q4_K_XL`."""


def fetch(
    repository: str,
    quantization: str | None,
    revision: str | None,
    plan: PlanGGUF,
    report: Report,
    closing: threading.Event,
) -> GGUFDownload:
    """Download a model of `repository` at `revision` (None: the one that ran here before, else the newest).

    `quantization` is a label of the repository (case does not matter); None: the best for which `plan` finds room. The plan is
    asked before the download, by the header of the file. What is complete at a recorded commit is used without the Hub.

    Raises ModelNotFound, NotAMistralModel, ModelFilesBroken, DeviceTooSmall, DownloadFailed or progress.Cancelled.
    """
    report(Loading("downloading"))
    pinned = revision or recorded(repository)

    def held() -> HeldModel | None:
        return held_model(repository, quantization, pinned) if quantization else _best_held(repository, pinned, plan)

    model = held() if is_commit(pinned) else None
    if model is None:
        with pinned_named(repository, pinned, revision):
            found = list_repository(repository, pinned, held)
            if isinstance(found, HeldModel):
                model = found
            else:
                chosen, mmproj = (
                    _plan_named(found, quantization, plan, closing)
                    if quantization
                    else _plan_best(found, plan, closing)
                )
                model = fetch_model(found, chosen, mmproj, report, closing)
    files = tuple(file.path for file in model.files)
    return GGUFDownload(files, model.mmproj.path if model.mmproj else None, model.commit, model.label)


def is_gguf_repository(repository: str) -> bool:
    """Whether a GGUF model of `repository` has been downloaded, or begun, here; the Hub is not asked."""
    return bool(recorded_models(repository))


def _plan_named(
    found: HubListing, quantization: str, plan: PlanGGUF, closing: threading.Event
) -> tuple[Quantization, HeldFile | None]:
    """The quantization of that name, if it fits, and the model's projector."""
    chosen = found.find(quantization)
    facts = _facts_on_hub(found, chosen, closing)
    mmproj = find_mmproj(found, facts.shape.hidden, closing)
    plan(_with_mmproj(facts, mmproj))
    return chosen, mmproj


def _plan_best(found: HubListing, plan: PlanGGUF, closing: threading.Event) -> tuple[Quantization, HeldFile | None]:
    """The best quantization that fits, and the model's projector.

    All are planned by the sizes of their files and what is known of one; then the chosen one by its own header.
    """
    offered = [each for each in found.gguf.quantizations if each.is_main]
    known: dict[str, GGUFFacts] = {}
    card = card_of_repository(found.repository)
    if card is not None and card.shape is not None:
        guessed = _facts_of_card(card, card.shape)
    else:
        usual = found.gguf.find(USUAL) or offered[len(offered) // 2]
        guessed = known[usual.label] = _facts_on_hub(found, usual, closing)
    mmproj = find_mmproj(found, guessed.shape.hidden, closing)
    while True:
        chosen = _choose(offered, known, guessed, mmproj, plan)
        if chosen.label in known or len(known) >= MAX_HEADERS:
            return chosen, mmproj
        guessed = known[chosen.label] = _facts_on_hub(found, chosen, closing)


def _choose(
    offered: Sequence[Quantization],
    known: Mapping[str, GGUFFacts],
    guessed: GGUFFacts,
    mmproj: HeldFile | None,
    plan: PlanGGUF,
) -> Quantization:
    """The best of those that fit. Raises DeviceTooSmall, for the smallest, if none does."""
    planned, refusal = [], None
    for each in sorted(offered, key=lambda each: -each.bytes):
        facts = known.get(each.label) or _scaled(guessed, each)
        try:
            planned.append(PlannedQuantization(each, plan(_with_mmproj(facts, mmproj))))
        except DeviceTooSmall as error:
            refusal = error
    best = choose_quantization(guessed.shape, planned)
    if best is None:
        raise refusal or DeviceTooSmall
    return best.quantization


def _best_held(repository: str, revision: str | None, plan: PlanGGUF) -> HeldModel | None:
    """The best of the models that are complete here and fit."""
    models: dict[str, HeldModel] = {}
    planned: list[PlannedQuantization] = []
    shape: ModelShape | None = None
    held = held_models(repository, revision)
    # A label that is a whole name is another model's, if there are both.
    for model in [each for each in held if is_quantization(each.label)] or held:
        files = tuple(ListedFile(file.name, file.size) for file in model.files)
        try:
            facts, _ = inspect_gguf(model.files[0].path)
            planned.append(
                PlannedQuantization(Quantization(model.label, files), plan(_with_mmproj(facts, model.mmproj)))
            )
        except ModelError:  # it does not fit, or its files have been damaged since
            continue
        shape = shape or facts.shape
        models.setdefault(model.label, model)
    best = choose_quantization(shape, planned) if shape else None
    return models[best.quantization.label] if best else None


def _facts_on_hub(found: HubListing, quantization: Quantization, closing: threading.Event) -> GGUFFacts:
    header = read_hub_header(found, quantization.files[0], closing)
    facts = facts_of(header, f"{found.repository}:{quantization.label}")
    return replace(facts, quantization=quantization.label)


def _facts_of_card(card: ModelCard, shape: ModelShape) -> GGUFFacts:
    """What can be said of a model before a file of it has been seen."""
    shape = shape.without_vision()
    return GGUFFacts("", USUAL, shape, estimated_weights(shape, USUAL, mmproj=False), card, card.name)


def _scaled(facts: GGUFFacts, quantization: Quantization) -> GGUFFacts:
    weights = scaled_weights(facts.shape, facts.weights, quantization)
    return replace(facts, quantization=quantization.label, weights=weights)


def _with_mmproj(facts: GGUFFacts, mmproj: HeldFile | None) -> GGUFFacts:
    """All models of the family have a vision tower of the same shape."""
    if mmproj is None:
        return facts
    shape = replace(facts.shape, vision=MAGISTRAL_SMALL_1_2.vision)
    return replace(facts, shape=shape, weights=replace(facts.weights, mmproj=mmproj.size))
