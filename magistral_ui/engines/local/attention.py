"""Attention of a forward on a GPU: sequence by sequence, each over its own pages, where no kernel takes them all in one call.

Decode steps have such kernels (`paged_attention.py`). What is here reads prompts, and decodes where there is no such kernel.
"""

from dataclasses import dataclass, field

import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from magistral_ui.engines.local.kv_cache import KVCache, PagePool, in_one_piece
from magistral_ui.engines.weights.devices import MIN_FUSED_CAPABILITY
from magistral_ui.models.memory import PAGE_TOKENS, pages_of
from magistral_ui.models.shape import queries_at_once


@dataclass(slots=True)
class Segment:
    """The new tokens of one sequence, in rows `first` to `first + count` of the forward."""

    first: int
    count: int
    length: int
    """Keys, the new ones among them."""
    pages: dict[torch.device, torch.Tensor] | int
    """The pages that hold them, on each device of the model, or the first one if they follow on each other."""
    mask: torch.Tensor | None = None
    """(count, length), what a row may look at; None if a single row sees all, or nothing came before."""
    causal: bool = False
    block: bool = False
    """Whether scores are computed here, a block of queries at a time, for want of a fused kernel that never holds them all."""


@dataclass(slots=True)
class SegmentLayout:
    """What attention takes of one forward, the same for all layers of a device."""

    slots: dict[torch.device, torch.Tensor]
    """(rows,): where each row's key and value go in the pool, on each device of the model."""
    segments: list[Segment] = field(default_factory=list)


class SegmentAttention:
    """Attention over a pool, a call for each sequence."""

    def __init__(self, pool: PagePool, devices: list[torch.device]) -> None:
        """`devices` are those of the layers, in order."""
        self._pool, self._devices = pool, devices

    def layout(self, parts: list[tuple[KVCache, int]], slots: torch.Tensor) -> SegmentLayout:
        """For each part (a cache, in which room is reserved, and a number of new tokens) in the order of the rows."""
        return SegmentLayout(self._everywhere(slots), self._segments(parts))

    def attend(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        layout: SegmentLayout,
        layer: int,
        scale: float,
    ) -> torch.Tensor:
        """Attention output of shape (rows, heads × head_dim); the new keys and values go into the pool.

        `queries` is (rows, heads, head_dim); `keys` and `values` are (rows, kv_heads, head_dim).
        """
        pool = self._pool.layer(layer)
        write(pool, keys, values, layout.slots[self._devices[layer]])
        outputs = []
        for segment in layout.segments:
            q = queries[segment.first : segment.first + segment.count].transpose(0, 1).unsqueeze(0)
            k, v = (_laid_out(each, segment) for each in pool)
            if segment.block:
                outputs.append(_in_blocks(q[0], k[0], v[0], scale))
                continue
            out = scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=segment.mask,
                is_causal=segment.causal,
                scale=scale,
                enable_gqa=q.shape[1] != k.shape[1],
            )
            outputs.append(out[0].transpose(0, 1).reshape(segment.count, -1))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _everywhere(self, tensor: torch.Tensor) -> dict[torch.device, torch.Tensor]:
        """`tensor` on each device of the model."""
        return {place: tensor.to(place, non_blocking=True) for place in dict.fromkeys(self._devices)}

    def _segments(self, parts: list[tuple[KVCache, int]]) -> list[Segment]:
        device = self._devices[0]
        segments: list[Segment] = []
        first, fused = 0, has_fused_attention(device)
        for cache, count in parts:
            start, end = cache.length, cache.length + count
            pages = cache.pages[: pages_of(end)]
            place = pages[0] if in_one_piece(pages) else self._everywhere(torch.tensor(pages))
            segment = Segment(first, count, end, place)
            segment.causal = count > 1 and start == 0
            if not fused and (count > 1 or device.type == "cuda"):
                segment.block = True
            elif count > 1 and start > 0:
                # With grouped heads, a plain mask takes SDPA's slowest path on CUDA, which computes all scores in float32.
                segment.mask = causal_lower_right(count, end)
            segments.append(segment)
            first += count
        return segments


def write(
    pool: tuple[torch.Tensor, torch.Tensor], keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor
) -> None:
    """Put the rows' keys and values (rows, kv_heads, head_dim) where `slots` say, in a layer of the pool."""
    for buffer, new in zip(pool, (keys, values), strict=True):
        buffer.view(-1, *buffer.shape[2:]).index_copy_(0, slots, new)


def has_fused_attention(device: torch.device) -> bool:
    """Whether attention never holds all its scores there; if it does, memory plans count them."""
    if device.type == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_capability(device) >= MIN_FUSED_CAPABILITY
    return device.type != "mps"


def _laid_out(held: torch.Tensor, segment: Segment) -> torch.Tensor:
    """Keys or values of a segment in order, (1, kv_heads, length, head_dim), of a layer's pages."""
    if isinstance(segment.pages, dict):
        rows = held.index_select(0, segment.pages[held.device]).view(-1, *held.shape[2:])[: segment.length]
    else:
        first = segment.pages * PAGE_TOKENS
        rows = held.view(-1, *held.shape[2:])[first : first + segment.length]
    return rows.transpose(0, 1).unsqueeze(0)


def _in_blocks(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    """Attention of the last rows, (rows, heads × head_dim), from `q` (heads, rows, head_dim) and all keys and values.

    Scores are held for as many queries at once as SCORE_BYTES allow, and keys are not copied for the heads that share them.
    """
    (heads, count, width), (shared, length) = q.shape, k.shape[:2]
    q = (q * scale).view(shared, heads // shared, count, width)
    columns = torch.arange(length, device=q.device)
    step, outputs = queries_at_once(heads, length), []
    for first in range(0, count, step):
        some = q[:, :, first : first + step]
        rows = some.shape[2]
        scores = (some.reshape(shared, -1, width) @ k.transpose(1, 2)).view(shared, -1, rows, length).float()
        limits = torch.arange(length - count + first, length - count + first + rows, device=q.device)
        scores = scores.masked_fill_(columns > limits[:, None], -torch.inf)
        weights = torch.softmax(scores, -1).to(v.dtype).view(shared, -1, length)
        out = (weights @ v).view(heads, rows, width)
        outputs.append(out.transpose(0, 1).reshape(rows, -1))
    return torch.cat(outputs)
