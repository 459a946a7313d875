"""Chooses the GGUF model that runs if nobody named one: the best that this machine runs, or the demo model."""

from magistral_ui.engines.gguf.devices import LlamaDevice
from magistral_ui.engines.weights.gguf_record import recorded_models
from magistral_ui.models.cards import DEMO, FAMILY, ModelCard
from magistral_ui.models.ladder import best_candidate, candidates


def choose_gguf(device: LlamaDevice, precision: str, *, downloaded: bool) -> tuple[ModelCard, str, str]:
    """The card, the key of the text that says why, and the precision; `downloaded` restricts it to what is here."""
    family = tuple(card for card in FAMILY if not downloaded or _is_here(card))
    best = best_candidate(candidates(device.place, (), family=family, gguf=device.place))
    if best is None:
        everything = candidates(device.place, (), gguf=device.place)
        return DEMO, _why_demo(device, any(each.plans for each in everything)), "auto"
    why = "model_chosen_gpu_fits" if device.kind == "gpu" else "model_chosen_cpu_fits"
    return best.card, why, best.plan.precision if precision == "auto" else precision


def _is_here(card: ModelCard) -> bool:
    return any(model.is_complete for name in card.gguf_repositories for model in recorded_models(name))


def _why_demo(device: LlamaDevice, others_fit: bool) -> str:
    if device.hindrance is not None:
        return "model_chosen_gpu_unusable"
    if others_fit:
        return "model_chosen_not_downloaded"
    return "model_chosen_gpu_too_small" if device.kind == "gpu" else "model_chosen_no_gpu"
