"""One forward of the language model over the new tokens of several sequences at once; it does not choose or sample them.

The rows of all sequences lie behind each other: linear layers see one matrix, attention runs sequence by sequence on its own
cache. So sequences that are read and sequences that are written share a step, and nothing is padded.
"""

from typing import Any

import torch
from torch import nn

from magistral_ui.engines.local.attention import attend, segments_of
from magistral_ui.engines.local.kv_cache import KVCache
from magistral_ui.engines.local.packing import can_pack, pack_linears, packed_like


class TextModel:
    """The decoder of a Mistral checkpoint, taken out of transformers' model; weights and submodules stay where they are."""

    def __init__(self, model: Any) -> None:
        """`model` is a Mistral3ForConditionalGeneration or a MistralForCausalLM, in evaluation mode."""
        inner: Any = model.model
        decoder = getattr(inner, "language_model", inner)
        self.config = decoder.config
        self.embed: nn.Embedding = decoder.embed_tokens
        self.layers = list(decoder.layers)
        self.norm = decoder.norm
        self.rotary = decoder.rotary_emb
        self.head: Any = model.lm_head
        if self.device.type == "cpu" and can_pack():
            pack_linears(decoder)
            self.head = packed_like(model.lm_head) or model.lm_head
        self._image_features = getattr(model, "get_image_features", None)

    @property
    def device(self) -> torch.device:
        """Where tokens go in."""
        return self.embed.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of activations, and so of keys and values."""
        return self.embed.weight.dtype

    def new_cache(self) -> KVCache:
        """An empty cache with this model's number of layers."""
        return KVCache(len(self.layers))

    def picture_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """(image tokens, hidden) of one picture; `pixels` is float32 (3, height, width), multiples of the merged patch."""
        if self._image_features is None:
            raise ValueError("this model has no vision tower")
        batch = pixels.unsqueeze(0).to(self.device, self.dtype)
        sizes = torch.tensor([pixels.shape[-2:]])
        out = self._image_features(pixel_values=batch, image_sizes=sizes, return_dict=True)
        return torch.cat(list(out.pooler_output), dim=0)

    @torch.inference_mode()
    def __call__(self, parts: list["Part"]) -> torch.Tensor:
        """Logits (len(parts), vocabulary) of each part's last row; all parts' tokens are in their caches afterwards."""
        device = self.device
        ids = torch.tensor([token for part in parts for token in part.tokens], device=device)
        hidden = self.embed(ids)
        first = 0
        for part in parts:
            for rows, features in part.features:
                hidden[rows + first] = features.to(hidden)
            first += len(part.tokens)
        positions = torch.cat(
            [torch.arange(p.cache.length, p.cache.length + len(p.tokens), device=device) for p in parts]
        )
        segments = segments_of([(part.cache, len(part.tokens)) for part in parts], device)
        cos, sin = (x[0].unsqueeze(1) for x in self.rotary(hidden[None], position_ids=positions[None]))
        for index, layer in enumerate(self.layers):
            attention = layer.self_attn
            normed = layer.input_layernorm(hidden)
            shape = (len(ids), -1, attention.head_dim)
            queries = _rotated(attention.q_proj(normed).view(shape), cos, sin)
            keys = _rotated(attention.k_proj(normed).view(shape), cos, sin)
            values = attention.v_proj(normed).view(shape)
            attended = attend(queries, keys, values, segments, index, attention.scaling)
            hidden = hidden + attention.o_proj(attended)
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        last = torch.tensor([segment.first + segment.count - 1 for segment in segments], device=device)
        logits: torch.Tensor = self.head(self.norm(hidden[last] if len(ids) > len(parts) else hidden))
        return logits


class Part:
    """The new tokens of one sequence in a forward.

    `features` are pairs of row numbers (n,), counted from the part's first, and what stands there instead of the token's
    embedding, (n, hidden): the pictures.
    """

    __slots__ = ("cache", "features", "tokens")

    def __init__(
        self, cache: KVCache, tokens: list[int], features: list[tuple[torch.Tensor, torch.Tensor]] | None = None
    ) -> None:
        self.cache, self.tokens, self.features = cache, tokens, features or []


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding of (rows, heads, head_dim), the two halves of a head being the pair (as in Llama)."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + turned * sin
