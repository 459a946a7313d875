"""Run the demo model's parts over many samples at once for training; knows nothing of losses or data.

It uses the modules of transformers' own model, but attends within each picture alone (the library attends over all
pictures of a batch under a mask) and keeps attention in fp32 (twice as fast as bf16 on a CPU).
"""

from collections import defaultdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import AttentionInterface, Mistral3ForConditionalGeneration

PATCH = 14
MERGE = 2


def _attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> tuple[Tensor, None]:
    """Attend in fp32; causal where the module is; (batch, heads, length, size) to (batch, length, heads, size)."""
    with torch.autocast("cpu", enabled=False):
        out = F.scaled_dot_product_attention(
            query.float(),
            key.float(),
            value.float(),
            is_causal=bool(getattr(module, "is_causal", False)),
            enable_gqa=query.shape[1] != key.shape[1],
        )
    return out.transpose(1, 2).contiguous(), None


def load(folder: str) -> Mistral3ForConditionalGeneration:
    """Load the model in fp32 with the attention of this file."""
    AttentionInterface.register("training", _attention)
    model: Mistral3ForConditionalGeneration = Mistral3ForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="training"
    )
    return model


def precision() -> torch.autocast:
    """Return the context to compute in: bf16 where the CPU has it, else fp32 (there ten times faster)."""
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.ops.mkldnn._is_mkldnn_bf16_supported())


def patch_features(model: Mistral3ForConditionalGeneration, pixels: Tensor) -> Tensor:
    """Return the vision tower's output (batch, rows * columns, size) for pictures of one size."""
    tower = model.model.vision_tower
    batch, channels, height, width = pixels.shape
    rows, columns = height // PATCH, width // PATCH
    patches = pixels.view(batch, channels, rows, PATCH, columns, PATCH).permute(0, 2, 4, 1, 3, 5)
    x = patches.reshape(batch, rows * columns, -1) @ tower.patch_conv.weight.flatten(1).T
    x = tower.ln_pre(x.float())
    grid = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    positions = tower.patch_positional_embedding(x, grid)
    seen: Tensor = tower.transformer(x, attention_mask=None, position_embeddings=positions).last_hidden_state
    return seen


def project(model: Mistral3ForConditionalGeneration, features: Tensor, rows: int, columns: int) -> Tensor:
    """Return the text model's view (batch, tokens, hidden) of a batch of patch features."""
    projector = model.model.multi_modal_projector
    batch, _, size = features.shape
    x = projector.norm(features).view(batch, rows // MERGE, MERGE, columns // MERGE, MERGE, size)
    x = x.permute(0, 1, 3, 5, 2, 4).reshape(batch, -1, size * MERGE * MERGE)
    x = projector.linear_1(projector.patch_merger.merging_layer(x))
    tokens: Tensor = projector.linear_2(projector.act(x))
    return tokens


def image_tokens(model: Mistral3ForConditionalGeneration, images: list[NDArray[np.float32]]) -> list[Tensor]:
    """Return each picture's (tokens, hidden) features; pictures of one size go through together."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, array in enumerate(images):
        groups[array.shape].append(index)
    found: dict[int, Tensor] = {}
    for shape, members in groups.items():
        pixels = torch.from_numpy(np.stack([images[i] for i in members]))
        features = patch_features(model, pixels)
        tokens = project(model, features, shape[1] // PATCH, shape[2] // PATCH)
        found.update(zip(members, tokens.float(), strict=True))
    return [found[i] for i in range(len(images))]


def hidden_states(model: Mistral3ForConditionalGeneration, embedded: Tensor) -> Tensor:
    """Return the text model's last hidden states for right-padded embeddings (batch, length, hidden)."""
    text = model.model.language_model
    positions = text.rotary_emb(embedded, position_ids=torch.arange(embedded.shape[1])[None])
    x = embedded
    for layer in text.layers:
        x = layer(x, attention_mask=None, position_embeddings=positions)
    normed: Tensor = text.norm(x)
    return normed
