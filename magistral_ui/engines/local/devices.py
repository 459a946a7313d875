"""Looks at this machine's devices and chooses where, in which precision and which model runs by default; it loads nothing."""

from dataclasses import dataclass

import psutil
import torch

from magistral_ui.engines.local.quantization import can_quantize
from magistral_ui.errors import BadSetting, DeviceTooSmall
from magistral_ui.models.cards import DEMO, MAGISTRAL_1_2, ModelCard
from magistral_ui.models.memory import (
    LEAST_CONTEXT,
    PRECISIONS,
    MemoryPlan,
    Place,
    best_plan,
    fits,
    needed_bytes,
    plan,
)
from magistral_ui.models.shape import MAGISTRAL_SMALL_1_2, ModelShape


@dataclass(frozen=True, slots=True)
class Device:
    """A place to run a model; bytes are what is free now and what there is."""

    type: str
    """`cuda`, `mps` or `cpu`."""
    name: str
    free: int
    total: int

    @property
    def torch(self) -> torch.device:
        """The first device of this type."""
        return torch.device(self.type, 0) if self.type == "cuda" else torch.device(self.type)

    @property
    def place(self) -> Place:
        """Its bytes, for planning."""
        return Place(self.type, self.free, self.total)


def find_device(wanted: str = "auto") -> Device:
    """The device to use: CUDA where there is one, then Apple's, then the CPU; BadSetting where `wanted` is not here."""
    if wanted in ("auto", "cuda") and torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info(0)
        return Device("cuda", torch.cuda.get_device_name(0), free, total)
    if wanted in ("auto", "mps") and torch.backends.mps.is_available():
        limit = torch.mps.recommended_max_memory()
        return Device("mps", "Apple GPU", limit - torch.mps.driver_allocated_memory(), limit)
    if wanted in ("auto", "cpu"):
        memory = psutil.virtual_memory()
        return Device("cpu", "CPU", memory.available, memory.total)
    raise BadSetting("device_not_here", name="--device", value=wanted)


def choose_default(device: Device) -> tuple[ModelCard, str]:
    """The model for someone who named none, and the key of the sentence that says why."""
    if device.type == "cpu":
        return DEMO, "model_chosen_no_gpu"
    if fits(MAGISTRAL_SMALL_1_2, best_plan(MAGISTRAL_SMALL_1_2, device.place, _precisions())):
        return MAGISTRAL_1_2, "model_chosen_gpu_fits"
    return DEMO, "model_chosen_gpu_too_small"


def choose_plan(
    name: str,
    shape: ModelShape,
    device: Device,
    wanted: str = "auto",
    context_length: int | None = None,
    weights: int | None = None,
) -> MemoryPlan:
    """How the model `name` is kept on `device`: in the `wanted` precision, or in the best one.

    `weights` are the bytes of a checkpoint that is quantized already. DeviceTooSmall where it does not fit, with what would.
    """
    if wanted in ("nf4", "int8") and not can_quantize():
        raise DeviceTooSmall("quantization_not_here", precision=wanted)
    best = best_plan(shape, device.place, _precisions())
    chosen = best if wanted == "auto" else plan(shape, wanted, device.place, weights=weights)
    if fits(shape, chosen, context_length):
        return chosen
    least = min(context_length or LEAST_CONTEXT, LEAST_CONTEXT)
    other_fits = weights is None and best.precision != chosen.precision and fits(shape, best, context_length)
    raise DeviceTooSmall(
        "precision_too_large" if other_fits else "device_too_small",
        model=name,
        precision=chosen.precision,
        device=device.name,
        free=f"{device.free / 1e9:.1f}",
        needed=f"{needed_bytes(shape, chosen.precision, device.type, least) / 1e9:.1f}",
        other=best.precision,
    )


def _precisions() -> tuple[str, ...]:
    return PRECISIONS if can_quantize() else ("bfloat16",)
