"""One forward of the language model over the new tokens of several sequences at once; it does not choose or sample them.

The rows of all sequences are concatenated: linear layers see one matrix, and nothing is padded. So prefilling and decoding
sequences share a forward. Keys and values are in pages (`kv_cache.py`), which each device's attention reads in its own way:
`exact_attention.py` on a processor, `paged_attention.py` for decode steps on a GPU, `attention.py` for the rest. Layers may be
spread over several devices: tokens go in on the first, and logits come out on the last.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from magistral_ui.engines.local.attention import SegmentAttention
from magistral_ui.engines.local.cuda_graphs import StepGraphs, record_steps
from magistral_ui.engines.local.cuda_recorder import Recorder
from magistral_ui.engines.local.decode_step import DecodeStep, slots_of, step_inputs
from magistral_ui.engines.local.exact_attention import ExactAttention
from magistral_ui.engines.local.kv_cache import SCRATCH_PAGE, KVCache, PagePool
from magistral_ui.engines.local.model_layers import ModelLayers, move
from magistral_ui.engines.local.paged_attention import PagedAttention, RaggedAttention
from magistral_ui.engines.local.prompt_attention import PromptAttention
from magistral_ui.engines.weights.joined_weights import join_on_gpu
from magistral_ui.engines.weights.packing import can_pack, least_rows, pack_linears, packed_like, unmap_weights
from magistral_ui.models.memory import pages_of

DEFAULT_POOL_TOKENS = 65_536
"""Tokens in a pool that nobody asked for by size."""


class Decoder:
    """The decoder of a Mistral checkpoint, run on the submodules of transformers' model where they are."""

    def __init__(self, model: Any, *, join: bool = False) -> None:
        """`model` is a Mistral3ForConditionalGeneration or a MistralForCausalLM, in evaluation mode.

        `join` lets layers that read the same rows become one on a GPU, too, as they do on a processor.
        """
        inner: Any = model.model
        decoder = getattr(inner, "language_model", inner)
        self.config = decoder.config
        self.copied_bytes = 0
        """Bytes of the packed copy of a head that is also the embedding."""
        self._embed: nn.Embedding = decoder.embed_tokens
        self._head: Any = model.lm_head
        if self.device.type == "cpu" and can_pack(self.dtype):
            pack_linears(decoder)
            self._pack_head(model)
            unmap_weights(model)
        elif join:
            join_on_gpu(list(decoder.layers))
        if self.device.type == "cuda":
            # torch prefers it on compute capability 9 and 10, and compiles a new plan for every length of a sequence.
            torch.backends.cuda.enable_cudnn_sdp(False)
        self.layers = ModelLayers(decoder, self._head)
        self._least = least_rows(decoder.layers)
        self._image_features = getattr(model, "get_image_features", None)
        self._pool: PagePool | None = None
        self._attention: ExactAttention | SegmentAttention | PromptAttention | None = None
        self._step: DecodeStep | None = None
        self.graphs: StepGraphs | None = None
        """Recordings of decode steps."""
        self.width = 0
        """Pages of the longest sequence."""

    @property
    def device(self) -> torch.device:
        """Where tokens go in: the device of the first layer."""
        return self._embed.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of activations, and so of keys and values."""
        return self._embed.weight.dtype

    @property
    def pool(self) -> PagePool:
        """Where keys and values are; a small one, if none has been opened."""
        if self._pool is None:
            self.open_pool(pages_of(DEFAULT_POOL_TOKENS))
        assert self._pool is not None
        return self._pool

    def open_pool(self, pages: int, longest: int | None = None) -> PagePool:
        """Make room for that many pages of keys and values; what older caches hold is no longer of use, and is freed first.

        `longest` is the number of tokens of the longest sequence (default: all that fit).
        """
        self.layers.locate()
        places = self.layers.devices[:-1]
        config = self.config
        self._step = self.graphs = self._pool = self._attention = None
        self._pool = PagePool(places, config.num_key_value_heads, self.layers.head_dim, self.dtype, pages)
        self.width = pages if longest is None else pages_of(longest)
        exact = self.device.type == "cpu"
        self._attention = ExactAttention(self._pool, self.dtype) if exact else SegmentAttention(self._pool, places)
        return self._pool

    def decode_with(self, attentions: dict[torch.device, PagedAttention]) -> DecodeStep:
        """Let decode steps take all rows' attention in one call of their device's; returns the step."""
        self._step = DecodeStep(self.layers, self.pool, attentions)
        return self._step

    def record(self, recorder: Recorder | None = None) -> None:
        """Record decode steps as CUDA graphs, as far as that holds and pays, for as long as the pool that is open now."""
        if self._step is not None and self.device.type == "cuda":
            self.graphs = record_steps(self._step, self.layers.first, self.pool, self.width, recorder)

    def read_with(self, kernels: dict[torch.device, RaggedAttention]) -> None:
        """Let all other forwards take all sequences' attention in one call of their device's, until another pool is opened."""
        self._attention = PromptAttention(self.pool, self.layers.devices[:-1], kernels)

    def new_cache(self) -> KVCache:
        return self.pool.new_cache()

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
        """Logits (rows, vocabulary) of each part's last `wanted` rows; all parts' tokens are in their caches afterwards.

        If it fails, the caches have the length that they had. Raises OutOfPages, a MemoryError, if the pool is too small.
        """
        for part in parts:
            part.cache.reserve(len(part.tokens))
        decodes = self._step is not None and all(part.decodes for part in parts)
        logits = self._decode(parts) if decodes else self._forward(parts)
        for part in parts:
            part.cache.length += len(part.tokens)
        return logits

    def _decode(self, parts: list["DecoderInput"]) -> torch.Tensor:
        """A decode step: each row, be it a token or one of its drafts, is a query of its own."""
        assert self._step is not None
        lengths = [part.cache.length + n for part in parts for n in range(1, len(part.tokens) + 1)]
        tables = [part.cache.pages for part in parts for _ in part.tokens]
        recorded = self.graphs.bucket(len(lengths)) if self.graphs is not None else None
        spare = (recorded or len(lengths)) - len(lengths)
        self._step.prepare(lengths + [1] * spare, tables + [[SCRATCH_PAGE]] * spare)
        width = max(map(len, tables)) if recorded is None else self.width  # narrow tables are split better
        inputs = step_inputs([(part.cache, part.tokens) for part in parts], width)
        logits = self.graphs.run(inputs) if self.graphs is not None else None
        return self._step(inputs) if logits is None else logits.clone()  # the next replay writes there

    def _forward(self, parts: list["DecoderInput"]) -> torch.Tensor:
        """On a processor there are never fewer rows than products need for a row's results to be the same in any company."""
        device, layers, attention = self.device, self.layers, self._attention
        assert attention is not None, "there are caches only once a pool is open"
        tokens = [token for part in parts for token in part.tokens]
        least = self._least if isinstance(attention, ExactAttention) else 0
        spare = [0] * (least - len(tokens))
        hidden = layers.embed(torch.tensor(tokens + spare, device=device))
        positions: list[int] = []
        slots: list[int] = []
        last: list[int] = []
        for part in parts:
            for rows, features in part.features:
                hidden[rows + len(positions)] = features.to(hidden)
            positions += range(part.cache.length, part.cache.length + len(part.tokens))
            slots += slots_of(part.cache, len(part.tokens))
            last += range(len(positions) - part.wanted, len(positions))
        tables = layers.tables(hidden, torch.tensor(positions + spare, device=device))
        layout: Any = attention.layout(
            [(part.cache, len(part.tokens)) for part in parts], torch.tensor(slots + spare, device=device)
        )
        for index in range(len(layers)):
            if index and layers.devices[index] != layers.devices[index - 1]:
                hidden, *tables = (move(each, layers.devices[index]) for each in (hidden, *tables))  # type: ignore[assignment]
            queries, keys, values = layers.open(index, hidden, tuple(tables))
            attended = attention.attend(queries, keys, values, layout, index, layers.scale(index))
            hidden = layers.close(index, hidden, attended)
        if len(last) < len(hidden):
            hidden = hidden[torch.tensor(last + [0] * (least - len(last)), device=hidden.device)]
        return layers.logits(move(hidden, layers.devices[-1]))[: len(last)]

    def _pack_head(self, model: Any) -> None:
        """Pack the head. If it is also the embedding, which has to stay as it is, that makes a copy.

        Measured for the 3B, whose copy takes 768 MiB: a packed head takes half the time, which is a tenth of a token's in
        bfloat16 and a fifth in nf4.
        """
        packed = packed_like(model.lm_head)
        if packed is None:
            return
        weight, self._head = model.lm_head.weight, packed
        if weight.data_ptr() == self._embed.weight.data_ptr():
            self.copied_bytes = weight.nbytes
        else:
            model.lm_head = packed  # so that the original is not kept


@dataclass(slots=True)
class DecoderInput:
    """The new tokens of one sequence in a forward.

    `features` are pairs of row numbers (n,), counted from the part's first, and the image features (n, hidden) that stand there
    in place of token embeddings.
    """

    cache: KVCache
    tokens: list[int]
    features: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    wanted: int = 1
    """Of how many last rows the logits are asked."""

    @property
    def decodes(self) -> bool:
        """Whether it is part of a decode step: one token, or one with its drafts."""
        return self.wanted == len(self.tokens) and not self.features
