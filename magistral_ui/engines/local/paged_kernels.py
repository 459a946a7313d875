"""Kernels that read keys and values in pages: torch's own FlashAttention, and FlashInfer where it is installed.

What is said here of torch is from its sources at 2.13 (`torch/nn/attention/varlen.py`, `_fa3.py`, `_fa4.py`;
`aten/src/ATen/native/transformers/cuda/attention.cu` and `flash_attn/flash_api.cpp`), of FlashInfer from its wheel 0.7.4.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.attention import current_flash_attention_impl
from torch.nn.attention.varlen import varlen_attn

from magistral_ui.engines.local.decode_step import StepInputs
from magistral_ui.engines.local.paged_attention import RaggedInputs
from magistral_ui.models.memory import PAGE_TOKENS, pages_of

KEPT_ROWS = 16
"""Rows of the largest step whose row numbers are kept: as many as the largest recorded step has."""
WORKSPACE_BYTES = 128 * 2**20
"""What FlashInfer recommends for the parts of sequences that it splits; it is shared by all wrappers."""
PLAN_BYTES = 8 * 2**20
"""What each of FlashInfer's wrappers takes for its plan, on the device and pinned on the host."""
TENSOR_CORE_GROUP = 4
"""Heads that share keys from which on tensor cores pay off in FlashInfer's decode kernel."""


class VarlenAttention:
    """torch's `varlen_attn` with a block table: FlashAttention 2, which is built in, or 3 or 4 if somebody has activated them.

    FlashAttention 2 takes pages of multiples of 256 tokens, float16 and bfloat16, heads of multiples of 8 up to 256, cards from
    compute capability 8.0 on, and int32 tables (of which the last dimension is contiguous) and lengths. It wants `cu_seq_k`,
    but reads lengths from `seqused_k` and never what is in it; 3 and 4 refuse it beside a table, and take pages on capability
    9.0 and 10.0 alone.

    Nothing waits for the host, so a step may be recorded. `max_k` is a number of the host that a recording keeps: it sets into
    how many parts sequences are split and how long these are, so it must bound the lengths of every replay. The width of
    the tables does, and no sequence is longer.

    Parts are put together as if each sequence had the same number of rows (pytorch#194167: other rows stay unwritten, and
    2.13 splits without being asked). That holds for a decode step whose heads share keys: they then count as its rows. In all
    other cases `num_splits=1` forbids the split, which costs pace for few rows over long contexts, but only then.
    """

    graphable = True
    workspace_bytes = 0

    def __init__(self, device: torch.device, attention: Callable[..., Any] = varlen_attn) -> None:
        """`attention` is `varlen_attn`."""
        self._attention = attention
        self._starts = torch.arange(KEPT_ROWS + 1, dtype=torch.int32, device=device)

    @property
    def name(self) -> str:
        return f"torch's {current_flash_attention_impl() or 'FA2'}"

    def prepare(self, lengths: Sequence[int], tables: Sequence[Sequence[int]]) -> None:
        """Nothing: all is in the inputs."""

    def attend(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, inputs: StepInputs, scale: float
    ) -> torch.Tensor:
        rows, heads, _ = queries.shape
        starts = self._starts[: rows + 1]
        if rows > KEPT_ROWS:
            starts = torch.arange(rows + 1, dtype=torch.int32, device=queries.device)
        shares = heads > keys.shape[2]
        return self._call(queries, keys, values, starts, 1, inputs.tables, inputs.lengths, scale, may_split=shares)

    def attend_ragged(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, inputs: RaggedInputs, scale: float
    ) -> torch.Tensor:
        longest = max(inputs.counts)
        return self._call(queries, keys, values, inputs.starts, longest, inputs.tables, inputs.lengths, scale)

    def _call(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        starts: torch.Tensor,
        longest: int,
        tables: torch.Tensor,
        lengths: torch.Tensor,
        scale: float,
        may_split: bool = False,
    ) -> torch.Tensor:
        built_in = current_flash_attention_impl() is None
        out: torch.Tensor = self._attention(
            queries,
            keys,
            values,
            starts,
            starts if built_in else None,
            longest,
            tables.shape[1] * PAGE_TOKENS,
            scale=scale,
            window_size=(-1, -1) if longest == 1 else (-1, 0),
            enable_gqa=True,
            seqused_k=lengths,
            block_table=tables,
            num_splits=1 if built_in and not may_split else None,
        )
        return out.view(len(queries), -1)


