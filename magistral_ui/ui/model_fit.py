"""Finds out which models fit on this machine, in which precision and how fast; it lists and loads none."""

import threading
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from magistral_ui.engines.base import Ready, info_of
from magistral_ui.errors import Message, ModelRefused
from magistral_ui.models.cards import CARDS, DEMO, FAMILY, RE_UPLOADS, ModelCard
from magistral_ui.models.folder import DEMO_FOLDER, inspect_folder
from magistral_ui.models.gguf_names import is_quantization, split_name
from magistral_ui.models.gguf_plan import estimated_weights, plan_gguf
from magistral_ui.models.ladder import Candidate, Pace, best_candidate, candidates, no_pace
from magistral_ui.models.shape import ModelShape

if TYPE_CHECKING:
    from magistral_ui.engines.switching.machine import Machine
    from magistral_ui.engines.switching.pace_timer import PaceTimer
    from magistral_ui.engines.switching.switchable import SwitchableEngine

COPY_PRECISION = "nf4"
"""The precision of all known quantized copies on the Hub."""

DEMO_QUANTIZATION = "BF16"
"""Of the GGUF file that the demo model is converted to."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What fits at one moment, once the model that runs has been freed."""

    machine: "Machine"
    freed: "Machine"
    """The machine once the model that runs has been freed."""
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
        if ":" in key:
            self._check_gguf(key, context)
            return
        found = self.found.get(key)
        if found is None or found.card.shape is None:
            return
        if not found.plans and found.refusal is not None:
            raise ModelRefused(found.refusal.key, **found.refusal.values)
        wanted = COPY_PRECISION if key in RE_UPLOADS else precision
        self.freed.check(found, wanted, context)

    def _check_gguf(self, key: str, context: int | None) -> None:
        """The same for `owner/repo:QUANT`."""
        from magistral_ui.engines.weights.gguf_download import card_of_repository
        from magistral_ui.models.gguf_choice import counted_as

        repository, label = split_name(key)
        card = card_of_repository(repository)
        found = self.found.get(card.key) if card else None
        if found is not None and is_quantization(label):
            self.freed.check(found, counted_as(label), context)


class ModelFit:
    """Asks the device each time, and times paces in the background."""

    def __init__(self, engine: "SwitchableEngine") -> None:
        self._engine = engine
        self._timer: PaceTimer | None = None
        self._lock = threading.Lock()

    def look(self) -> Fit:
        """What fits now, of all models with a card and of their known quantized copies."""
        from magistral_ui.engines.switching.machine import freed, look_again

        machine = look_again(self._machine, self._engine.current.device)
        info = info_of(self._engine.status())
        after = freed(machine, self._engine.held_bytes(), info.engine if info else "")
        timer = self._open_timer()
        known, missing = timer.known(), set()

        def pace(shape: ModelShape, precision: str) -> tuple[float | None, bool]:
            tokens, measured = known(shape, precision)
            if tokens is None and machine.may_be_slow(precision) and not timer.is_tried(shape, precision):
                missing.add((shape, precision))
                timer.want(shape, precision)
            return tokens, measured

        by_pace, by_fit = after.candidates(pace), after.candidates()
        # Until all have been timed, fit alone decides: otherwise a model would be shown by another rule than the next one.
        family = by_fit if missing else by_pace
        best = None if missing else best_candidate(family)
        others = tuple(card for card in CARDS.values() if card not in FAMILY)
        found = (*family, *after.candidates(known, others))
        found += self._demo_on(after)
        of_copies = {name: _copy(name, after, known) for name in RE_UPLOADS}
        slower = {
            one.card.key for one, two in zip(family, by_fit, strict=True) if one.plan.precision != two.plan.precision
        }
        keyed = {each.card.key: each for each in found}
        timing = bool(missing) and (timer.running or any(timer.is_tried(*each) for each in missing))
        return Fit(machine, after, keyed | of_copies, best.card.key if best else None, known, frozenset(slower), timing)

    def stop_timing(self) -> None:
        """Stop timing, so that its memory is free."""
        if self._timer is not None:
            self._timer.stop()

    @cached_property
    def _machine(self) -> "Machine":
        from magistral_ui.engines.switching.machine import find_machine

        return find_machine(self._engine.current.device)

    def _open_timer(self) -> "PaceTimer":
        from magistral_ui.engines.switching.pace_timer import PaceTimer

        engine = self._engine

        def may_run() -> bool:
            """Beside another model there may be no memory for a layer."""
            return engine.card.demo and isinstance(engine.status(), Ready)

        with self._lock:
            if self._timer is None:
                self._timer = PaceTimer(self._machine, may_run, lambda: not engine.running())
            return self._timer

    def _demo_on(self, machine: "Machine") -> tuple[Candidate, ...]:
        """The demo model as it runs there: without torch, as a GGUF file."""
        from magistral_ui.engines.switching.machine import has_torch

        if has_torch() or self._demo.shape is None:
            return candidates(machine.place, ("float32",), machine.good, no_pace, (self._demo,))
        weights = estimated_weights(self._demo.shape, DEMO_QUANTIZATION)
        planned = plan_gguf(self._demo.shape, weights, machine.place)
        return (Candidate(self._demo, planned, (planned,), None, measured=False, refusal=None),)

    @cached_property
    def _demo(self) -> ModelCard:
        """The demo model's card, with the shape that its folder says."""
        return replace(DEMO, shape=inspect_folder(DEMO_FOLDER).shape)


def _copy(name: str, machine: "Machine", known: Pace) -> Candidate:
    """A quantized copy, which is in one precision only."""
    card = replace(RE_UPLOADS[name], key=name, gguf_repositories=())
    (found,) = candidates(machine.place, (COPY_PRECISION,), machine.good, known, (card,))
    if machine.can_quantize:
        return found
    return replace(found, plans=(), refusal=Message("quantization_not_here", {"precision": COPY_PRECISION}))
