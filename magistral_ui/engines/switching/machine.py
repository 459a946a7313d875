"""Knows with what models can run on this machine: torch on its device, llama.cpp on its own; it loads and lists none.

Neither library needs to be installed, and neither is imported unless it is.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

import psutil

from magistral_ui.engines.gguf.devices import LlamaDevice, find_llama_device
from magistral_ui.engines.gguf.fitting import choose_gguf_plan
from magistral_ui.engines.gguf.pace import estimated_gguf_pace
from magistral_ui.engines.local.engine import IMPORTING
from magistral_ui.engines.weights.pace_file import known_pace, measured_pace
from magistral_ui.errors import BadSetting, Message
from magistral_ui.models.cards import FAMILY, ModelCard
from magistral_ui.models.default_model import DefaultModel, choose
from magistral_ui.models.device_budget import DeviceBudget
from magistral_ui.models.gguf_plan import QUANTIZATIONS, estimated_weights, needed_gguf_bytes
from magistral_ui.models.ladder import Candidate, Held, Pace, candidates, no_pace
from magistral_ui.models.memory import MemoryPlan, needed_bytes
from magistral_ui.models.shape import ModelShape

if TYPE_CHECKING:
    from magistral_ui.engines.weights.devices import Device


def has_torch() -> bool:
    """Whether the libraries that run models in safetensors are installed."""
    return _is_installed("torch") and _is_installed("transformers")


def has_llama_cpp() -> bool:
    """Whether the library that runs GGUF files is installed."""
    return _is_installed("xllamacpp")


def _is_installed(library: str) -> bool:
    with suppress(ImportError):
        return find_spec(library) is not None
    return False


@dataclass(frozen=True, slots=True)
class Machine:
    """The devices as they are at one moment."""

    torch: "Device | None"
    """torch's; None if it is not installed, or cannot use the device that was asked for."""
    llama: LlamaDevice | None
    """llama.cpp's; None if it is not installed, or cannot use the device that was asked for."""

    @property
    def name(self) -> str:
        if self.torch is not None:
            return self.torch.first(len(self.torch.all)).name
        return self.llama.name if self.llama else "CPU"

    @property
    def hindrance(self) -> Message | None:
        """Why a GPU that is present cannot be used, with the remedy."""
        if self.llama is not None and self.llama.kind == "gpu":
            return None
        device = self.torch or self.llama
        return device.hindrance if device else None

    @property
    def place(self) -> DeviceBudget:
        """torch's device; llama.cpp's if there is no torch."""
        if self.torch is not None:
            return replace(self.torch.place, host=psutil.virtual_memory().available)
        if self.llama is not None:
            return self.llama.place
        memory = psutil.virtual_memory()
        return DeviceBudget("cpu", memory.available, memory.total)

    @property
    def gguf(self) -> DeviceBudget | None:
        """Where llama.cpp runs a model."""
        return self.llama.place if self.llama else None

    @property
    def precisions(self) -> tuple[str, ...]:
        """torch's precisions that this machine runs well, the most exact first."""
        if self.torch is None:
            return ()
        from magistral_ui.engines.weights.devices import good_precisions

        return good_precisions(self.torch)

    @property
    def can_quantize(self) -> bool:
        """Whether torch can run models in nf4 and int8."""
        if self.torch is None:
            return False
        from magistral_ui.engines.weights.quantization import can_quantize

        return can_quantize()

    @property
    def good(self) -> int | None:
        """Context for which a more exact precision is given up; None: the usual one."""
        if self.torch is None:
            return None
        from magistral_ui.engines.weights.devices import good_context

        return good_context(self.torch)

    def candidates(
        self, pace: Pace = no_pace, family: tuple[ModelCard, ...] = FAMILY, held: Held | None = None
    ) -> tuple[Candidate, ...]:
        """Each model of the `family` on this machine."""
        return candidates(self.place, self.precisions, self.good, pace, family, self.gguf, held)

    def choose_default(self, pace: Pace = no_pace, held: Held | None = None) -> DefaultModel:
        """The best model, of those that are `held` if that is given; the demo model if none runs well.

        `pace` is asked only where it matters.
        """

        def needed(shape: ModelShape, precision: str) -> tuple[float | None, bool]:
            return pace(shape, precision) if self.may_be_slow(precision) else (None, False)

        on_gpu = self.place.type != "cpu" or (self.llama is not None and self.llama.kind == "gpu")
        return choose(
            self.candidates(needed, held=held), self.candidates, on_gpu=on_gpu, hindered=self.hindrance is not None
        )

    def may_be_slow(self, precision: str) -> bool:
        """Whether the pace in `precision` must be known: on NVIDIA's GPUs, and others', whatever fits is fast enough."""
        device = self.gguf if precision in QUANTIZATIONS else self.place
        return device is not None and device.type in ("cpu", "mps")

    def needed_bytes(self, shape: ModelShape, planned: MemoryPlan, context: int) -> int:
        """Bytes of the smallest, unused device of this kind that runs the model as `planned`, with `context` tokens."""
        count = len(planned.shares)
        if planned.kv_type and self.gguf is not None:
            weights = estimated_weights(shape, planned.precision, mmproj=planned.image_side > 0)
            type = "cpu" if planned.gpu_layers == 0 else self.gguf.type
            return needed_gguf_bytes(shape, weights, type, context, count)
        return needed_bytes(shape, planned.precision, self.place.type, context, count, self.place.fused)

    def check(self, found: Candidate, precision: str, context: int | None) -> None:
        """Raise DeviceTooSmall, which says what would fit, if a model does not fit as requested."""
        shape = found.card.shape
        automatic = found.plan.precision if precision == "auto" else precision
        if shape is None:
            return
        if automatic in QUANTIZATIONS:
            weights = estimated_weights(shape, automatic)
            if self.llama is not None:
                choose_gguf_plan(found.card.name, shape, weights, self.llama, context=context)
        elif self.torch is not None:
            from magistral_ui.engines.weights.devices import choose_plan

            choose_plan(found.card.name, shape, self.torch, precision, context)

    def known_pace(self) -> Pace:
        """The paces that are known at this moment, from earlier replies and estimates."""
        with_torch = known_pace(self.torch) if self.torch else no_pace
        with_llama = known_pace(self.llama) if self.llama else no_pace

        def pace(shape: ModelShape, precision: str) -> tuple[float | None, bool]:
            return (with_llama if precision in QUANTIZATIONS else with_torch)(shape, precision)

        return pace

    def pace(self, shape: ModelShape, precision: str) -> tuple[float | None, bool]:
        """The pace, estimated if need be, which takes seconds the first time."""
        device = self.llama if precision in QUANTIZATIONS else self.torch
        measured = measured_pace(shape, precision, device) if device else None
        return (measured, True) if measured else (estimated_pace(shape, precision, self), False)


