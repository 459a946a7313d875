"""What a card before Ampere needs, which has no fused attention for bfloat16: short chunks, and pictures seen in float32."""

from dataclasses import replace
from typing import Any

import torch
from transformers import AttentionInterface

from magistral_ui.engines.local.devices import Device
from magistral_ui.engines.local.scheduler import Limits, limits_on
from magistral_ui.models.sizes import UNFUSED_CHUNK

IN_FLOAT32 = "magistral_ui_float32"


def limits_for(device: Device) -> Limits:
    """How much is read in a step: `sizes.py` counts the scores of just so many rows."""
    limits = limits_on(device.type)
    return limits if device.fused else replace(limits, chunk=UNFUSED_CHUNK, chunk_alone=UNFUSED_CHUNK)


def see_in_float32(model: Any) -> None:
    """Let a Mistral3's vision tower attend in float32, for which there are fused kernels on every card.

    In bfloat16 the scores of all pairs of patches would be written down: 19 GB for the largest picture.
    """
    AttentionInterface.register(IN_FLOAT32, _attend_in_float32)
    model.model.vision_tower.set_attn_implementation(IN_FLOAT32)


def _attend_in_float32(
    module: Any,  # noqa: ARG001  # transformers calls every attention alike
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    mask = None if attention_mask is None else attention_mask.float()
    seen = torch.nn.functional.scaled_dot_product_attention(
        query.float(), key.float(), value.float(), attn_mask=mask, scale=scaling
    )
    return seen.to(query.dtype).transpose(1, 2).contiguous(), None
