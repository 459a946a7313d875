"""Chooses the GGUF model that runs if nobody named one: the best that this machine runs, or the demo model."""

import threading
from dataclasses import dataclass

from magistral_ui.engines.gguf.devices import LlamaDevice
from magistral_ui.engines.gguf.pace import estimated_gguf_pace
from magistral_ui.engines.weights.gguf_entries import gguf_way, held_quantizations
from magistral_ui.engines.weights.pace_file import measured_pace
from magistral_ui.engines.weights.progress import Cancelled
from magistral_ui.models.cards import FAMILY, ModelCard
from magistral_ui.models.default_model import choose
from magistral_ui.models.gguf_choice import counted_as
from magistral_ui.models.ladder import Held, Pace, candidates, no_pace
from magistral_ui.models.shape import ModelShape


@dataclass(frozen=True, slots=True)
class DefaultGGUF:
    """What runs if no model is named."""

    model: str
    """`owner/repo:QUANT`, or the demo model's key."""
    why: str
    """Key of the text that says why."""


def choose_gguf(device: LlamaDevice, precision: str, closing: threading.Event, *, downloaded: bool) -> DefaultGGUF:
    """The best model for `device`, in `precision` unless that is `auto`; `downloaded`: of those that are complete here.

    Where it matters, the pace is estimated, which takes seconds the first time; progress.Cancelled once `closing` is set.
    """
    offered = {
        card.key: held_quantizations(card, precision) if downloaded else _named(card, precision) for card in FAMILY
    }
    held = Held(lambda _: False, lambda card: offered[card.key])
    place = device.place
    pace = _pace(device, closing) if place.type in ("cpu", "mps") else no_pace
    chosen = choose(
        candidates(place, (), pace=pace, gguf=place, held=held if downloaded or precision != "auto" else None),
        lambda: candidates(place, (), gguf=place),
        on_gpu=device.kind == "gpu",
        hindered=device.hindrance is not None,
    )
    if chosen.card.demo:
        return DefaultGGUF(chosen.card.key, chosen.why)
    model = offered[chosen.card.key].get(chosen.precision)
    return DefaultGGUF(model or _way(chosen.card, chosen.precision), chosen.why)


def _named(card: ModelCard, precision: str) -> dict[str, str]:
    """The quantization that is asked for."""
    if precision == "auto" or not card.gguf_repositories:
        return {}
    return {counted_as(precision): _way(card, precision)}


def _way(card: ModelCard, precision: str) -> str:
    return gguf_way(card, precision) or f"{card.gguf_repositories[0]}:{precision}"


def _pace(device: LlamaDevice, closing: threading.Event) -> Pace:
    def rest() -> None:
        if closing.is_set():
            raise Cancelled

    def pace(shape: ModelShape, precision: str) -> tuple[float | None, bool]:
        measured = measured_pace(shape, precision, device)
        return (measured, True) if measured else (estimated_gguf_pace(shape, precision, device, rest), False)

    return pace
