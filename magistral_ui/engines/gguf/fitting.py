"""Plans a GGUF model's memory on llama.cpp's device, or says what it would need; it loads nothing."""

from magistral_ui.engines.base import ModelRequest
from magistral_ui.engines.gguf.devices import LlamaDevice
from magistral_ui.errors import DeviceTooSmall
from magistral_ui.models.gguf_file import GGUFFacts
from magistral_ui.models.gguf_plan import GGUFWeights, needed_gguf_bytes, plan_gguf
from magistral_ui.models.memory import MIN_CONTEXT, MemoryPlan, fits
from magistral_ui.models.shape import ModelShape


def choose_gguf_plan(
    name: str,
    shape: ModelShape,
    weights: GGUFWeights,
    device: LlamaDevice,
    *,
    kv_type: str = "auto",
    context: int | None = None,
    recommended: int | None = None,
) -> MemoryPlan:
    """The memory plan of model `name` on `device`, as `plan_gguf` makes it. Raises DeviceTooSmall if it does not fit."""
    place = device.place
    planned = plan_gguf(shape, weights, place, kv_type=kv_type, context=context, recommended=recommended)
    if fits(shape, planned, context):
        return planned
    least = min(context or MIN_CONTEXT, MIN_CONTEXT)
    needed = needed_gguf_bytes(shape, weights, place.type, least, len(place.all))
    raise DeviceTooSmall(
        model=name,
        precision=weights.quantization,
        device=device.name,
        free=round(sum(each.free for each in place.all) / 1e9, 1),
        needed=round(needed / 1e9, 1),
        other=weights.quantization,
    )


def plan_fitting(name: str, facts: GGUFFacts, request: ModelRequest, device: LlamaDevice) -> MemoryPlan:
    """The memory plan of a model on `device`. Raises DeviceTooSmall if it does not fit."""
    return choose_gguf_plan(
        name,
        facts.shape,
        facts.weights,
        device,
        kv_type=request.kv_type,
        context=request.context_length,
        recommended=facts.card.recommended_length,
    )
