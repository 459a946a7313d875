"""What a forward computes beside attention, by calls of the model's own modules; it knows no sequences and no cache."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from magistral_ui.engines.local.fused_ops import LayerOps, Pieces, signed
from magistral_ui.engines.weights.devices import device_of

Tensors = tuple[torch.Tensor, ...]


def move(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on `device`, or itself if it is there."""
    return tensor.to(device, non_blocking=True)


def on_device(module: nn.Module, device: torch.device) -> nn.Module:
    """The module, or a copy if its buffers are elsewhere: nothing moves between GPUs while one of them records a graph."""
    if all(each.device == device for each in module.buffers()):
        return module
    other = copy.copy(module)
    other._buffers = {name: None if each is None else each.to(device) for name, each in module._buffers.items()}
    return other


def query_scale(config: Any) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """What queries are multiplied by at each position, in float32; None if the model does not scale them.

    Ministral 3 sharpens its attention with each window of positions (`get_llama_4_attn_scale` of transformers).
    """
    rope = getattr(config, "rope_parameters", None) or {}
    beta, window = rope.get("llama_4_scaling_beta"), rope.get("original_max_position_embeddings")
    if config.model_type != "ministral3" or not beta or not window:
        return None
    return lambda positions: 1 + beta * torch.log(1 + torch.floor(positions / window))


class ModelLayers:
    """What a forward computes beside attention, by calls of the model's own modules."""

    def __init__(self, decoder: Any, head: Any) -> None:
        self._layers = list(decoder.layers)
        self._ops, self.pieces = [LayerOps(layer) for layer in self._layers], Pieces()
        self._norm, self._head = decoder.norm, head
        self._embed, self._rotary = decoder.embed_tokens, decoder.rotary_emb
        self._query_scale = query_scale(decoder.config)
        self._rotaries: dict[torch.device, nn.Module] = {}
        self.devices: list[torch.device] = []
        """Of the layers, in order, then of norm and head."""
        self.locate()

    def __len__(self) -> int:
        return len(self._layers)

    def locate(self) -> None:
        """Find out where the layers are; they may have been moved, as to the GPU that a ZeroGPU Space is lent."""
        self.devices = [*(device_of(layer.input_layernorm) for layer in self._layers), device_of(self._norm)]
        self._rotaries = {device: on_device(self._rotary, device) for device in self.devices}

    @property
    def head_dim(self) -> int:
        width: int = self._layers[0].self_attn.head_dim
        return width

    @property
    def first(self) -> Any:
        """The first layer's module; the others have the same sizes."""
        return self._layers[0]

    def scale(self, index: int) -> float:
        """What the products of queries and keys are multiplied by."""
        scaling: float = self._layers[index].self_attn.scaling
        return scaling

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """(rows,) → (rows, hidden)."""
        hidden: torch.Tensor = self._embed(tokens)
        return hidden

    def tables(self, hidden: torch.Tensor, positions: torch.Tensor) -> Tensors:
        """What `open` takes of the rows' positions: cos, signed sin, and the scale of queries if the model has one."""
        angles = self._rotaries[hidden.device](hidden[None], position_ids=positions[None])
        cos, sin = (each[0].unsqueeze(1) for each in angles)
        if self._query_scale is None:
            return cos, signed(sin)
        return cos, signed(sin), self._query_scale(positions).to(hidden.dtype)[:, None, None]

    def open(self, index: int, hidden: torch.Tensor, tables: Tensors) -> Tensors:
        """The first half of a layer, up to its attention; `tables` as `LayerOps.open` takes them."""
        return self._ops[index].open(hidden, tables, self.pieces)

    def close(self, index: int, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """The second half of a layer, after its attention."""
        return self._ops[index].close(hidden, attended, self.pieces)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(rows, vocabulary)."""
        norm = self._norm
        out: torch.Tensor = self._head(self.pieces.normalized(hidden, norm.weight, norm.variance_epsilon))
        return out
