"""Joins linear layers that read the same rows, on CUDA: one kernel for queries, keys and values and one for gate and up.

Only plain layers are joined. The scales of nf4 are quantized once more, around a mean of each weight's own, so that the scales of
several weights together would be others; int8 has no layout to share.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from magistral_ui.engines.weights.devices import device_of
from magistral_ui.engines.weights.freed_memory import empty_device_cache
from magistral_ui.engines.weights.packing import join_linears

log = logging.getLogger(__name__)

SPARE_PRODUCTS = 2
"""Of the largest joined weight, what joining may reserve beyond the weights: one that is made, and one that was let go."""


def reserved_on(device: torch.device) -> int:
    """Bytes that torch holds of the device's memory, in use or not, once it has let go what it can."""
    empty_device_cache()
    return torch.cuda.memory_reserved(device)


def join_on_gpu(layers: list[Any], reserved: Callable[[torch.device], int] = reserved_on) -> int:
    """Join what can be joined of decoder layers, until that would hold memory; returns how many linear layers were joined.

    torch reserves the weights of a whole model as one piece, in which what a layer leaves behind is a gap. All gates and ups come
    first: neighbours, whose gap has just the size of the next layer's. The attention's output moves along with its inputs, among
    which it lies, for the same reason. Where gaps are not filled, joining stops.
    """
    before = {device: reserved(device) for device in {device_of(layer.input_layernorm) for layer in layers}}
    spare, joined = 0, 0
    for part in ("mlp", "self_attn"):
        for layer in layers:
            parent, device = getattr(layer, part), device_of(layer.input_layernorm)
            count = join_linears(parent, joined_like)
            if not count:
                continue
            joined += count
            if part == "self_attn" and type(parent.o_proj) is nn.Linear:
                parent.o_proj.weight.data = parent.o_proj.weight.data.clone()
            spare = max(spare, *(each.weight.nbytes for each in parent.children() if isinstance(each, nn.Linear)))
            if reserved(device) > before[device] + SPARE_PRODUCTS * spare:
                log.info("only %d linear layers are joined: what they leave behind is not used again", joined)
                return joined
    return joined


@torch.inference_mode(False)
def joined_like(*layers: Any) -> nn.Linear | None:
    """One plain layer with the outputs of `layers`, or None if they can't be joined."""
    if any(type(each) is not nn.Linear or each.bias is not None for each in layers):
        return None
    weights = [each.weight.detach() for each in layers]
    if len({(each.dtype, each.device) for each in weights}) > 1:
        return None
    joined = nn.Linear(layers[0].in_features, sum(each.out_features for each in layers), bias=False, device="meta")
    joined.weight = nn.Parameter(torch.cat(weights), requires_grad=False)
    return joined
