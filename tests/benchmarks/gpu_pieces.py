"""What the GPU benchmark measures without a model: the card's memory, and attention over pages; and what the card is."""

import importlib.metadata
import platform
import statistics

import torch

from magistral_ui.engines.local.attention_choice import ChosenAttention, choose_paged_attention
from magistral_ui.engines.local.decode_step import StepInputs
from magistral_ui.engines.local.paged_attention import GatheredAttention, PagedAttention, ReferenceAttention
from magistral_ui.engines.weights.devices import Device
from magistral_ui.engines.weights.gpu_diagnosis import find_graphics_cards
from magistral_ui.models.memory import PAGE_TOKENS, pages_of
from tests.benchmarks.engine import cost
from tests.benchmarks.gpu_engine import Sizes

LIBRARIES = ("torch", "transformers", "bitsandbytes")


def bandwidth(device: Device, sizes: Sizes) -> float:
    """Bytes per second that the device reads and writes while it copies."""
    source = torch.zeros(sizes.copied, dtype=torch.uint8, device=device.torch)
    target = torch.empty_like(source)
    target.copy_(source)
    times = 16

    def copy() -> None:
        for _ in range(times):
            target.copy_(source)

    return times * 2 * sizes.copied / statistics.median(cost(copy) for _ in range(sizes.times))


class AttentionBench:
    """Decode steps over pages in the shapes of a model: one row for each sequence, all of the same length."""

    def __init__(
        self, heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype, device: Device, sizes: Sizes
    ) -> None:
        self._heads, self._shape, self._dtype = heads, (PAGE_TOKENS, kv_heads, head_dim), dtype
        self._device, self._sizes = device, sizes
        self.chosen = self._choose()

    def gain(self, sequences: int, tokens: int) -> tuple[float, float]:
        """Seconds of the reference ÷ those of the chosen kernel, and the kernel's bytes of keys and values per second."""
        width = pages_of(tokens)
        pages = 1 + sequences * width
        keys, values = (torch.randn(pages, *self._shape, device=self._device.torch).to(self._dtype) for _ in range(2))
        tables = [[1 + n * width + page for page in range(width)] for n in range(sequences)]
        queries = torch.randn(sequences, self._heads, self._shape[2], device=self._device.torch).to(self._dtype)
        inputs = self._inputs(tables, tokens)
        times = self._sizes.steps

        def seconds(attention: PagedAttention, count: int) -> float:
            def step() -> None:
                for _ in range(count):
                    attention.attend(queries, keys, values, inputs, self._shape[2] ** -0.5)

            attention.prepare([tokens] * sequences, tables)
            step()
            return statistics.median(cost(step) for _ in range(self._sizes.times)) / count

        kernel = seconds(self.chosen.decode, times)
        read = 2 * sequences * tokens * self._shape[1] * self._shape[2] * self._dtype.itemsize
        return seconds(ReferenceAttention(), max(1, times // 8)) / kernel, read / kernel

    def _choose(self) -> ChosenAttention:
        if self._device.type != "cuda":
            return ChosenAttention(GatheredAttention(), None)
        width = pages_of(max(tokens for _, tokens in self._sizes.attention))
        return choose_paged_attention((1, *self._shape), self._dtype, self._device.torch, self._heads, width)

    def _inputs(self, tables: list[list[int]], tokens: int) -> StepInputs:
        rows, device = len(tables), self._device.torch
        nothing = torch.zeros(rows, dtype=torch.int64, device=device)
        return StepInputs(
            nothing,
            nothing,
            nothing,
            torch.tensor(tables, dtype=torch.int32, device=device),
            torch.full((rows,), tokens, dtype=torch.int32, device=device),
        )


def machine(device: Device) -> str:
    """The device, its driver, and the versions of what computes on it."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES]
    if device.type != "cuda":
        return ", ".join([device.name, f"Python {platform.python_version()}", *versions])
    major, minor = device.capability or (0, 0)
    drivers = sorted({card.driver for card in find_graphics_cards() if card.driver})
    return ", ".join(
        [
            f"{device.name} with {device.total / 2**30:.0f} GiB",
            f"compute capability {major}.{minor}",
            f"driver {' and '.join(drivers) or 'unknown'}",
            f"CUDA {torch.version.cuda}",
            *versions,
        ]
    )
