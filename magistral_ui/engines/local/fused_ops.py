"""What a decoder layer computes before and after its attention, in as few kernels as torch has for it.

It knows nothing of caches or attention. The functions between the products are given as `Pieces`, so that compiled ones can take
the place of the plain ones (compiled_ops.py). A row's results do not depend on the other rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import rms_norm, silu


def normalized(hidden: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Root mean square normalization of (rows, hidden), as MistralRMSNorm has it; rounded once."""
    return rms_norm(hidden, weight.shape, weight, eps)


def added_and_normalized(
    hidden: torch.Tensor, change: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """`hidden + change`, and that normalized."""
    total = hidden + change
    return total, rms_norm(total, weight.shape, weight, eps)


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding of (rows, heads, head_dim), pairing the two halves of a head (as in Llama).

    `cos` and `sin` are (rows, 1, head_dim), `sin` with the sign of `signed`.
    """
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def gated(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """silu(gate) · up, each (rows, intermediate)."""
    return silu(gate).mul_(up)


def signed(sin: torch.Tensor) -> torch.Tensor:
    """`sin` for `rotated`: negative in the first half of a head, whose partners are subtracted."""
    half = sin.shape[-1] // 2
    return torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)


@dataclass(frozen=True, slots=True)
class Pieces:
    """The functions between the products; `same` tells when compiled ones may be used in their place."""

    normalized: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor] = normalized
    added_and_normalized: Callable[..., tuple[torch.Tensor, torch.Tensor]] = added_and_normalized
    rotated: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor] = rotated
    gated: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = gated


class LayerOps:
    """One decoder layer of transformers, from its input to its attention and from there to its output."""

    def __init__(self, layer: Any) -> None:
        """`layer` is a MistralDecoderLayer or Ministral3DecoderLayer, its linear layers joined (packing.py) or not."""
        attention, mlp = layer.self_attn, layer.mlp
        self._attention, self._mlp = attention, mlp
        self._qkv = getattr(attention, "qkv_proj", None)
        self._gate_up = getattr(mlp, "gate_up_proj", None)
        self._norms = (layer.input_layernorm, layer.post_attention_layernorm)
        config = attention.config
        self._width = attention.head_dim
        self._heads, self._shared = config.num_attention_heads, config.num_key_value_heads

    def open(
        self, hidden: torch.Tensor, tables: tuple[torch.Tensor, ...], pieces: Pieces
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries (rows, heads, head_dim), keys and values (rows, kv_heads, head_dim): views, with contiguous heads.

        `tables` are cos and signed sin, (rows, 1, head_dim), and, if queries are scaled by position, that scale, (rows, 1, 1).
        """
        norm = self._norms[0]
        cos, sin, *scale = tables
        pairs, values = self._projected(pieces.normalized(hidden, norm.weight, norm.variance_epsilon))
        turned = pieces.rotated(pairs.view(len(pairs), -1, self._width), cos, sin)
        queries, keys = torch.split(turned, [self._heads, self._shared], dim=1)
        if scale:
            queries.mul_(scale[0])
        return queries, keys, values.view(len(values), self._shared, self._width)

    def _projected(self, normed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and keys side by side, and values."""
        if self._qkv is not None:
            values = self._shared * self._width
            pairs, projected = torch.split(self._qkv(normed), [self._heads * self._width + values, values], dim=-1)
            return pairs, projected
        attention = self._attention
        return torch.cat((attention.q_proj(normed), attention.k_proj(normed)), dim=-1), attention.v_proj(normed)

    def close(self, hidden: torch.Tensor, attended: torch.Tensor, pieces: Pieces) -> torch.Tensor:
        """The layer's output, from its input (rows, hidden) and what attention gave (rows, heads × head_dim)."""
        norm, mlp = self._norms[1], self._mlp
        hidden, normed = pieces.added_and_normalized(
            hidden, self._attention.o_proj(attended), norm.weight, norm.variance_epsilon
        )
        if self._gate_up is not None:
            gate, up = self._gate_up(normed).chunk(2, dim=-1)
        else:
            gate, up = mlp.gate_proj(normed), mlp.up_proj(normed)
        out: torch.Tensor = mlp.down_proj(pieces.gated(gate, up)) + hidden
        return out
