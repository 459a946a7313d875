"""Finds out which models fit on this machine, in which precision and how fast; it lists and loads none."""

import threading
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from magistral_ui.engines.base import Ready
from magistral_ui.errors import Message, ModelRefused
from magistral_ui.models.cards import CARDS, DEMO, FAMILY, RE_UPLOADS, ModelCard
from magistral_ui.models.folder import DEMO_FOLDER, inspect_folder
from magistral_ui.models.ladder import Candidate, Pace, best_candidate, candidates, no_pace
from magistral_ui.models.memory import DeviceBudget
from magistral_ui.models.shape import ModelShape

if TYPE_CHECKING:
    from magistral_ui.engines.switching.switchable import SwitchableEngine
    from magistral_ui.engines.weights.devices import Device
    from magistral_ui.engines.weights.pace_timer import PaceTimer

COPY_PRECISION = "nf4"
"""The precision of all known quantized copies on the Hub."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What fits at one moment, once the model that runs has been freed."""

    device: "Device"
    freed: "Device"
    """The device once the model that runs has been freed."""
    found: dict[str, Candidate]
    """By the card's key, or the name of a quantized copy's repository."""
    best: str | None
    """The key of the best model of the family; None if none fits, or while that is not known."""
    pace: Pace
    """What is known of paces."""
    by_pace: frozenset[str] = frozenset()
    """The keys of models for which another precision would fit, but be too slow."""
    timing: bool = False
    """Whether more is known soon, or by now, so that it is worth looking again."""

    def automatic_precision(self, key: str) -> str:
        """The precision for `key` if nobody chose one: `auto` is the most exact one that fits, however slow."""
        return self.found[key].plan.precision if key in self.by_pace else "auto"

    def check(self, key: str, precision: str, context: int | None) -> None:
        """Refuse a model that does not fit as requested, before gigabytes are downloaded for nothing."""
        from magistral_ui.engines.weights.devices import choose_plan

        found = self.found.get(key)
        if found is None or found.card.shape is None:
            return
        if not found.plans and found.refusal is not None:
            raise ModelRefused(found.refusal.key, **found.refusal.values)
        wanted = COPY_PRECISION if key in RE_UPLOADS else precision
        choose_plan(found.card.name, found.card.shape, self.freed, wanted, context)


class ModelFit:
    """Asks the device each time, and times paces in the background."""

    def __init__(self, engine: "SwitchableEngine") -> None:
        self._engine = engine
        self._timer: PaceTimer | None = None
        self._lock = threading.Lock()

    def look(self) -> Fit:
        """What fits now, of all models with a card and of their known quantized copies."""
        from magistral_ui.engines.weights.devices import freed, good_context, good_precisions, look_again

        device = look_again(self._device)
        after = freed(device, self._engine.held_bytes())
        place, good = after.place, good_context(device)
        precisions, timer = good_precisions(device), self._open_timer()
        known, missing = timer.known(), set()

        def pace(shape: ModelShape, precision: str) -> tuple[float | None, bool]:
            tokens, measured = known(shape, precision)
            # On CUDA, whatever fits is fast enough.
            if tokens is None and device.type != "cuda" and not timer.is_tried(shape, precision):
                missing.add((shape, precision))
                timer.want(shape, precision)
            return tokens, measured

        by_pace = candidates(place, precisions, good, pace, FAMILY)
        by_fit = candidates(place, precisions, good, no_pace, FAMILY)
        # Until all have been timed, fit alone decides: otherwise a model would be shown by another rule than the next one.
        family = by_fit if missing else by_pace
        best = None if missing else best_candidate(family)
        others = [card for card in CARDS.values() if card not in FAMILY]
        found = (*family, *candidates(place, precisions, good, known, others))
        found += candidates(place, ("float32",), good, no_pace, (self._demo,))
        of_copies = {name: _copy(name, place, good, known) for name in RE_UPLOADS}
        slower = {
            one.card.key for one, two in zip(family, by_fit, strict=True) if one.plan.precision != two.plan.precision
        }
        keyed = {each.card.key: each for each in found}
        timing = bool(missing) and (timer.running or any(timer.is_tried(*each) for each in missing))
        return Fit(device, after, keyed | of_copies, best.card.key if best else None, known, frozenset(slower), timing)

    def stop_timing(self) -> None:
        """Stop timing, so that its memory is free."""
        if self._timer is not None:
            self._timer.stop()

    @cached_property
    def _device(self) -> "Device":
        from magistral_ui.engines.weights.devices import find_device

        return find_device(self._engine.current.device)

    def _open_timer(self) -> "PaceTimer":
        from magistral_ui.engines.weights.pace_timer import PaceTimer

        engine = self._engine

        def may_run() -> bool:
            """Beside another model there may be no memory for a layer."""
            return engine.card.demo and isinstance(engine.status(), Ready)

        with self._lock:
            if self._timer is None:
                self._timer = PaceTimer(self._device, may_run, lambda: not engine.running())
            return self._timer

    @cached_property
    def _demo(self) -> ModelCard:
        """The demo model's card, with the shape that its folder says."""
        return replace(DEMO, shape=inspect_folder(DEMO_FOLDER).shape)


def _copy(name: str, place: DeviceBudget, good: int, known: Pace) -> Candidate:
    """A quantized copy, which is in one precision only."""
    from magistral_ui.engines.weights.quantization import can_quantize

    (found,) = candidates(place, (COPY_PRECISION,), good, known, (replace(RE_UPLOADS[name], key=name),))
    if can_quantize():
        return found
    return replace(found, plans=(), refusal=Message("quantization_not_here", {"precision": COPY_PRECISION}))
