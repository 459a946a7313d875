"""One forward of the language model over the new tokens of several sequences at once; it does not choose or sample them.

The rows of all sequences are concatenated: linear layers see one matrix, and attention runs sequence by sequence, each on its
own cache. So prefilling and decoding sequences share a step, and nothing is padded. Layers may be spread over several devices:
tokens go in on the first, and logits come out on the last.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from magistral_ui.engines.local.attention import attend, segments_of
from magistral_ui.engines.local.cuda_graphs import StageChoice, Tensors, move, record_on_cuda, recorded_rows
from magistral_ui.engines.local.fused_ops import LayerOps, Pieces, signed
from magistral_ui.engines.local.kv_cache import KVCache
from magistral_ui.engines.weights.devices import device_of
from magistral_ui.engines.weights.packing import can_pack, least_rows, pack_linears, packed_like, unmap_weights


class Decoder:
    """The decoder of a Mistral checkpoint, run on the submodules of transformers' model where they are."""

    def __init__(self, model: Any, *, graphs: bool = True) -> None:
        """`model` is a Mistral3ForConditionalGeneration or a MistralForCausalLM, in evaluation mode.

        `graphs` allows decode steps to be recorded as CUDA graphs, if there is CUDA and the graphs are right.
        """
        inner: Any = model.model
        decoder = getattr(inner, "language_model", inner)
        self.config = decoder.config
        self.embed: nn.Embedding = decoder.embed_tokens
        self.layers = list(decoder.layers)
        self.norm = decoder.norm
        self.rotary = decoder.rotary_emb
        self.head: Any = model.lm_head
        self.copied_bytes = 0
        """Bytes of the packed copy of a head that is also the embedding."""
        if self.device.type == "cpu" and can_pack(self.dtype):
            pack_linears(decoder)
            self._pack_head(model)
            unmap_weights(model)
        self._least = max(map(least_rows, self.layers)) if self.device.type == "cpu" else 0
        devices = [*(device_of(layer.input_layernorm) for layer in self.layers), device_of(self.norm)]
        self._plain = PlainStages(self.layers, self.norm, self.head, devices)
        self._stages = self._choice(graphs)
        self._query_scale = query_scale(self.config)
        self._image_features = getattr(model, "get_image_features", None)
        self.longest: int | None = None
        """Tokens of the longest sequence that will be run, if known: caches do not grow beyond it."""

    @property
    def device(self) -> torch.device:
        """Where tokens go in: the device of the first layer."""
        return self.embed.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of activations, and so of keys and values."""
        return self.embed.weight.dtype

    def new_cache(self) -> KVCache:
        return KVCache(len(self.layers), self.longest)

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """(image tokens, hidden) of one image; `pixels` is float32 (3, height, width), multiples of the merged patch."""
        if self._image_features is None:
            raise ValueError("this model has no vision tower")
        batch = pixels.unsqueeze(0).to(self.device, self.dtype)
        sizes = torch.tensor([pixels.shape[-2:]])
        out = self._image_features(pixel_values=batch, image_sizes=sizes, return_dict=True)
        return torch.cat(list(out.pooler_output), dim=0)

    @torch.inference_mode()
    def __call__(self, parts: list["DecoderInput"]) -> torch.Tensor:
        """Logits (len(parts), vocabulary) of each part's last row; all parts' tokens are in their caches afterwards.

        On a processor there are never fewer rows than its products need, so that a row's results are the same in any company.
        """
        device = self.device
        tokens = [token for part in parts for token in part.tokens]
        decoding = len(tokens) == len(parts)
        least = self._least
        spare = [0] * (least - len(tokens))
        hidden = self.embed(torch.tensor(tokens + spare, device=device))
        first = 0
        for part in parts:
            for rows, features in part.features:
                hidden[rows + first] = features.to(hidden)
            first += len(part.tokens)
        positions = torch.tensor(
            [*(n for p in parts for n in range(p.cache.length, p.cache.length + len(p.tokens))), *spare], device=device
        )
        segments = segments_of([(part.cache, len(part.tokens)) for part in parts], device)
        tables = self._tables(hidden, positions)
        stages: Stages = self._plain
        if decoding and self._stages.record is not None:
            stages = self._stages.choose(hidden, tables)
        stages.begin(hidden, tables)
        attended = None
        for index, layer in enumerate(self.layers):
            queries, keys, values = stages.advance(index, attended)
            attended = attend(queries, keys, values, segments, index, layer.self_attn.scaling)
        assert attended is not None
        last = [segment.first + segment.count - 1 for segment in segments]
        logits = stages.finish(attended, None if decoding else torch.tensor(last, device=attended.device))
        return logits[: len(parts)]

    def _pack_head(self, model: Any) -> None:
        """Pack the head. If it is also the embedding, which has to stay as it is, that makes a copy.

        Measured for the 3B, whose copy takes 768 MiB: a packed head takes half the time, which is a tenth of a token's in
        bfloat16 and a fifth in nf4.
        """
        packed = packed_like(model.lm_head)
        if packed is None:
            return
        weight, self.head = model.lm_head.weight, packed
        if weight.data_ptr() == self.embed.weight.data_ptr():
            self.copied_bytes = weight.nbytes
        else:
            model.lm_head = packed  # so that the original is not kept

    def _choice(self, graphs: bool) -> StageChoice:
        if self.device.type == "cuda":
            # torch prefers it on compute capability 9 and 10, and compiles a new plan for every length of a sequence.
            torch.backends.cuda.enable_cudnn_sdp(False)
        if self.device.type != "cuda" or not graphs:
            return StageChoice(self._plain, None)
        rows = min(recorded_rows(self.layers[0], device) for device in set(self._plain.devices))
        return StageChoice(self._plain, record_on_cuda if rows else None, rows)

    def _tables(self, hidden: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What the stages take of the rows' positions: cos, sin, and the scale of queries if the model has one."""
        angles = self.rotary(hidden[None], position_ids=positions[None])
        cos, sin = (each[0].unsqueeze(1) for each in angles)
        if self._query_scale is None:
            return cos, signed(sin)
        return cos, signed(sin), self._query_scale(positions).to(hidden.dtype)[:, None, None]


