"""Looks at this machine's devices and chooses where, in which precision and which model runs by default; it loads nothing."""

from dataclasses import dataclass

import psutil
import torch

from magistral_ui.errors import BadSetting
from magistral_ui.models.cards import DEMO, MAGISTRAL_1_2, ModelCard

GIB = 2**30
MAGISTRAL_NF4_BYTES = 18 * GIB
"""14.0 GiB of nf4 weights, 2.5 GiB of keys and values for 16,000 tokens, and room to work in."""


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
    if device.type == "cuda" and device.total >= MAGISTRAL_NF4_BYTES:
        return MAGISTRAL_1_2, "model_chosen_gpu_fits"
    if device.type == "cuda":
        return DEMO, "model_chosen_gpu_too_small"
    return DEMO, "model_chosen_no_gpu"


def choose_precision(card: ModelCard, device: Device, wanted: str = "auto") -> str:
    """`float32`, `bfloat16`, `nf4` or `int8`: what was asked for, or what holds the model on the device."""
    if wanted != "auto":
        return wanted
    if card.demo:
        return "float32"
    if device.type == "cuda":
        return "bfloat16" if device.free > 60 * GIB else "nf4"
    return "bfloat16"
