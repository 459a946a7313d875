"""Finds the device on which llama.cpp would run a model, by asking a child process; it loads nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from magistral_ui.errors import Message
from magistral_ui.models.memory import DeviceBudget


@dataclass(frozen=True, slots=True)
class LlamaDevice:
    """A device that llama.cpp can use; `free` and `total` are bytes."""

    kind: Literal["cpu", "gpu"]
    backend: str
    """`CPU`, `Metal`, `CUDA`, `ROCm`, `Vulkan`, `SYCL` or another of llama.cpp's names."""
    name: str
    free: int
    total: int
    others: tuple["LlamaDevice", ...] = ()
    """The machine's other graphics cards with the same backend."""
    hindrance: Message | None = field(default=None, compare=False)
    """Why a graphics card that is present is not used, with the remedy."""

    @property
    def place(self) -> DeviceBudget:
        """As the memory plan counts it; `type` is `cpu`, `cuda` (also ROCm), `mps` (Metal) or `gpu` (all others)."""
        raise NotImplementedError


def find_llama_device(wanted: str = "auto", ask: Callable[[], list[LlamaDevice]] | None = None) -> LlamaDevice:
    """The device for `--device wanted`: the graphics cards of the installed wheel's backend, or the processor.

    Raises BadSetting if `wanted` is not here. Memory is counted anew at each call; which devices there are, once.
    """
    raise NotImplementedError
