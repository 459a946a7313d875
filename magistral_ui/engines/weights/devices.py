"""Chooses the device, precision and default model for this machine, and estimates their speed; it loads nothing."""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import psutil
import torch
from torch import nn

from magistral_ui.engines.weights import gpu_diagnosis
from magistral_ui.engines.weights.fused_products import fused_buckets
from magistral_ui.engines.weights.gpu_diagnosis import MIN_CAPABILITY, TorchBuild, find_graphics_cards, runs_kernels_for
from magistral_ui.engines.weights.quantization import can_quantize, has_fast_nf4
from magistral_ui.errors import BadSetting, DeviceTooSmall, Message
from magistral_ui.models.cards import FAMILY, ModelCard
from magistral_ui.models.default_model import DefaultModel, choose
from magistral_ui.models.device_budget import DeviceBudget
from magistral_ui.models.ladder import Pace, candidates, no_pace
from magistral_ui.models.memory import (
    GOOD_CONTEXT,
    MAX_FLOAT32_PARAMETERS,
    MIN_CONTEXT,
    PRECISIONS,
    TYPICAL_CONTEXT,
    MemoryPlan,
    best_plan,
    fits,
    needed_bytes,
    plan,
)
from magistral_ui.models.shape import ModelShape

MIN_FUSED_CAPABILITY = (8, 0)
"""Compute capability of the oldest GPUs (Ampere) with fused attention for bfloat16, a prefix, and heads that share keys."""
CPU_SECONDS_PER_BILLION = {"nf4": 1.03, "int8": 0.64, "bfloat16": 0.24}
"""Seconds per token for a billion weights, on one thread without AVX-512.

Measured for nf4 on Magistral's layers (22.8 s for all of them); the others scaled by ratios on a 415M model.
"""
BYTES_PER_WEIGHT = {"nf4": 4.5, "int8": 4.0, "bfloat16": 2.0}
"""Bytes of memory traffic per weight: nf4 and int8 are unpacked in memory first."""
MEMORY_BANDWIDTH = 40e9
"""Bytes per second of an ordinary computer's memory."""
SLOW_TOKEN_SECONDS = 2.0
"""Seconds per token that are worth a warning: an answer of 1,000 tokens then takes half an hour."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device that can run a model; `free` and `total` are bytes."""

    type: str
    """`cuda`, `mps` or `cpu`."""
    name: str
    free: int
    total: int
    index: int = 0
    others: tuple["Device", ...] = ()
    """The machine's other GPUs, the freest first: a model too large for one is spread over them."""
    capability: tuple[int, int] | None = None
    """Compute capability of an NVIDIA GPU, if known."""
    hindrance: Message | None = field(default=None, compare=False)
    """Why a GPU that is present cannot be used."""

    @property
    def torch(self) -> torch.device:
        return torch.device(self.type, self.index) if self.type == "cuda" else torch.device(self.type)

    @property
    def all(self) -> tuple["Device", ...]:
        return (replace(self, others=()), *self.others)

    @property
    def place(self) -> DeviceBudget:
        others = tuple(each.place for each in self.others)
        asked = None
        if self.type == "cuda" and self.capability is not None:
            asked = partial(fused_buckets, capability=self.capability, index=self.index)
        return DeviceBudget(
            self.type,
            self.free,
            self.total,
            others,
            self.fused,
            capability=self.capability,
            fused_buckets=asked,
        )

    @property
    def fused(self) -> bool:
        """Whether attention is fused, that is, its scores never reach memory."""
        return self.type != "cuda" or self.capability is None or self.capability >= MIN_FUSED_CAPABILITY

    def first(self, count: int) -> "Device":
        """This device with `count` GPUs at most, named after all of them."""
        used = self.all[:count]
        names = list(dict.fromkeys(each.name for each in used))
        name = f"{len(used)} × {names[0]}" if len(names) == 1 < len(used) else " + ".join(each.name for each in used)
        return replace(self, name=name, others=used[1:])


def find_device(wanted: str = "auto") -> Device:
    """The device to use: CUDA if there is one, then MPS, then the CPU; BadSetting if `wanted` is not available.

    `wanted` is `auto`, `gpu` (either kind), or one of these.

    Of several GPUs the one with the most free memory comes first, with the rest as its `others`. If a GPU is present but
    cannot be used, the device's `hindrance` (or the BadSetting) says why.
    """
    hindrance = None
    if wanted in ("auto", "gpu", "cuda"):
        cards, hindrance = _cards()
        if cards:
            return replace(cards[0], others=tuple(cards[1:]))
        if wanted != "auto" and hindrance is not None:
            raise BadSetting(hindrance.key, **hindrance.values)
    if wanted in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        limit = torch.mps.recommended_max_memory()
        return Device("mps", "Apple GPU", limit - torch.mps.driver_allocated_memory(), limit)
    if wanted in ("auto", "cpu"):
        memory = psutil.virtual_memory()
        return Device("cpu", "CPU", memory.available, memory.total, hindrance=hindrance)
    raise BadSetting("device_not_here", name="--device", value=wanted)


def use_threads(count: int | None) -> None:
    """How many of the processor's threads torch takes; None leaves that to torch."""
    if count:
        torch.set_num_threads(count)


def look_again(device: Device) -> Device:
    if device.type != "cuda":
        now = find_device(device.type)
        return replace(device, free=now.free, total=now.total)
    first, *others = (_card(each.index) for each in device.all)
    return replace(first, name=device.name, others=tuple(others))


