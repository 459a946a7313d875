"""Says for how many rows a decode step is worth recording on a card; it records nothing.

What is recorded keeps its own memory. A quantized product that bitsandbytes has no fused kernel for unpacks the whole weight
into it, layer after layer: gigabytes for one number of rows. So quantized steps are recorded only as far as the kernels go.
"""

from typing import Any

import torch

from magistral_ui.engines.local.cuda_graphs import MAX_RECORDED_ROWS

FUSED_ROWS = {(8, 0): 5, (8, 6): 8, (8, 9): 8, (9, 0): 5, (12, 0): 8, (12, 1): 8}
"""Compute capability → rows up to which nf4 products of the sizes of Magistral's are fused there, by bitsandbytes 0.50's own
rule (`_gemm_4bit_use_custom_cuda`), whatever the number of multiprocessors."""
ALWAYS_FUSED = 4
"""Rows that are fused on every card and for every size."""
SMALL_WEIGHT = 4 * 2**20
"""Numbers in a weight below which bitsandbytes unpacks sooner, depending on the card."""
MIN_CAPABILITY = (8, 0)
"""Cards before it have no bfloat16 arithmetic: there is nothing to be gained by recording."""


def recorded_rows(layer: Any, place: torch.device) -> int:
    """Rows of the largest decode step to record of a model with such a `layer`; 0: none."""
    linears = [*layer.self_attn.children(), *layer.mlp.children()]
    weights = [each.weight for each in linears if hasattr(each, "weight")]
    if any(weight.dtype == torch.int8 for weight in weights):
        return 0  # each of these products waits for the host, which no recording can
    states = [state for weight in weights if (state := getattr(weight, "quant_state", None)) is not None]
    if not states:
        return MAX_RECORDED_ROWS
    capability = torch.cuda.get_device_capability(place)
    if capability < MIN_CAPABILITY:
        return 0
    small = any(state.shape[0] * state.shape[1] < SMALL_WEIGHT for state in states)
    return ALWAYS_FUSED if small else FUSED_ROWS.get(capability, ALWAYS_FUSED)
