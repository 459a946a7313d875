"""Attention of several sequences in one forward: each attends over its own cache, so nothing is padded or masked for others.

On a processor a row's results depend, to the last bit, only on what comes before it: not on how many rows are read with it, nor
on whether it is prefilled or decoded. Kernels round by the shapes of their matrices, so they get shapes that only the row's
position decides: keys in whole tiles, and queries of one tile at a time, never fewer than four.
"""

from dataclasses import dataclass, field

import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import pad, scaled_dot_product_attention

from magistral_ui.engines.local.kv_cache import KVCache, KVLayer
from magistral_ui.engines.weights.devices import MIN_FUSED_CAPABILITY
from magistral_ui.models.shape import queries_at_once

TILE = 64
"""Keys in a tile, on a processor. With half as many, a row gives other results when more rows are read with it."""
MIN_ROWS = 4
"""Rows of the smallest product on a processor: with fewer, kernels round differently, and in float32 oneDNN is no faster."""


@dataclass(slots=True)
class Tile:
    """The rows of one sequence in one tile: rows `first` to `first + count` of the forward, and the keys up to `end`."""

    first: int
    count: int
    end: int
    """A multiple of TILE: after the last row there may be keys that no row looks at."""
    mask: torch.Tensor
    """(count, end), True where a row may look."""


@dataclass(slots=True)
class Segment:
    """The new tokens of one sequence, in rows `first` to `first + count` of the forward."""

    cache: KVCache
    first: int
    count: int
    mask: torch.Tensor | None = None
    """(count, start + count), what a row may look at; None if a single row sees all, or nothing came before."""
    causal: bool = False
    block: bool = False
    """Whether scores are computed here, a block of queries at a time, for want of a fused kernel that never holds them all."""
    tiles: list[Tile] = field(default_factory=list)
    """The segment in parts, on a processor."""


def segments_of(parts: list[tuple[KVCache, int]], device: torch.device) -> list[Segment]:
    """A segment for each (cache, number of new tokens), in the order of the forward's rows."""
    segments: list[Segment] = []
    first, fused = 0, has_fused_attention(device)
    for cache, count in parts:
        start = cache.length
        segment = Segment(cache, first, count, causal=count > 1 and start == 0)
        if not fused and (count > 1 or device.type == "cuda"):
            segment.block = True
        elif device.type == "cpu":
            segment.tiles = _tiles(first, start, start + count)
        elif count > 1 and start > 0 and device.type == "cuda":
            # With grouped heads, a plain mask takes SDPA's slowest path, which computes all scores in float32.
            segment.mask = causal_lower_right(count, start + count)
        segments.append(segment)
        first += count
    return segments


def has_fused_attention(device: torch.device) -> bool:
    """Whether attention never holds all its scores there; if it does, memory plans count them."""
    if device.type == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_capability(device) >= MIN_FUSED_CAPABILITY
    return device.type != "mps"


def _tiles(first: int, start: int, end: int) -> list[Tile]:
    """The tokens `start` to `end`, in the forward's rows from `first` on, cut at the borders of tiles."""
    tiles = []
    while start < end:
        border = (start // TILE + 1) * TILE
        stop = min(end, border)
        mask = torch.arange(border) <= torch.arange(start, stop)[:, None]
        tiles.append(Tile(first, stop - start, border, mask))
        first, start = first + stop - start, stop
    return tiles


def attend(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, segments: list[Segment], layer: int, scale: float
) -> torch.Tensor:
    """Attention output of shape (rows, heads × head_dim); the new keys and values go into the caches.

    `queries` is (rows, heads, head_dim); `keys` and `values` are (rows, kv_heads, head_dim). Rows of no segment get zeros.
    """
    outputs = []
    for segment in segments:
        rows = slice(segment.first, segment.first + segment.count)
        q, k, v = (x[rows].transpose(0, 1).unsqueeze(0) for x in (queries, keys, values))
        held = segment.cache.layers[layer]
        k, v = held.append(k, v)
        if segment.tiles:
            outputs += [_in_tile(queries, held, tile, scale) for tile in segment.tiles]
            continue
        if segment.block:
            outputs.append(_in_blocks(q[0], k[0], v[0], scale))
            continue
        out = scaled_dot_product_attention(
            q, k, v, attn_mask=segment.mask, is_causal=segment.causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        outputs.append(out[0].transpose(0, 1).reshape(segment.count, -1))
    spare = len(queries) - sum(map(len, outputs))
    if spare:
        outputs.append(outputs[0].new_zeros(spare, outputs[0].shape[1]))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _in_tile(queries: torch.Tensor, held: KVLayer, tile: Tile, scale: float) -> torch.Tensor:
    """A tile's attention output, (count, heads × head_dim)."""
    k, v = held.first(tile.end)
    q = queries[tile.first : tile.first + tile.count].transpose(0, 1).unsqueeze(0)
    heads, shared = q.shape[1], k.shape[1]
    mask, count = tile.mask, tile.count
    if count == 1:  # heads that share keys are treated as rows, so that each key is read once for all of them
        q, count = q.reshape(1, shared, heads // shared, -1), heads // shared
    spare = -count % MIN_ROWS
    if spare:
        q = pad(q, (0, 0, 0, spare))
    if len(mask) == 1:
        mask = mask.expand(count + spare, -1)
    elif spare:
        mask = torch.cat([mask, mask[:1].expand(spare, -1)])
    out = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=q.shape[1] != shared)
    out = out[0, :, :count]
    return out.reshape(1, -1) if tile.count == 1 else out.transpose(0, 1).reshape(count, -1)


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
