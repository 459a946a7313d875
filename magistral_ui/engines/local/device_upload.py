"""Takes many small lists of numbers to a device in one copy, for which nobody waits; it does not know what they are."""

from array import array
from collections.abc import Iterable, Sequence

import torch


class Upload:
    """Numbers are added first, and each list gets a place; `send` returns a tensor for each place."""

    def __init__(self) -> None:
        self._parts: list[array[int] | array[float]] = []

    def ints(self, *numbers: Sequence[int]) -> int:
        """Add them, one behind the other, as one int64 tensor; returns its place."""
        part = array("q")
        for each in numbers:
            part.extend(each)
        self._parts.append(part)
        return len(self._parts) - 1

    def floats(self, numbers: Iterable[float]) -> int:
        """Add a float64 tensor; returns its place."""
        self._parts.append(array("d", numbers))
        return len(self._parts) - 1

    def send(self, device: torch.device) -> list[torch.Tensor]:
        """All that was added, each of one dimension. The host's memory is pinned for CUDA, which copies on its own then."""
        data = bytearray().join(self._parts)
        if not data:
            return [torch.empty(0)] * len(self._parts)
        host = torch.frombuffer(data, dtype=torch.int64)
        if device.type == "cuda":
            host = host.pin_memory()
        there = host.to(device, non_blocking=True).split_with_sizes([len(each) for each in self._parts])
        pairs = zip(there, self._parts, strict=True)
        return [part.view(torch.float64) if each.typecode == "d" else part for part, each in pairs]
