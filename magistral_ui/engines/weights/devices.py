"""Looks at this machine's devices and chooses where, in which precision and which model runs by default; it loads nothing."""

import os
import warnings
from dataclasses import dataclass, field, replace

import psutil
import torch

from magistral_ui.engines.weights import gpu_diagnosis
from magistral_ui.engines.weights.gpu_diagnosis import MIN_CAPABILITY, TorchBuild, find_graphics_cards, runs_kernels_for
from magistral_ui.engines.weights.quantization import can_quantize, has_fast_nf4
from magistral_ui.errors import BadSetting, DeviceTooSmall, Message
from magistral_ui.models.cards import DEMO, MAGISTRAL_1_2, ModelCard
from magistral_ui.models.memory import (
    GOOD_CONTEXT,
    MAX_FLOAT32_PARAMETERS,
    MIN_CONTEXT,
    PRECISIONS,
    TYPICAL_CONTEXT,
    MemoryPlan,
    Place,
    best_plan,
    fits,
    needed_bytes,
    plan,
)
from magistral_ui.models.shape import MAGISTRAL_SMALL_1_2, ModelShape

MIN_FUSED_CAPABILITY = (8, 0)
"""The oldest cards (Ampere) with fused attention for bfloat16."""


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
    capability: tuple[int, int] | None = None
    """Of an NVIDIA card, where it is known."""
    hindrance: Message | None = field(default=None, compare=False)
    """Why it is this device and no graphics card, where there is one."""

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
        return Place(self.type, self.free, self.total, tuple(each.place for each in self.others), self.fused)

    @property
    def fused(self) -> bool:
        """Whether attention is computed without its scores being written down."""
        return self.type != "cuda" or self.capability is None or self.capability >= MIN_FUSED_CAPABILITY

    def first(self, count: int) -> "Device":
        """The same with no more than `count` devices, named after all of them."""
        used = self.all[:count]
        names = list(dict.fromkeys(each.name for each in used))
        name = f"{len(used)} × {names[0]}" if len(names) == 1 < len(used) else " + ".join(each.name for each in used)
        return replace(self, name=name, others=used[1:])


def find_device(wanted: str = "auto") -> Device:
    """The device to use: CUDA where there is one, then Apple's, then the CPU; BadSetting where `wanted` is not here.

    Of several graphics cards the one with the most free memory comes first, and the rest are its `others`. Where there is a card
    that cannot be used, the device says why, or else BadSetting does.
    """
    hindrance = None
    if wanted in ("auto", "cuda"):
        cards, hindrance = _cards()
        if cards:
            return replace(cards[0], others=tuple(cards[1:]))
        if wanted == "cuda" and hindrance is not None:
            raise BadSetting(hindrance.key, **hindrance.values)
    if wanted in ("auto", "mps") and torch.backends.mps.is_available():
        limit = torch.mps.recommended_max_memory()
        return Device("mps", "Apple GPU", limit - torch.mps.driver_allocated_memory(), limit)
    if wanted in ("auto", "cpu"):
        memory = psutil.virtual_memory()
        return Device("cpu", "CPU", memory.available, memory.total, hindrance=hindrance)
    raise BadSetting("device_not_here", name="--device", value=wanted)


def look_again(device: Device) -> Device:
    """The same devices, with what is free on them now."""
    if device.type != "cuda":
        now = find_device(device.type)
        return replace(device, free=now.free, total=now.total)
    first, *others = (_card(each.index) for each in device.all)
    return replace(first, name=device.name, others=tuple(others))


def _cards() -> tuple[list[Device], Message | None]:
    """The graphics cards that can be used, the freest first; where there is none, why."""
    version = torch.__version__.partition("+")[0]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        there = torch.cuda.is_available()
        words = [str(each.message) for each in said]
    if not there:
        installed = TorchBuild(version, torch.version.cuda, " ".join(words))
        return [], gpu_diagnosis.why_unusable(find_graphics_cards(), installed, os.environ.get("CUDA_VISIBLE_DEVICES"))
    usable, hindrance = [], None
    for index in range(torch.cuda.device_count()):
        name, capability = torch.cuda.get_device_name(index), _capability(index)
        if capability is not None and capability < MIN_CAPABILITY:
            hindrance = gpu_diagnosis.too_old(name, capability)
        elif capability is not None and not runs_kernels_for(capability, torch.cuda.get_arch_list()):
            hindrance = gpu_diagnosis.too_new(name, version)
        else:
            try:
                usable.append(_card(index))
            except RuntimeError as error:  # in another program's sole possession, for example
                hindrance = gpu_diagnosis.not_started(name, str(error))
    return sorted(usable, key=lambda card: -card.free), hindrance


def _capability(index: int) -> tuple[int, int] | None:
    """Of an NVIDIA card; AMD's, which torch calls CUDA too, count otherwise."""
    if torch.version.hip is not None:
        return None
    try:
        return torch.cuda.get_device_capability(index)
    except (AssertionError, RuntimeError):  # a torch without CUDA, or a card that does not answer
        return None


def _card(index: int) -> Device:
    free, total = torch.cuda.mem_get_info(index)
    return Device("cuda", torch.cuda.get_device_name(index), free, total, index, capability=_capability(index))


def choose_default(device: Device) -> tuple[ModelCard, str]:
    """The model for someone who named none, and the key of the sentence that says why."""
    if device.type == "cpu":
        return DEMO, "model_chosen_gpu_unusable" if device.hindrance else "model_chosen_no_gpu"
    if fits(MAGISTRAL_SMALL_1_2, best_for(MAGISTRAL_SMALL_1_2, device)):
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
    best = best_for(shape, device)
    chosen = best if wanted == "auto" else plan(shape, wanted, device.place, weights=weights)
    if fits(shape, chosen, context_length):
        return chosen
    least = min(context_length or MIN_CONTEXT, MIN_CONTEXT)
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
        needed=f"{needed_bytes(shape, chosen.precision, device.type, least, count, device.fused) / 1e9:.1f}",
        other=best.precision,
    )


def best_for(shape: ModelShape, device: Device) -> MemoryPlan:
    """The best plan on `device`, of the precisions that it is good at."""
    if shape.parameters < MAX_FLOAT32_PARAMETERS:
        return best_plan(shape, device.place)
    return best_plan(shape, device.place, good_precisions(device), good_context(device))


def good_context(device: Device) -> int:
    """Tokens for which a more exact precision is given up; a slow processor writes no long ones."""
    return TYPICAL_CONTEXT if is_slow(device) else GOOD_CONTEXT


def good_precisions(device: Device) -> tuple[str, ...]:
    """What to choose from on `device`, the most exact first.

    On a processor that has instructions for it nf4 decodes faster than int8 (0.042 s a step to 0.067 s), without them slower
    (0.40 s to 0.25 s). On a graphics card each product in int8 waits for the host: a token takes 3 to 7 times as long as in nf4.
    On Apple's GPU int8 was not tried.
    """
    if not can_quantize():
        return ("bfloat16",)
    return PRECISIONS if is_slow(device) else ("bfloat16", "nf4")


def is_slow(device: Device) -> bool:
    """Whether it is a processor without instructions for nf4."""
    return device.type == "cpu" and not has_fast_nf4()
