"""Packs linear layers: on a processor their weights are put once into the layout of its kernels, and layers that read the same
rows become one; it loads nothing.

oneDNN would otherwise rearrange weights with every product; torch.compile packs frozen weights in the same way. Measured on one
Zen 4 core: products of 4 to 16 rows take 0.5 to 0.7 of the time, in bfloat16 and in float32, longer ones slightly less than
before. For float32 oneDNN has another layout for a single row, which takes longer than four rows in the general one.

Queries, keys and values are projected from the same rows, and so are gate and up: one product each costs less than three and
two. Weights are replaced layer by layer, so that never more than those of one product are held twice.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad

log = logging.getLogger(__name__)

PACKABLE = (torch.float32, torch.bfloat16)
MIN_ROWS = 4
"""Rows of the smallest product in PACKABLE: with fewer, kernels round differently and are no faster."""
JOINED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""Names of joined layers → the layers of transformers' modules that they replace, in the order of their outputs."""
NF4_COLUMNS, NF4_BLOCK = 32, 64
"""bitsandbytes' layout for a processor takes 32 outputs at a time, and inputs in blocks of 64."""


class PackedLinear(nn.Module):
    """A linear layer without bias whose weight is in oneDNN's own layout."""

    def __init__(self, *weights: torch.Tensor) -> None:
        """`weights` are (out, in), dense, on the CPU; outputs come one after the other. They are not kept."""
        super().__init__()
        weight = weights[0].detach() if len(weights) == 1 else torch.cat([each.detach() for each in weights])
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self.packed_bytes = weight.nbytes

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(…, n, in) → (…, n, out); a row gives the same, to the last bit, with any others."""
        spare = MIN_ROWS - rows.shape[-2]
        if spare > 0:
            return self._product(pad(rows, (0, 0, 0, spare)))[..., :-spare, :]
        return self._product(rows)

    def _product(self, rows: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, None, "none", [], "")
        return out


class PackedLinear4bit(nn.Module):
    """An nf4 layer without bias in bitsandbytes' layout for a processor; for a row it does not matter which others there are."""

    weight: torch.Tensor
    absmax: torch.Tensor
    code: torch.Tensor

    def __init__(self, *layers: Any) -> None:
        """`layers` are bitsandbytes' own, and give their weights away; outputs come one after the other."""
        super().__init__()
        for each in layers:
            each(torch.zeros(1, each.in_features, dtype=torch.bfloat16))  # a first product lays the weight out anew
        states = [each.weight.quant_state for each in layers]
        self.register_buffer("weight", _cat([each.weight.data for each in layers], 0))
        self.register_buffer("absmax", _cat([state.absmax for state in states], 1))
        self.register_buffer("code", states[0].code)
        self._shape = [sum(each.out_features for each in layers), layers[0].in_features]

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(n, in) → (n, out)."""
        out: torch.Tensor = torch.ops.bitsandbytes.gemv_4bit(
            rows, self.weight, self._shape, self.absmax, self.code, NF4_BLOCK
        )
        return out


def _cat(tensors: list[torch.Tensor], dim: int) -> torch.Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)


@torch.inference_mode()
def pack_linears(module: nn.Module, *, join: bool = True) -> int:
    """Replace the linear layers inside `module` that can be packed; returns how many were.

    `join` makes one of those that JOINED names together. For a processor; ask `can_pack` first.
    """
    packed = 0
    for parent in list(module.modules()):
        packed += join_linears(parent, packed_like) if join else 0
        for name, child in list(parent.named_children()):
            replacement = packed_like(child)
            if replacement is not None:
                setattr(parent, name, replacement)
                packed += 1
    return packed


def join_linears(parent: nn.Module, joined_like: Callable[..., nn.Module | None]) -> int:
    """Put one layer for each of JOINED into `parent`, if it has its parts and `joined_like(*parts)` can join them."""
    replaced = 0
    for name, parts in JOINED.items():
        layers = [getattr(parent, part, None) for part in parts]
        joined = None if None in layers else joined_like(*layers)
        if joined is not None:
            for part in parts:
                delattr(parent, part)
            setattr(parent, name, joined)
            replaced += len(parts)
    return replaced


def unmap_weights(model: nn.Module) -> None:
    """Copy into memory of its own what is still mapped from the model's files, so that all of the files is let go.

    A file stays mapped as a whole while one of its tensors is in use, so what has been packed would be held twice.
    """
    for weight in model.parameters():
        if type(weight) is nn.Parameter and weight.device.type == "cpu":  # bitsandbytes' own are copies already
            weight.data = weight.data.clone()


def packed_like(*layers: Any) -> nn.Module | None:
    """`layers` packed as one, or None if they cannot be: other kinds, with a bias, of several precisions, not on the CPU."""
    if not all(
        isinstance(each, nn.Linear) and each.bias is None and each.weight.device.type == "cpu" for each in layers
    ):
        return None
    if all(map(_has_layout, layers)):
        return PackedLinear4bit(*layers)
    if all(type(each) is nn.Linear for each in layers) and len(dtypes := {each.weight.dtype for each in layers}) == 1:
        return PackedLinear(*(each.weight for each in layers)) if dtypes <= set(PACKABLE) else None
    return None


def _has_layout(layer: Any) -> bool:
    """Whether bitsandbytes has its layout for a processor for this layer: an nf4 layer of whole blocks, and AVX512-BF16."""
    state = getattr(layer.weight, "quant_state", None)
    if state is None or not getattr(layer, "support_avx512bf16_for_cpu", False):
        return False
    whole = layer.out_features % NF4_COLUMNS == 0 and layer.in_features % NF4_BLOCK == 0
    return bool(whole and state.quant_type == "nf4" and state.blocksize == NF4_BLOCK)


def least_rows(module: nn.Module) -> int:
    """Rows that a forward through `module` should have at least, on a processor; packed nf4 layers need no company."""
    return MIN_ROWS if any(isinstance(each, nn.Linear | PackedLinear) for each in module.modules()) else 1


def can_pack(dtype: torch.dtype) -> bool:
    """Whether packing works here, tried on a small product: the operator is no public one, and bfloat16 needs AVX-512."""
    weight, rows = torch.randn(32, 16).to(dtype), torch.randn(3, 16).to(dtype)
    try:
        got: Any = PackedLinear(weight)(rows)
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        log.info("weights in %s are not packed: %s", dtype, type(error).__name__)
        return False
    return bool(torch.allclose(got, rows @ weight.t(), atol=1e-4 if dtype == torch.float32 else 0.1))
