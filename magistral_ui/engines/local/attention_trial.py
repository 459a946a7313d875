"""Tries attention over pages on the device it is given: random data around the borders of pages, measured against the reference.

What no row may see is NaN, so whatever leaks shows. How a kernel is chosen, only `attention_choice.py` knows.
"""

import random

import torch

from magistral_ui.engines.local.decode_step import StepInputs
from magistral_ui.engines.local.kv_cache import SCRATCH_PAGE
from magistral_ui.engines.local.paged_attention import (
    PagedAttention,
    RaggedAttention,
    RaggedInputs,
    ReferenceAttention,
    ragged_inputs,
)
from magistral_ui.models.memory import PAGE_TOKENS, pages_of

SEQUENCES = (5_000, 257, 1, 256, 255, 512)
"""Tokens of the sequences: around the borders of pages, and enough to be split over many processors."""
ROWS = (
    *((0, 5_000), (1, 257), (2, 1), (3, 256), (4, 255), (0, 4_999), (5, 512), (None, 1)),
    *((0, 4_998), (0, 2_000), (1, 256), (5, 511), (5, 300), (4, 1), (0, 257), (None, 1)),
)
"""(Sequence, keys) of each row: branches and drafts share the table of a sequence, and padding rows have none."""
STEPS = (1, 2, 4, 8, 16)
"""Rows of the steps, those of the steps that are recorded."""
RAGGED = ((1, 3, 257), (0, 1, 5_000), (0, 140, 1_024), (4, 70, 70), (3, 2, 256))
"""(Sequence, new rows, keys) of what one ragged call reads."""
FLOAT32_TOLERANCE = 1e-5
"""A hundred times its rounding: sums over thousands of keys are taken in another order."""


class TrialFailed(RuntimeError):
    """The results are not those of the reference."""


class Trial:
    """Data in the shapes of a model, and the results that attention has to give."""

    def __init__(
        self, pool_shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, heads: int, width: int
    ) -> None:
        """`pool_shape` is (pages, PAGE_TOKENS, kv_heads, head_dim), of which the first may differ here; `width` as in use."""
        self._device, self._dtype, self._heads = device, dtype, heads
        self.width = max(width, pages_of(max(SEQUENCES)))
        """Pages of the widest table."""
        self._shared, self._head_dim = pool_shape[2:]
        self._scale = self._head_dim**-0.5
        self._random = torch.Generator(device).manual_seed(0)
        numbers = list(range(1, 1 + sum(map(pages_of, SEQUENCES))))
        random.Random(0).shuffle(numbers)
        self._pages = [[numbers.pop() for _ in range(pages_of(length))] for length in SEQUENCES]
        self._keys, self._values = self._pool(), self._pool()

    @torch.no_grad()
    def decode(self, attention: PagedAttention) -> None:
        """Raises TrialFailed, or whatever `attention` raises, if it fails in any step of rows or in tables of any width."""
        queries = self._queries(len(ROWS))
        tables = [[SCRATCH_PAGE] if sequence is None else self._pages[sequence] for sequence, _ in ROWS]
        lengths = [length for _, length in ROWS]
        inputs = self._inputs(tables, lengths, self.width)
        expected = ReferenceAttention().attend(queries.float(), self._keys, self._values, inputs, self._scale)
        for rows in STEPS:
            for width in sorted({max(map(len, tables[:rows])), self.width}):
                inputs = self._inputs(tables[:rows], lengths[:rows], width)
                attention.prepare(lengths[:rows], tables[:rows])
                out = attention.attend(queries[:rows], self._keys, self._values, inputs, self._scale)
                self._compare(out, expected[:rows])

    @torch.no_grad()
    def ragged(self, attention: RaggedAttention) -> None:
        """Raises TrialFailed, or whatever `attention` raises, if it fails."""
        sequences, counts, seen = (list(each) for each in zip(*RAGGED, strict=True))
        queries = self._queries(sum(counts))
        pages = [self._pages[sequence] for sequence in sequences]
        inputs: RaggedInputs = ragged_inputs(counts, seen, pages, self._device)
        asked = self._keys, self._values, inputs, self._scale
        expected = ReferenceAttention().attend_ragged(queries.float(), *asked)
        self._compare(attention.attend_ragged(queries, *asked), expected)

    def _compare(self, out: torch.Tensor, expected: torch.Tensor) -> None:
        """By the norm of each row and head.

        With values drawn independently, weights rounded to 16 bits and a result rounded once differ by about 0.6 of a rounding
        each, however many keys there are; `eps` is two roundings. One key too few of 5,000 is more than that for some head.
        """
        tolerance = FLOAT32_TOLERANCE if self._dtype == torch.float32 else torch.finfo(self._dtype).eps
        shape = (len(expected), self._heads, self._head_dim)
        if out.shape != expected.shape or out.dtype != self._dtype:
            raise TrialFailed(f"gives {out.dtype} of {tuple(out.shape)} for {self._dtype} of {tuple(expected.shape)}")
        off = (out.float() - expected).view(shape).norm(dim=-1) / expected.view(shape).norm(dim=-1)
        worst = float(off.max())
        if not worst <= tolerance:  # NaN is neither
            raise TrialFailed(f"differs by {worst:.2g} of the right result, where {tolerance:.2g} is rounding")

    def _inputs(self, tables: list[list[int]], lengths: list[int], width: int) -> StepInputs:
        padded = [table + [SCRATCH_PAGE] * (self.width - len(table)) for table in tables]
        none = torch.zeros(len(tables), dtype=torch.int64, device=self._device)
        return StepInputs(
            none,
            none,
            none,
            torch.tensor(padded, dtype=torch.int32, device=self._device)[:, :width],
            torch.tensor(lengths, dtype=torch.int32, device=self._device),
        )

    def _pool(self) -> torch.Tensor:
        """Keys or values: what some sequence holds is normally distributed, and what padding rows see."""
        pages = 1 + sum(map(len, self._pages))
        shape = (pages, PAGE_TOKENS, self._shared, self._head_dim)
        pool = torch.full(shape, torch.nan, dtype=self._dtype, device=self._device)
        pool[SCRATCH_PAGE, 0] = self._normal(*shape[2:])
        for table, length in zip(self._pages, SEQUENCES, strict=True):
            for n, page in enumerate(table):
                held = min(PAGE_TOKENS, length - n * PAGE_TOKENS)
                pool[page, :held] = self._normal(held, *shape[2:])
        return pool

    def _queries(self, rows: int) -> torch.Tensor:
        """As a layer makes them: beside the rows' keys, in one tensor."""
        return self._normal(rows, self._heads + self._shared, self._head_dim)[:, : self._heads]

    def _normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self._random, dtype=self._dtype, device=self._device)
