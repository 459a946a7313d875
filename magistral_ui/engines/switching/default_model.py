"""Names the model that runs if nobody named one, and with it the engine: a GGUF file may be the machine's best choice."""

from dataclasses import replace

from magistral_ui.engines.base import ModelRequest
from magistral_ui.engines.switching.machine import find_machine, has_llama_cpp
from magistral_ui.engines.weights.gguf_entries import held_quantizations
from magistral_ui.engines.weights.held_repositories import is_complete
from magistral_ui.models.cards import FAMILY
from magistral_ui.models.folder import AUTO
from magistral_ui.models.ladder import Held


def resolve(request: ModelRequest) -> ModelRequest:
    """`request` with the model that the ladder chooses, if it leaves that to the machine; takes seconds if paces are timed.

    As it is where only safetensors can be the choice, which the local engine makes itself.
    """
    if request.model not in (None, AUTO) or request.precision != "auto" or not has_llama_cpp():
        return request
    files = {card.key: held_quantizations(card) for card in FAMILY}
    if request.model is None and not any(files.values()):
        return request
    machine = find_machine(request.device)
    held = Held(is_complete, lambda card: files[card.key]) if request.model is None else None
    chosen = machine.choose_default(machine.pace, held)
    model = files.get(chosen.card.key, {}).get(chosen.precision, chosen.card.key)
    precision = "auto" if ":" in model else chosen.precision
    return replace(request, model=model, precision=precision, chosen_because=chosen.why)
