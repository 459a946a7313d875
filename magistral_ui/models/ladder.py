"""The ladder: which models of the family a machine runs, how well, and which is the best; it times and loads nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from magistral_ui.errors import Message
from magistral_ui.models.cards import FAMILY, ModelCard
from magistral_ui.models.memory import DeviceBudget, MemoryPlan, best_plan, fits, needed_bytes, plan
from magistral_ui.models.shape import ModelShape

READABLE_PACE = 4.0
"""Tokens per second below which nobody wants to read along."""
LADDER_CONTEXT = 16_384
"""Context for which a better model is preferred: enough for most reasoning with its answer. With less, a smaller model with more
context is of more use."""

Pace = Callable[[ModelShape, str], tuple[float | None, bool]]
"""Tokens per second of a shape in a precision on this machine, None if not known; and whether they were measured."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model of the family on one machine."""

    card: ModelCard
    plan: MemoryPlan
    """In its best precision here; if none fits, in the smallest."""
    plans: tuple[MemoryPlan, ...]
    """One for each precision that fits, the most exact first."""
    tokens_per_second: float | None
    """In its best precision; None: not known."""
    measured: bool
    """Whether it has run here before; otherwise the pace is estimated."""
    refusal: Message | None
    """Why it cannot run here, or not well; None: it can."""


def no_pace(shape: ModelShape, precision: str) -> tuple[float | None, bool]:  # noqa: ARG001
    """For a machine on which nothing is to be timed."""
    return None, False


def candidates(
    place: DeviceBudget,
    precisions: tuple[str, ...] | None = None,
    good: int | None = None,
    pace: Pace = no_pace,
    family: Sequence[ModelCard] = FAMILY,
) -> tuple[Candidate, ...]:
    """Each model of the `family` on `place`, in the same order.

    `precisions` are those that the machine runs well, the most exact first; `good` is the context for which a more exact one is
    given up. `pace` is asked only for what fits.
    """
    return tuple(_candidate(card, card.shape, place, precisions, good, pace) for card in family if card.shape)


def best_candidate(found: Sequence[Candidate]) -> Candidate | None:
    """The first that runs well with a good context; if none has one, the one with the longest. None: none runs well."""
    well = [each for each in found if each.refusal is None]
    good = (each for each in well if each.plan.context >= LADDER_CONTEXT)
    return next(good, max(well, key=lambda each: each.plan.context, default=None))


def _candidate(
    card: ModelCard,
    shape: ModelShape,
    place: DeviceBudget,
    precisions: tuple[str, ...] | None,
    good: int | None,
    pace: Pace,
) -> Candidate:
    more = {} if good is None else {"good": good}
    best = best_plan(shape, place, precisions, **more)
    plans = tuple(plan(shape, precision, place, **more) for precision in precisions or ("bfloat16", "nf4"))
    fitting = tuple(each for each in plans if fits(shape, each))
    if not fitting:
        return Candidate(card, best, (), None, False, _too_large(shape, best, place))
    others = sorted((each for each in fitting if each.precision != best.precision), key=lambda each: -each.context)
    paces = {}
    for each in (best, *others):
        tokens, measured = pace(shape, each.precision)
        if tokens is None or tokens >= READABLE_PACE or place.type == "cuda":
            return Candidate(card, each, fitting, tokens, measured, None)
        paces[each.precision] = tokens, measured, each
    tokens, measured, fastest = max(paces.values(), key=lambda known: known[0])
    slow = Message("model_too_slow", {"pace": round(tokens, 1)})
    return Candidate(card, fastest, fitting, tokens, measured, slow)


def _too_large(shape: ModelShape, best: MemoryPlan, place: DeviceBudget) -> Message:
    count = len(place.all)
    needed = needed_bytes(shape, best.precision, place.type, count=count, fused=place.fused)
    free = sum(each.free for each in place.all)
    return Message("model_needs_memory", {"needed": round(needed / 1e9, 1), "free": round(free / 1e9, 1)})
