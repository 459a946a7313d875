"""Attention of several sequences in one forward: each attends over its own cache, so nothing is padded or masked for others."""

from dataclasses import dataclass

import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from magistral_ui.engines.local.kv_cache import KVCache


@dataclass(slots=True)
class Segment:
    """The tokens `start` to `end` of one sequence, which lie in rows `first` to `first + count` of the forward."""

    cache: KVCache
    first: int
    count: int
    mask: torch.Tensor | None = None
    """(count, start + count), True where a row may look; None where a single row sees all, or nothing came before."""
    causal: bool = False


def segments_of(parts: list[tuple[KVCache, int]], device: torch.device) -> list[Segment]:
    """A segment for each (cache, number of new tokens), in the order of the forward's rows."""
    segments: list[Segment] = []
    first = 0
    for cache, count in parts:
        start = cache.length
        segment = Segment(cache, first, count, causal=count > 1 and start == 0)
        if count > 1 and start > 0 and device.type == "cuda":
            # A plain mask with grouped heads takes SDPA's slowest path there, which makes all scores in float32.
            segment.mask = causal_lower_right(count, start + count)
        elif count > 1 and start > 0:
            columns = torch.arange(start + count, device=device)
            segment.mask = columns <= torch.arange(start, start + count, device=device)[:, None]
        segments.append(segment)
        first += count
    return segments


def attend(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, segments: list[Segment], layer: int, scale: float
) -> torch.Tensor:
    """Attention output of shape (rows, heads × head_dim); the new keys and values go into the caches.

    `queries` is (rows, heads, head_dim); `keys` and `values` are (rows, kv_heads, head_dim).
    """
    outputs = []
    for segment in segments:
        rows = slice(segment.first, segment.first + segment.count)
        q, k, v = (x[rows].transpose(0, 1).unsqueeze(0) for x in (queries, keys, values))
        k, v = segment.cache.layers[layer].append(k, v)
        out = scaled_dot_product_attention(
            q, k, v, attn_mask=segment.mask, is_causal=segment.causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        outputs.append(out[0].transpose(0, 1).reshape(segment.count, -1))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)
