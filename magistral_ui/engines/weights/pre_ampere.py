"""What a card before Ampere needs, which has no fused attention for bfloat16: pictures are seen in float32."""

from typing import Any

import torch
from transformers import AttentionInterface

IN_FLOAT32 = "magistral_ui_float32"


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
