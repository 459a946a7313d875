"""Looks at this machine's devices and chooses where, in which precision and which model runs by default; it loads nothing."""

from dataclasses import dataclass, replace

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
    index: int = 0
    """Which of the graphics cards, as torch counts them."""
    others: tuple["Device", ...] = ()
    """The machine's other graphics cards, the freest first: a model that is too large for one is spread over them."""

    @property
    def torch(self) -> torch.device:
        """As torch calls it."""
        return torch.device(self.type, self.index) if self.type == "cuda" else torch.device(self.type)

    @property
    def all(self) -> tuple["Device", ...]:
        """This one and the others."""
        return (replace(self, others=()), *self.others)

    @property
    def place(self) -> Place:
        """Its bytes, for planning."""
        return Place(self.type, self.free, self.total, tuple(each.place for each in self.others))

    def first(self, count: int) -> "Device":
        """The same with no more than `count` devices, named after all of them."""
        used = self.all[:count]
        names = list(dict.fromkeys(each.name for each in used))
        name = f"{len(used)} × {names[0]}" if len(names) == 1 < len(used) else " + ".join(each.name for each in used)
        return replace(self, name=name, others=used[1:])


def find_device(wanted: str = "auto") -> Device:
    """The device to use: CUDA where there is one, then Apple's, then the CPU; BadSetting where `wanted` is not here.

    Of several graphics cards the one with the most free memory comes first, and the rest are its `others`.
    """
    if wanted in ("auto", "cuda") and torch.cuda.is_available():
        cards = sorted(map(_card, range(torch.cuda.device_count())), key=lambda card: -card.free)
        return replace(cards[0], others=tuple(cards[1:]))
    if wanted in ("auto", "mps") and torch.backends.mps.is_available():
        limit = torch.mps.recommended_max_memory()
        return Device("mps", "Apple GPU", limit - torch.mps.driver_allocated_memory(), limit)
    if wanted in ("auto", "cpu"):
        memory = psutil.virtual_memory()
        return Device("cpu", "CPU", memory.available, memory.total)
    raise BadSetting("device_not_here", name="--device", value=wanted)


def look_again(device: Device) -> Device:
    """The same devices, with what is free on them now."""
    if device.type != "cuda":
        now = find_device(device.type)
        return replace(device, free=now.free, total=now.total)
    first, *others = (_card(each.index) for each in device.all)
    return replace(first, name=device.name, others=tuple(others))


def _card(index: int) -> Device:
    free, total = torch.cuda.mem_get_info(index)
    return Device("cuda", torch.cuda.get_device_name(index), free, total, index)


def choose_default(device: Device) -> tuple[ModelCard, str]:
    """The model for someone who named none, and the key of the sentence that says why."""
    if device.type == "cpu":
        return DEMO, "model_chosen_no_gpu"
    if fits(MAGISTRAL_SMALL_1_2, best_plan(MAGISTRAL_SMALL_1_2, device.place, good_precisions(device))):
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
    best = best_plan(shape, device.place, good_precisions(device))
    chosen = best if wanted == "auto" else plan(shape, wanted, device.place, weights=weights)
    if fits(shape, chosen, context_length):
        return chosen
    least = min(context_length or LEAST_CONTEXT, LEAST_CONTEXT)
    other_fits = weights is None and best.precision != chosen.precision and fits(shape, best, context_length)
    if weights is None and not other_fits:
        chosen = best  # the smallest form is what there would have to be room for
    count = len(device.all)
    raise DeviceTooSmall(
        "precision_too_large" if other_fits else "device_too_small",
        model=name,
        precision=chosen.precision,
        device=device.first(count).name,
        free=f"{sum(each.free for each in device.all) / 1e9:.1f}",
        needed=f"{needed_bytes(shape, chosen.precision, device.type, least, count) / 1e9:.1f}",
        other=best.precision,
    )


def good_precisions(device: Device) -> tuple[str, ...]:
    """What to choose from on `device`, the most exact first.

    On a processor with AVX-512 nf4 decodes faster than int8 (0.042 s a step to 0.067 s), without it slower (0.40 s to 0.25 s).
    On Apple's GPU int8 was not tried.
    """
    if not can_quantize():
        return ("bfloat16",)
    slow_nf4 = device.type == "cpu" and not torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return PRECISIONS if device.type == "cuda" or slow_nf4 else ("bfloat16", "nf4")