def find_machine(wanted: str = "auto", threads: int | None = None) -> Machine:
    """The devices for `--device wanted`; BadSetting if no installed library can use it. `threads` are for torch."""
    found, refusal = None, None
    if has_torch():
        with IMPORTING:  # the engine's thread imports the same libraries
            from magistral_ui.engines.weights.devices import find_device, use_threads

        use_threads(threads)
        try:
            found = find_device(wanted)
        except BadSetting as error:  # perhaps llama.cpp can use it
            refusal = error
    llama = _find_llama(wanted, needed=found is None and refusal is None) if has_llama_cpp() else None
    if llama is None and refusal is not None:
        raise refusal
    return Machine(found, llama)


def look_again(machine: Machine, wanted: str = "auto") -> Machine:
    """The same devices with the memory that is free now."""
    if machine.torch is None:
        return find_machine(wanted)
    from magistral_ui.engines.weights.devices import look_again

    return Machine(look_again(machine.torch), _find_llama(wanted, needed=False) if machine.llama else None)


def freed(machine: Machine, held: int, engine: str) -> Machine:
    """`machine` as it will be when the model that `engine` runs, which holds this many bytes, has been freed.

    Both libraries gain by that, unless one of them uses another kind of device.
    """
    llama, torch = machine.llama, machine.torch
    same = llama is not None and torch is not None and llama.place.type == torch.type
    if llama is not None and (same or torch is None or engine == "llama.cpp"):
        llama = replace(llama, free=min(llama.total, llama.free + held))
    if torch is None or not (same or llama is None or engine != "llama.cpp"):
        return Machine(torch, llama)
    if engine == "llama.cpp":  # in another process, of which torch's allocator knows nothing
        return Machine(replace(torch, free=min(torch.total, torch.free + held)), llama)
    from magistral_ui.engines.weights.devices import freed

    return Machine(freed(torch, held), llama)


def estimated_pace(
    shape: ModelShape, precision: str, machine: Machine, rest: Callable[[], None] = lambda: None
) -> float | None:
    """Tokens per second, from timing a part of the model with the library that runs it; None if that cannot be done.

    `rest` is called again and again: it may wait, and what it raises ends the timing.
    """
    if precision in QUANTIZATIONS:
        return estimated_gguf_pace(shape, precision, machine.llama, rest) if machine.llama else None
    if machine.torch is None:
        return None
    from magistral_ui.engines.weights.pace import estimated_pace

    return estimated_pace(shape, precision, machine.torch, rest)


def _find_llama(wanted: str, needed: bool) -> LlamaDevice | None:
    try:
        return find_llama_device(wanted)
    except BadSetting:
        if needed:
            raise
        return None
