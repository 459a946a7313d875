"""What one decode step takes: tensors of fixed shapes, so that a whole step can be recorded as a CUDA graph; it runs nothing."""

from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True, slots=True)
class StepInputs:
    """A row is a query of its own: a token and its drafts have the same table and growing lengths.

    A padding row has token 0, position 0, slot 0 (in the scratch page), a table of zeros and length 1.
    """

    tokens: torch.Tensor
    """(rows,) int64."""
    positions: torch.Tensor
    """(rows,) int64."""
    slots: torch.Tensor
    """(rows,) int64: where the row's key and value go in the pool, page × PAGE_TOKENS + offset."""
    tables: torch.Tensor
    """(rows, pages of the longest sequence) int32: the pages of the row's sequence, in order; zeros after the last."""
    lengths: torch.Tensor
    """(rows,) int32: the keys that the row sees, its own among them."""


class SegmentedStep(Protocol):
    """A decode step in segments, one for each run of layers on the same device; a graph belongs to one device."""

    devices: list[torch.device]
    """Of the segments, in order."""

    def segment(self, index: int, state: torch.Tensor | None, inputs: StepInputs) -> torch.Tensor:
        """The hidden state (rows, hidden) after segment `index`; after the last, logits (rows, vocabulary).

        `state` is what the segment before returned, on this segment's device; None for the first. `inputs` are on it too.
        """
