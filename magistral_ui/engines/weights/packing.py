"""Packs linear layers for a processor: their weights are put once into the layout in which oneDNN multiplies; it loads nothing.

oneDNN would otherwise rearrange them with every product; torch.compile packs frozen weights in the same way. Measured on one
Zen 4 core: products of 4 to 16 rows take 0.5 to 0.7 of the time, in bfloat16 and in float32, longer ones slightly less than
before. For float32 oneDNN has another layout for a single row, which the decoder never has: four rows in the general layout
take less time than one in that.
"""

import logging
from typing import Any

import torch
from torch import nn

log = logging.getLogger(__name__)

PACKABLE = (torch.float32, torch.bfloat16)


class PackedLinear(nn.Module):
    """A linear layer without bias whose weight is in oneDNN's own layout."""

    def __init__(self, weight: torch.Tensor) -> None:
        """`weight` is (out, in), dense, on the CPU; it is not kept."""
        super().__init__()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(n, in) → (n, out)."""
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, None, "none", [], "")
        return out


def pack_linears(module: nn.Module) -> int:
    """Replace the plain CPU linear layers inside `module` and return how many. Ask `can_pack` first."""
    packed = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            replacement = packed_like(child)
            if replacement is not None:
                setattr(parent, name, replacement)
                packed += 1
    return packed


def unmap_weights(model: nn.Module) -> None:
    """Copy into memory of its own what is still mapped from the model's files, so that all of the files is let go.

    A file stays mapped as a whole while one of its tensors is in use, so what has been packed would be held twice.
    """
    for weight in model.parameters():
        if type(weight) is nn.Parameter and weight.device.type == "cpu":  # bitsandbytes' own are copies already
            weight.data = weight.data.clone()


def packed_like(module: nn.Module) -> PackedLinear | None:
    """`module` packed, or None if it cannot be: another kind of layer, quantized, with a bias, or not on the CPU."""
    if type(module) is not nn.Linear or module.bias is not None:
        return None
    weight = module.weight
    return PackedLinear(weight) if weight.device.type == "cpu" and weight.dtype in PACKABLE else None


def can_pack(dtype: torch.dtype) -> bool:
    """Whether packing works here, tried on a small product: the operator is no public one, and bfloat16 needs AVX-512."""
    weight, rows = torch.randn(32, 16).to(dtype), torch.randn(3, 16).to(dtype)
    try:
        got: Any = PackedLinear(weight)(rows)
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        log.info("weights in %s are not packed: %s", dtype, type(error).__name__)
        return False
    return bool(torch.allclose(got, rows @ weight.t(), atol=1e-4 if dtype == torch.float32 else 0.1))