class FlashInferAttention:
    """FlashInfer's wrappers: kernels that are compiled when they are first used, from compute capability 7.5 on.

    A wrapper plans each step on the host, from lengths and pages, and copies the plan into buffers whose addresses never change:
    so a recorded step reads the plan that `prepare` made for it. A wrapper of a recorded step has a fixed number of rows.

    On cards before 8.0 its products in bfloat16 on tensor cores are a breakpoint that ends all of CUDA in this process
    (`mma.cuh`), so they are never tried there: that leaves the kernel for decode steps that needs none.
    """

    name = "FlashInfer"
    graphable = True

    def __init__(
        self,
        flashinfer: Any,
        device: torch.device,
        dtype: torch.dtype,
        heads: int,
        shape: tuple[int, ...],
        width: int,
        tensor_cores: bool = True,
    ) -> None:
        """`flashinfer` is the module, `shape` a layer's pool, and `width` the most pages of a row.

        `tensor_cores` says whether the device has some for `dtype`.
        """
        self._flashinfer, self._device, self._dtype, self._heads, self._width = flashinfer, device, dtype, heads, width
        self._tensor_cores = tensor_cores
        _, self._page, self._shared, self._head_dim = shape
        with torch.inference_mode(False):
            self._workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=device)
        self._decoders: dict[int, Any] = {}
        """A wrapper for each number of rows; of those beyond KEPT_ROWS, which no step is recorded with, the last one alone."""
        self._prefill: Any = None
        self._copied: torch.cuda.Event | None = None
        """When the last plan has arrived on a CUDA device."""
        if device.type == "cuda":
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._planned: RaggedInputs | None = None
        """What the prefill wrapper was last planned for."""

    @property
    def workspace_bytes(self) -> int:
        return WORKSPACE_BYTES + PLAN_BYTES * (len(self._decoders) + (self._prefill is not None))

    def prepare(self, lengths: Sequence[int], tables: Sequence[Sequence[int]]) -> None:
        rows = len(lengths)
        self._wait()
        if rows not in self._decoders:
            self._decoders = {n: each for n, each in self._decoders.items() if n <= KEPT_ROWS}
            with torch.inference_mode(False):  # its buffers are written in any mode
                self._decoders[rows] = self._decoder(rows)
        self._decoders[rows].plan(
            *_page_lists(lengths, tables),
            self._heads,
            self._shared,
            self._head_dim,
            self._page,
            q_data_type=self._dtype,
            kv_data_type=self._dtype,
        )
        self._note_copy()

    def attend(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, inputs: StepInputs, scale: float
    ) -> torch.Tensor:
        """What rows see is what `prepare` was told."""
        return self._run(self._decoders[len(inputs.lengths)], queries, keys, values, scale)

    def attend_ragged(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, inputs: RaggedInputs, scale: float
    ) -> torch.Tensor:
        if not self._tensor_cores:
            raise NotImplementedError("no tensor cores for this type")
        if self._prefill is None:
            with torch.inference_mode(False):
                self._prefill = self._flashinfer.BatchPrefillWithPagedKVCacheWrapper(
                    self._workspace, "NHD", backend="fa2"
                )
        if self._planned is not inputs:
            self._wait()
            self._prefill.plan(
                torch.tensor([0, *inputs.counts], dtype=torch.int32).cumsum(0, dtype=torch.int32),
                *_page_lists(inputs.seen, inputs.pages),
                self._heads,
                self._shared,
                self._head_dim,
                self._page,
                causal=True,
                q_data_type=self._dtype,
                kv_data_type=self._dtype,
            )
            self._note_copy()
            self._planned = inputs
        return self._run(self._prefill, queries, keys, values, scale)

    def _wait(self) -> None:
        """Until the last plan has left the host's memory: a wrapper writes its next one over it, and never waits itself.

        The host may be a step ahead of the device, as after a step in which no token is drawn.
        """
        if self._copied is not None:
            self._copied.synchronize()

    def _note_copy(self) -> None:
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(self._device))

    def _decoder(self, rows: int) -> Any:
        def buffer(length: int) -> torch.Tensor:
            return torch.zeros(length, dtype=torch.int32, device=self._device)

        return self._flashinfer.BatchDecodeWithPagedKVCacheWrapper(
            self._workspace,
            "NHD",
            use_cuda_graph=True,
            use_tensor_cores=self._tensor_cores and self._heads // self._shared >= TENSOR_CORE_GROUP,
            paged_kv_indptr_buffer=buffer(rows + 1),
            paged_kv_indices_buffer=buffer(rows * self._width),
            paged_kv_last_page_len_buffer=buffer(rows),
            backend="fa2",
        )

    def _run(
        self, wrapper: Any, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float
    ) -> torch.Tensor:
        # The plan knows the usual scale, 1 / √head_dim; what a run is given is multiplied by it.
        out: torch.Tensor = wrapper.run(queries, (keys, values), q_scale=scale * self._head_dim**0.5)
        return out.view(len(queries), -1)


def _page_lists(
    lengths: Sequence[int], tables: Sequence[Sequence[int]]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """FlashInfer's form of tables: where each row's pages begin in the list of all, that list, and tokens in each last page."""
    used = [list(table[: pages_of(length)]) for table, length in zip(tables, lengths, strict=True)]
    bounds = torch.tensor([0, *map(len, used)], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    pages = torch.tensor([page for each in used for page in each], dtype=torch.int32)
    return bounds, pages, torch.tensor([(length - 1) % PAGE_TOKENS + 1 for length in lengths], dtype=torch.int32)
