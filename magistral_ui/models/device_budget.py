"""A device's memory, and what else of it a memory plan depends on; plain values, no device is queried."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class DeviceBudget:
    """A device's memory in bytes; `free` is what is unused now."""

    type: str
    """`cuda`, `mps` or `cpu`; `gpu` for a GPU that only llama.cpp runs on."""
    free: int
    total: int
    others: tuple["DeviceBudget", ...] = ()
    """More devices of this type over which a model can be spread, the freest first."""
    fused: bool = True
    """Whether attention is fused: its scores never reach memory, as on all NVIDIA GPUs since Ampere."""
    host: int = 0
    """Beside a GPU: bytes of RAM that are unused now, for the layers that llama.cpp runs on the processor."""
    index: int = 0
    """llama.cpp's number of this GPU: it places layers in this order."""
    capability: tuple[int, int] | None = None
    """Compute capability of an NVIDIA GPU; None if it is unknown, and then the most is planned that any takes."""
    fused_buckets: Callable[[tuple[tuple[int, int], ...]], tuple[int, ...]] | None = field(default=None, compare=False)
    """For which of BUCKETS an NVIDIA GPU multiplies 4-bit weights of these (out, in) sizes in fused kernels; None: unknown."""

    @property
    def all(self) -> tuple["DeviceBudget", ...]:
        return (replace(self, others=()), *self.others)