def freed(device: Device, held: int) -> Device:
    """`device` as it will be when the model that runs, which holds this many bytes, has been freed."""
    if device.type == "cuda":  # the allocator knows better, and of each GPU
        first, *others = (_with_free(each, torch.cuda.memory_reserved(each.index)) for each in device.all)
        return replace(first, others=tuple(others))
    return _with_free(device, held)


def _with_free(device: Device, more: int) -> Device:
    return replace(device, free=min(device.total, device.free + more))


def _cards() -> tuple[list[Device], Message | None]:
    """The usable GPUs, the freest first; if there are none, the reason."""
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
            except RuntimeError as error:  # in exclusive use by another program, for example
                hindrance = gpu_diagnosis.not_started(name, str(error))
    return sorted(usable, key=lambda card: -card.free), hindrance


def _capability(index: int) -> tuple[int, int] | None:
    """Compute capability of an NVIDIA GPU; AMD's, which torch also calls CUDA, are numbered differently."""
    if torch.version.hip is not None:
        return None
    try:
        return torch.cuda.get_device_capability(index)
    except (AssertionError, RuntimeError):  # torch without CUDA, or a GPU that does not respond
        return None


def _card(index: int) -> Device:
    free, total = torch.cuda.mem_get_info(index)
    return Device("cuda", torch.cuda.get_device_name(index), free, total, index, capability=_capability(index))


def choose_default(
    device: Device, may_run: Callable[[ModelCard], bool], pace: Pace = no_pace, precision: str = "auto"
) -> DefaultModel:
    """The best model of those that `may_run` with torch, or the demo model.

    `precision` is the one asked for. `pace` is asked only for models that may run and fit, and never on CUDA, where whatever fits
    is fast enough.
    """
    family = tuple(card for card in FAMILY if may_run(card))
    precisions = good_precisions(device) if precision == "auto" else (precision,)
    pace = no_pace if device.type == "cuda" else pace
    return choose(
        candidates(device.place, precisions, good_context(device), pace, family),
        lambda: candidates(device.place, good_precisions(device), good_context(device)),
        on_gpu=device.type != "cpu",
        hindered=device.hindrance is not None,
        precision=precision,
    )


def choose_plan(
    name: str,
    shape: ModelShape,
    device: Device,
    wanted: str = "auto",
    context_length: int | None = None,
    weights: int | None = None,
) -> MemoryPlan:
    """The memory plan of model `name` on `device`: in the `wanted` precision, or in the best one.

    `weights` are the bytes of a checkpoint that is already quantized. Raises DeviceTooSmall, which says what would fit.
    """
    if wanted in ("nf4", "int8") and not can_quantize():
        raise DeviceTooSmall("quantization_not_here", precision=wanted)
    best = best_for(shape, device)
    good = good_context(device)
    chosen = best if wanted == "auto" else plan(shape, wanted, device.place, weights=weights, good=good)
    if context_length and context_length < good:  # it may leave room for larger images
        chosen = plan(shape, chosen.precision, device.place, weights=weights, good=context_length)
    if fits(shape, chosen, context_length):
        return chosen
    least = min(context_length or MIN_CONTEXT, MIN_CONTEXT)
    other_fits = weights is None and best.precision != chosen.precision and fits(shape, best, context_length)
    if weights is None and not other_fits:
        chosen = best  # name the smallest size that would be needed
    count = len(device.all)
    raise DeviceTooSmall(
        "precision_too_large" if other_fits else "device_too_small",
        model=name,
        precision=chosen.precision,
        device=device.first(count).name,
        free=round(sum(each.free for each in device.all) / 1e9, 1),
        needed=round(needed_bytes(shape, chosen.precision, device.type, least, count, device.fused) / 1e9, 1),
        other=best.precision,
    )


def best_for(shape: ModelShape, device: Device) -> MemoryPlan:
    """The best plan on `device`, among the precisions that it runs well."""
    if shape.parameters < MAX_FLOAT32_PARAMETERS:
        return best_plan(shape, device.place)
    return best_plan(shape, device.place, good_precisions(device), good_context(device))


def good_context(device: Device) -> int:
    """Context for which a more exact precision is given up; a slow processor never fills a long one."""
    return TYPICAL_CONTEXT if is_slow(device) else GOOD_CONTEXT


def good_precisions(device: Device) -> tuple[str, ...]:
    """The precisions to choose from on `device`, the most exact first.

    On a processor with instructions for it nf4 decodes faster than int8 (0.042 s a step against 0.067 s), without them slower
    (0.40 s against 0.25 s). On a GPU each int8 product waits for the host: a token takes 3 to 7 times as long as in nf4.
    int8 is untested on MPS.
    """
    if not can_quantize():
        return ("bfloat16",)
    return PRECISIONS if is_slow(device) else ("bfloat16", "nf4")


def is_slow(device: Device) -> bool:
    """Whether it is a processor without instructions for nf4."""
    return device.type == "cpu" and not has_fast_nf4()


def slow_pace(shape: ModelShape, plan: MemoryPlan, device: Device) -> Message | None:
    if plan.precision not in CPU_SECONDS_PER_BILLION or not is_slow(device):
        return None
    weights = shape.linear_parameters
    computing = CPU_SECONDS_PER_BILLION[plan.precision] * weights / 1e9 / max(1, torch.get_num_threads())
    seconds = max(computing, BYTES_PER_WEIGHT[plan.precision] * weights / MEMORY_BANDWIDTH)
    return Message("slow_processor", {"seconds": round(seconds)}) if seconds >= SLOW_TOKEN_SECONDS else None


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's weights; those of one layer are never split."""
    weight: Any = next(module.parameters())
    place: torch.device = weight.device
    return place
