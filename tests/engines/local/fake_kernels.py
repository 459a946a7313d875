"""Stand-ins for kernels that need a CUDA device: they take and refuse what the real ones do, and compute row by row."""

from typing import Any

import torch

PAGE = 256


def naive(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, pages: list[int], length: int, scale: float
) -> torch.Tensor:
    """One row (heads, head_dim) over the first `length` keys of its pages, in float64 and without blocks."""
    k, v = (each[pages].flatten(0, 1)[:length].double() for each in (keys, values))
    group = query.shape[0] // k.shape[1]
    k, v = (each.repeat_interleave(group, 1) for each in (k, v))
    weights = torch.softmax(torch.einsum("hd,khd->hk", query.double(), k) * scale, -1)
    return torch.einsum("hk,khd->hd", weights, v).to(query.dtype)


def flash_attention_2(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor | None,
    max_q: int,
    max_k: int,
    *,
    return_aux: Any = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
    seqused_k: torch.Tensor | None = None,
    block_table: torch.Tensor | None = None,
    num_splits: int | None = None,
) -> torch.Tensor:
    """`varlen_attn` as torch 2.13's own FlashAttention 2 does it, faults included; it checks what `flash_api.cpp` checks."""
    assert cu_seq_k is not None, "cumulative_sequence_length_q and _k must be both set or both not set"
    assert seqused_k is not None
    assert block_table is not None
    assert scale is not None
    sequences = len(cu_seq_q) - 1
    for each in (cu_seq_q, cu_seq_k, seqused_k, block_table):
        assert each.dtype == torch.int32
    for each in (cu_seq_q, cu_seq_k, seqused_k):
        assert each.is_contiguous()
    assert all(each.stride(-1) == 1 for each in (query, key, value, block_table))
    assert key.shape[1] % 256 == 0, "Paged KV cache block size must be divisible by 256"
    assert cu_seq_k.shape == (sequences + 1,)
    assert seqused_k.shape == (sequences,)
    assert block_table.shape[0] == sequences
    heads, shared = query.shape[1], key.shape[2]
    assert enable_gqa or heads == shared
    swapped = max_q == 1 and heads > shared and window_size == (-1, -1)
    out = torch.full_like(query, torch.nan)
    starts, lengths = cu_seq_q.tolist(), seqused_k.tolist()
    assert starts[-1] == len(query)
    for n, (first, end, length) in enumerate(zip(starts, starts[1:], lengths, strict=False)):
        assert 0 < end - first <= max_q
        assert length <= max_k, "what lies behind max_k belongs to no split"
        if n and num_splits != 1 and not swapped:
            continue  # pytorch#194167: parts are put together in the first sequence's place
        pages = block_table[n, : -(-length // PAGE)].tolist()
        for row in range(first, end):
            seen = length - (end - 1 - row) if window_size == (-1, 0) else length
            out[row] = naive(query[row], key, value, pages, seen, scale)
    return out


class _Planned:
    """What both wrappers of FlashInfer keep of a plan."""

    def __init__(self, workspace: torch.Tensor, kv_layout: str) -> None:
        assert workspace.dtype == torch.uint8
        assert not workspace.any(), "must be 0 at its first use"
        assert kv_layout == "NHD"
        self.plans = 0
        self._rows: list[tuple[list[int], int]] = []

    def _take(
        self, indptr: torch.Tensor, indices: torch.Tensor, last: torch.Tensor, page: int, *dtypes: torch.dtype
    ) -> None:
        assert page == PAGE
        assert all(each.dtype == torch.int32 and each.is_contiguous() for each in (indptr, indices, last))
        assert len(set(dtypes)) == 1
        self.plans += 1
        bounds = indptr.tolist()
        assert bounds[-1] == len(indices)
        assert all(1 <= each <= page for each in last.tolist())
        self._rows = [
            (indices[a:b].tolist(), (b - a - 1) * page + tokens)
            for a, b, tokens in zip(bounds, bounds[1:], last.tolist(), strict=False)
        ]


class BatchDecodeWithPagedKVCacheWrapper(_Planned):
    """Its parameters, and those of `plan` and `run` that may be given by name, are FlashInfer 0.7.4's."""

    def __init__(
        self,
        float_workspace_buffer: torch.Tensor,
        kv_layout: str = "NHD",
        use_cuda_graph: bool = False,
        use_tensor_cores: bool = False,
        paged_kv_indptr_buffer: torch.Tensor | None = None,
        paged_kv_indices_buffer: torch.Tensor | None = None,
        paged_kv_last_page_len_buffer: torch.Tensor | None = None,
        backend: str = "auto",
        jit_args: list[Any] | None = None,
        jit_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(float_workspace_buffer, kv_layout)
        assert use_cuda_graph
        assert paged_kv_indptr_buffer is not None
        assert paged_kv_indices_buffer is not None
        assert paged_kv_last_page_len_buffer is not None
        self._buffers = paged_kv_indptr_buffer, paged_kv_indices_buffer, paged_kv_last_page_len_buffer
        assert len(paged_kv_indptr_buffer) == len(paged_kv_last_page_len_buffer) + 1
        self.use_tensor_cores = use_tensor_cores

    def plan(
        self,
        indptr: torch.Tensor,
        indices: torch.Tensor,
        last_page_len: torch.Tensor,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim: int,
        page_size: int,
        *deprecated_positional_args: Any,
        q_data_type: torch.dtype = torch.float16,
        kv_data_type: torch.dtype | None = None,
    ) -> None:
        assert not deprecated_positional_args
        assert len(last_page_len) == len(self._buffers[2]), "the batch size should be fixed in cudagraph mode"
        for buffer, given in zip(self._buffers, (indptr, indices, last_page_len), strict=True):
            buffer[: len(given)].copy_(given)
        self._shape = (num_qo_heads, num_kv_heads, head_dim)
        self._take(*(self._buffers[0], self._buffers[1][: len(indices)]), self._buffers[2], page_size, q_data_type)

    def run(
        self, q: torch.Tensor, paged_kv_cache: tuple[torch.Tensor, torch.Tensor], *, q_scale: float | None = None
    ) -> torch.Tensor:
        keys, values = paged_kv_cache
        assert self._shape == (q.shape[1], *keys.shape[2:])
        scale = (q_scale or 1.0) / q.shape[-1] ** 0.5
        rows = zip(q, self._rows, strict=True)
        return torch.stack([naive(row, keys, values, pages, length, scale) for row, (pages, length) in rows])


class BatchPrefillWithPagedKVCacheWrapper(_Planned):
    def __init__(self, float_workspace_buffer: torch.Tensor, kv_layout: str = "NHD", *, backend: str = "auto") -> None:
        super().__init__(float_workspace_buffer, kv_layout)

    def plan(
        self,
        qo_indptr: torch.Tensor,
        paged_kv_indptr: torch.Tensor,
        paged_kv_indices: torch.Tensor,
        paged_kv_last_page_len: torch.Tensor,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim_qk: int,
        page_size: int,
        *,
        causal: bool = False,
        q_data_type: torch.dtype = torch.float16,
        kv_data_type: torch.dtype | None = None,
    ) -> None:
        assert qo_indptr.dtype == torch.int32
        assert causal
        self._starts = qo_indptr.tolist()
        self._take(paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len, page_size, q_data_type)

    def run(
        self, q: torch.Tensor, paged_kv_cache: tuple[torch.Tensor, torch.Tensor], *, q_scale: float | None = None
    ) -> torch.Tensor:
        keys, values = paged_kv_cache
        assert self._starts[-1] == len(q), "q must have shape [total_tokens, num_heads, head_dim]"
        scale = (q_scale or 1.0) / q.shape[-1] ** 0.5
        out = torch.empty_like(q)
        for first, end, (pages, length) in zip(self._starts, self._starts[1:], self._rows, strict=False):
            for row in range(first, end):
                out[row] = naive(q[row], keys, values, pages, length - (end - 1 - row), scale)
        return out