def query_scale(config: Any) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """What queries are multiplied by at each position, in float32; None if the model does not scale them.

    Ministral 3 sharpens its attention with each window of positions (`get_llama_4_attn_scale` of transformers).
    """
    rope = getattr(config, "rope_parameters", None) or {}
    beta, window = rope.get("llama_4_scaling_beta"), rope.get("original_max_position_embeddings")
    if config.model_type != "ministral3" or not beta or not window:
        return None
    return lambda positions: 1 + beta * torch.log(1 + torch.floor(positions / window))


@dataclass(slots=True)
class DecoderInput:
    """The new tokens of one sequence in a forward.

    `features` are pairs of row numbers (n,), counted from the part's first, and the image features (n, hidden) that stand there
    in place of token embeddings.
    """

    cache: KVCache
    tokens: list[int]
    features: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)


class Stages(Protocol):
    """One forward, from attention to attention."""

    def begin(self, hidden: torch.Tensor, tables: Tensors) -> None:
        """Start with embeddings (rows, hidden) and the position tables that `open` takes."""

    def advance(self, index: int, attended: torch.Tensor | None) -> Tensors:
        """Queries, keys and values of layer `index`, from what layer `index - 1` attended to (None at the first)."""

    def finish(self, attended: torch.Tensor, last: torch.Tensor | None) -> torch.Tensor:
        """Logits of the rows `last` (None: of all)."""


class PlainStages:
    """The stages as calls of the model's own modules."""

    def __init__(self, layers: list[Any], norm: Any, head: Any, devices: list[torch.device]) -> None:
        """`devices` are those of the layers, in order, then the one of norm and head."""
        self._ops, self._pieces = [LayerOps(layer) for layer in layers], Pieces()
        self.layers, self._norm, self._head = layers, norm, head
        self.devices = devices
        self._hidden = torch.empty(0)
        self._tables: Tensors = ()

    def begin(self, hidden: torch.Tensor, tables: Tensors) -> None:
        self._hidden, self._tables = hidden, tables

    def advance(self, index: int, attended: torch.Tensor | None) -> Tensors:
        if attended is not None:
            self._hidden = self.close(index - 1, self._hidden, attended)
        if self.borders(index):
            here = self.devices[index]
            self._hidden = move(self._hidden, here)
            self._tables = tuple(move(each, here) for each in self._tables)
        return self.open(index, self._hidden, self._tables)

    def finish(self, attended: torch.Tensor, last: torch.Tensor | None) -> torch.Tensor:
        hidden = self.close(len(self.layers) - 1, self._hidden, attended)
        hidden = hidden if last is None else hidden[last]
        return self.logits(move(hidden, self.devices[-1]) if self.borders(len(self.layers)) else hidden)

    def borders(self, index: int) -> bool:
        """Whether layer `index` (or the head, after the last) is on another device than the layer before it."""
        return index > 0 and self.devices[index] != self.devices[index - 1]

    def open(self, index: int, hidden: torch.Tensor, tables: Tensors) -> Tensors:
        """The first half of a layer, up to its attention; `tables` as `LayerOps.open` takes them."""
        return self._ops[index].open(hidden, tables, self._pieces)

    def close(self, index: int, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """The second half of a layer, after its attention."""
        return self._ops[index].close(hidden, attended, self._pieces)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(rows, vocabulary)."""
        norm = self._norm
        out: torch.Tensor = self._head(self._pieces.normalized(hidden, norm.weight, norm.variance_epsilon))
        return out
