"""Attention over paged keys and values, of all sequences of a forward in one call: what a kernel has to offer, and the reference.

Keys and values of a layer are a pool (pages, PAGE_TOKENS, kv_heads, head_dim). A table names a sequence's pages, in order; what
stands behind its length, in its last page or in any other, is never seen, whatever it is. It knows no cache and no kernel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from magistral_ui.engines.local.decode_step import StepInputs

REFERENCE_PAGES, REFERENCE_ROWS = 4, 16
"""What the reference gathers at once: pages of each row, and rows of a chunk. With Magistral's heads, 128 MiB of float32."""


@dataclass(frozen=True, slots=True)
class RaggedInputs:
    """Sequences with any number of new rows each, their keys already in their pages: a row sees what is not after it."""

    counts: list[int]
    """Rows of each sequence, which lie one after another; none is 0."""
    starts: torch.Tensor
    """(sequences + 1,) int32: the first row of each sequence, and the number of all rows."""
    tables: torch.Tensor
    """(sequences, pages of the longest) int32, zeros after a sequence's last page."""
    lengths: torch.Tensor
    """(sequences,) int32: the keys that a sequence's last row sees, its own among them."""


class PagedAttention(Protocol):
    """A way to compute attention over pages, on one device.

    Queries are (rows, heads, head_dim) with heads a multiple of kv_heads: heads that share keys follow one another. Results are
    (rows, heads × head_dim) in the queries' dtype.
    """

    @property
    def name(self) -> str:
        """For the log."""

    @property
    def graphable(self) -> bool:
        """Whether `attend` may be recorded in a CUDA graph, and gives what is right for the inputs of each replay."""

    def prepare(self, lengths: Sequence[int], tables: Sequence[Sequence[int]]) -> None:
        """Take in a step's rows, padding rows among them, before `attend` is called for its layers, or its graph is replayed.

        `tables` names each row's pages without zeros after the last. Never called while a graph is recorded.
        """

    def attend(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, inputs: StepInputs, scale: float
    ) -> torch.Tensor:
        """A decode step's attention: each row over the first `lengths` keys of its table."""

    def attend_ragged(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, inputs: RaggedInputs, scale: float
    ) -> torch.Tensor:
        """Attention of several new rows a sequence, each over all keys up to its own. Never recorded, and needs no `prepare`."""


class ReferenceAttention:
    """Plain torch in float32 on any device, slow and with bounded memory: what kernels are measured against."""

    name = "reference"
    graphable = True

    def prepare(self, lengths: Sequence[int], tables: Sequence[Sequence[int]]) -> None:
        """Nothing: all is in the inputs."""

    def attend(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, inputs: StepInputs, scale: float
    ) -> torch.Tensor:
        return _by_pages(queries, keys, values, inputs.tables, inputs.lengths, scale)

    def attend_ragged(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, inputs: RaggedInputs, scale: float
    ) -> torch.Tensor:
        outputs = []
        for index, rows in enumerate(torch.split(queries, inputs.counts)):
            seen = inputs.lengths[index] - torch.arange(len(rows) - 1, -1, -1, device=queries.device)
            for first in range(0, len(rows), REFERENCE_ROWS):
                some = slice(first, first + REFERENCE_ROWS)
                tables = inputs.tables[index].expand(len(rows[some]), -1)
                outputs.append(_by_pages(rows[some], keys, values, tables, seen[some], scale))
        return torch.cat(outputs)


def _by_pages(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    tables: torch.Tensor,
    lengths: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """Each row over its own table, some pages at a time, with a running maximum and sum of the softmax."""
    (rows, heads, width), (_, page, shared, _) = queries.shape, keys.shape
    q = queries.float().view(rows, shared, heads // shared, width) * scale
    peak = q.new_full((rows, shared, heads // shared, 1), -torch.inf)
    total, out = torch.zeros_like(peak), torch.zeros_like(q)
    for first in range(0, tables.shape[1], REFERENCE_PAGES):
        some = tables[:, first : first + REFERENCE_PAGES].long()
        positions = first * page + torch.arange(some.shape[1] * page, device=q.device)
        unseen = positions >= lengths[:, None]
        k, v = (pool[some].view(rows, -1, shared, width).float() for pool in (keys, values))
        # What nobody sees may be NaN, and that times a weight of zero would still be NaN.
        v = v.masked_fill(unseen[:, :, None, None], 0)
        scores = torch.einsum("rsgd,rksd->rsgk", q, k).masked_fill(unseen[:, None, None], -torch.inf)
        higher = torch.maximum(peak, scores.amax(-1, keepdim=True))
        weights, fade = torch.exp(scores - higher), torch.exp(peak - higher)
        total = total * fade + weights.sum(-1, keepdim=True)
        out = out * fade + torch.einsum("rsgk,rksd->rsgd", weights, v)
        peak = higher
    return (out / total).to(queries.dtype).view(rows, -1)
