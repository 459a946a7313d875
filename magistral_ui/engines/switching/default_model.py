"""Names the model that runs if nobody named one, and with it the engine: a GGUF file may be the machine's best choice."""

from dataclasses import replace

from magistral_ui.engines.base import ModelRequest
from magistral_ui.engines.gguf.default_model import counted_as
from magistral_ui.engines.switching.machine import find_machine, has_llama_cpp
from magistral_ui.engines.weights.gguf_download import held_models
from magistral_ui.engines.weights.pinned_revision import is_complete
from magistral_ui.models.cards import FAMILY, ModelCard
from magistral_ui.models.folder import AUTO
from magistral_ui.models.gguf_names import is_quantization
from magistral_ui.models.ladder import Held


def resolve(request: ModelRequest) -> ModelRequest:
    """`request` with the model that the ladder chooses, if it leaves that to the machine; takes seconds if paces are timed.

    As it is where only safetensors can be the choice, which the local engine makes itself.
    """
    if request.model not in (None, AUTO) or request.precision != "auto" or not has_llama_cpp():
        return request
    files = {card.key: _held_files(card) for card in FAMILY}
    if request.model is None and not any(files.values()):
        return request
    machine = find_machine(request.device)
    held = Held(is_complete, lambda card: files[card.key]) if request.model is None else None
    chosen = machine.choose_default(machine.pace, held)
    model = files.get(chosen.card.key, {}).get(chosen.precision, chosen.card.key)
    precision = "auto" if ":" in model else chosen.precision
    return replace(request, model=model, precision=precision, chosen_because=chosen.why)


def _held_files(card: ModelCard) -> dict[str, str]:
    """The GGUF models of the card that are complete here: by quantization, as `owner/repo:LABEL`."""
    found: dict[str, str] = {}
    for repository in card.gguf_repositories:
        for model in held_models(repository, None):
            if is_quantization(model.label):  # else it is another model in the same repository
                found.setdefault(counted_as(model.label), f"{repository}:{model.label}")
    return found
