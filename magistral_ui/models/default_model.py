"""Chooses the model that runs if nobody named one, by the ladder; it queries no device and downloads nothing."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from magistral_ui.models.cards import DEMO, ModelCard
from magistral_ui.models.ladder import Candidate, best_candidate


class DefaultModel(NamedTuple):
    """What runs if no model is named."""

    card: ModelCard
    why: str
    """Key of the text that says why."""
    precision: str = "auto"


def choose(
    found: Sequence[Candidate],
    everything: Callable[[], Sequence[Candidate]],
    *,
    on_gpu: bool,
    hindered: bool = False,
    precision: str = "auto",
) -> DefaultModel:
    """The best of what may run, or the demo model.

    `found` are the models that may run, `everything` finds the whole family, whether or not it is downloaded. `precision` is
    the one that was asked for. `hindered`: there is a GPU that cannot be used.
    """
    best = best_candidate(found)
    if best is not None:
        return DefaultModel(
            best.card, "model_chosen_gpu_fits" if on_gpu else "model_chosen_cpu_fits", best.plan.precision
        )
    return DefaultModel(DEMO, _why_demo(found, everything, on_gpu, hindered), precision)


def _why_demo(
    found: Sequence[Candidate], everything: Callable[[], Sequence[Candidate]], on_gpu: bool, hindered: bool
) -> str:
    if hindered:
        return "model_chosen_gpu_unusable"
    if any(each.plans for each in found):
        return "model_chosen_too_slow"
    if any(each.plans for each in everything()):
        return "model_chosen_not_downloaded"
    return "model_chosen_gpu_too_small" if on_gpu else "model_chosen_no_gpu"
