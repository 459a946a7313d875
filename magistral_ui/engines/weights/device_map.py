"""Says which part of a model lies on which device, as a device map of accelerate's kind; it moves and loads nothing."""

from typing import Any

import torch
from torch import nn

from magistral_ui.engines.weights.devices import Device
from magistral_ui.models.memory import MemoryPlan

DeviceMap = dict[str, torch.device]


def device_map(plan: MemoryPlan, device: Device, *, vision: bool, tied: bool) -> DeviceMap:
    """Module names of transformers' Mistral3 (`vision`) or Mistral classes → where they lie.

    The vision side and the embedding are on the first device, the layers in order from there on, norm and head behind them; a
    head that is `tied` to the embedding stays with it.
    """
    used = [each.torch for each in device.all[: len(plan.shares)]]
    if len(used) == 1:
        return {"": used[0]}
    decoder = "model.language_model" if vision else "model"
    placed = {f"{decoder}.embed_tokens": used[0], f"{decoder}.rotary_emb": used[0]}
    if vision:
        placed |= {"model.vision_tower": used[0], "model.multi_modal_projector": used[0]}
    layer_places = [place for place, share in zip(used, plan.shares, strict=True) for _ in range(share.layers)]
    placed |= {f"{decoder}.layers.{n}": place for n, place in enumerate(layer_places)}
    behind = used[0] if tied else used[-1]
    return placed | {f"{decoder}.norm": behind, "lm_head": behind}


def device_of(module: nn.Module) -> torch.device:
    """Where a module's weights lie; those of one layer are never divided."""
    weight: Any = next(module.parameters())
    place: torch.device = weight.device
    return place
