"""Attention over paged keys and values, of all sequences in one call: what a kernel offers, the reference, and the fallback.

Keys and values of a layer are a pool (pages, PAGE_TOKENS, kv_heads, head_dim). A table names a sequence's pages, in order; what
stands behind its length, in its last page or in any other, is never seen, whatever it is. It knows no cache and no kernel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention

from magistral_ui.engines.local.decode_step import StepInputs
from magistral_ui.models.memory import pages_of

REFERENCE_ROWS, REFERENCE_PAGES = 8, 4
"""What the reference gathers at once: rows, and pages of each. With Magistral's heads, 64 MiB of float32."""


@dataclass(frozen=True, slots=True)
class RaggedInputs:
    """Sequences with any number of new rows each, their keys already in their pages: a row sees what is not after it."""

    counts: list[int]
    """Rows of each sequence, which lie one after another; none is 0."""
    seen: list[int]
    """The keys that each sequence's last row sees, its own among them."""
    pages: list[list[int]]
    """Each sequence's pages, in order."""
    starts: torch.Tensor
    """(sequences + 1,) int32: the first row of each sequence, and the number of all rows."""
    tables: torch.Tensor
    """(sequences, pages of the longest) int32: `pages`, with zeros after a sequence's last."""
    lengths: torch.Tensor
    """(sequences,) int32: `seen`."""


def ragged_inputs(counts: list[int], seen: list[int], pages: list[list[int]], device: torch.device) -> RaggedInputs:
    """The inputs on `device`. Pages that were only reserved, behind what is seen, are left out."""
    used = [each[: pages_of(length)] for each, length in zip(pages, seen, strict=True)]
    width = max(map(len, used))
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + count)
    return RaggedInputs(
        counts,
        seen,
        used,
        torch.tensor(starts, dtype=torch.int32, device=device),
        torch.tensor([each + [0] * (width - len(each)) for each in used], dtype=torch.int32, device=device),
        torch.tensor(seen, dtype=torch.int32, device=device),
    )


class PagedAttention(Protocol):
    """Attention of a decode step on one device, where every row is a query of its own.

    Queries are (rows, heads, head_dim) with heads a multiple of kv_heads: heads that share keys follow one another. Results are
    (rows, heads × head_dim) in the queries' dtype.
    """

    @property
    def name(self) -> str:
        """For the log."""

    @property
    def graphable(self) -> bool:
        """Whether `attend` may be recorded as a CUDA graph, and gives what is right for the inputs of each replay."""

    @property
    def workspace_bytes(self) -> int:
        """What it holds on its device between calls."""

    def prepare(self, lengths: Sequence[int], tables: Sequence[Sequence[int]]) -> None:
        """Take in a step's rows, padding rows among them, before `attend` is called for its layers or its graph is replayed.

        `tables` names at least the pages that each row sees. Never called while a graph is recorded.
        """

    def attend(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, inputs: StepInputs, scale: float
    ) -> torch.Tensor:
        """Each row over the first `lengths` keys of its table."""


class RaggedAttention(Protocol):
    """Attention of several new rows a sequence, as when prompts are read; never recorded."""

    @property
    def name(self) -> str:
        """For the log."""

    def attend_ragged(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, inputs: RaggedInputs, scale: float
    ) -> torch.Tensor:
        """Each row over all keys up to its own (causal, aligned at the last); shapes as in PagedAttention.

        The layers of a forward are given the same object as `inputs`, so that a kernel plans once for all of them.
        """


class ReferenceAttention:
    """Plain torch in float32 on any device, slow and with bounded memory: what kernels are measured against."""

    name = "reference"
    graphable = True
    workspace_bytes = 0

    def prepare(self, lengths: Sequence[int], tables: Sequence[Sequence[int]]) -> None:
        """Nothing: all is in the inputs."""

    def attend(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, inputs: StepInputs, scale: float
    ) -> torch.Tensor:
        outputs = []
        for first in range(0, len(queries), REFERENCE_ROWS):
            some = slice(first, first + REFERENCE_ROWS)
            outputs.append(_by_pages(queries[some], keys, values, inputs.tables[some], inputs.lengths[some], scale))
        return torch.cat(outputs)

    def attend_ragged(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, inputs: RaggedInputs, scale: float
    ) -> torch.Tensor:
        outputs = []
        for n, rows in enumerate(torch.split(queries, inputs.counts)):
            table = inputs.tables[n : n + 1, : len(inputs.pages[n])]
            lengths = inputs.lengths[n] - torch.arange(len(rows) - 1, -1, -1, device=queries.device)
            for first in range(0, len(rows), REFERENCE_ROWS):
                some = slice(first, first + REFERENCE_ROWS)
                tables = table.expand(len(rows[some]), -1)
                outputs.append(_by_pages(rows[some], keys, values, tables, lengths[some], scale))
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


class GatheredAttention:
    """SDPA row by row, over a copy of the row's pages: what is there on every device, for want of a kernel that reads pages."""

    name = "gathered pages"
    graphable = False
    """It slices by the lengths of one step."""
    workspace_bytes = 0

    def __init__(self) -> None:
        self._rows: list[tuple[int, int | None]] = []
        """The keys that each row sees, and its first page if the others follow on it: then there is nothing to copy."""

    def prepare(self, lengths: Sequence[int], tables: Sequence[Sequence[int]]) -> None:
        self._rows = []
        for length, table in zip(lengths, tables, strict=True):
            pages = list(table[: pages_of(length)])
            self._rows.append((length, pages[0] if pages == list(range(pages[0], pages[0] + len(pages))) else None))

    def attend(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, inputs: StepInputs, scale: float
    ) -> torch.Tensor:
        shared, width = keys.shape[2:]
        outputs = []
        for row, (length, first) in enumerate(self._rows):
            pages = inputs.tables[row, : pages_of(length)]
            held = (
                pool.index_select(0, pages) if first is None else pool[first : first + len(pages)]
                for pool in (keys, values)
            )
            k, v = (each.reshape(1, -1, shared, width)[:, :length].transpose(1, 2) for each in held)
            # Heads that share keys are rows of one head: every backend of SDPA takes that, those of old cards too.
            q = queries[row].view(1, shared, -1, width)
            outputs.append(scaled_dot_product_attention(q, k, v, scale=scale).view(1, -1))
        return torch.cat(outputs)
