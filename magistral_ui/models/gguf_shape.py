"""The shape of a GGUF file's model and the bytes of its parts, from its header; it checks that they belong together."""

import math
import re
from collections import Counter
from collections.abc import Set
from dataclasses import replace
from typing import Any

from magistral_ui.models.gguf_header import TOKENS, GGUFHeader, GGUFTensor
from magistral_ui.models.gguf_plan import QUANTIZATIONS, GGUFWeights, estimated_weights
from magistral_ui.models.gguf_types import FILE_TYPES, GUESSED, TYPES
from magistral_ui.models.shape import ModelShape, checked_size

LAYER_PARTS = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")
FUSED_PARTS = ("attn_q", "attn_k", "attn_v")
"""May be one tensor, `attn_qkv`."""
MAX_LAYERS = 1_000
ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
"""The kinds that llama.cpp knows; any other ends its process."""
LIKE_UNKNOWN = "Q8_0"
"""As what a quantization counts whose size is not known: rather too large."""
_LAYER = re.compile(r"blk\.(\d{1,4})\.")


def shape_in(header: GGUFHeader, architecture: str, *, complete: bool) -> ModelShape:
    """The decoder's shape; LookupError or ValueError if the header does not say it. `complete`: with all tensors."""

    def size(key: str) -> Any:
        return header.metadata[f"{architecture}.{key}"]

    hidden, heads = checked_size(size("embedding_length")), checked_size(size("attention.head_count"))
    usual = hidden // heads
    lengths = {
        checked_size(header.metadata.get(f"{architecture}.attention.{part}_length", usual)) for part in ("key", "value")
    }
    if len(lengths) != 1:
        raise ValueError(f"keys and values of different lengths: {lengths}")
    layers = checked_size(size("block_count"))
    if layers > MAX_LAYERS:
        raise ValueError(f"{layers} layers")
    _check_constants(header, architecture)
    return ModelShape(
        vocabulary=len(header.metadata[TOKENS]),
        hidden=hidden,
        intermediate=checked_size(size("feed_forward_length")),
        layers=layers,
        heads=heads,
        kv_heads=checked_size(header.metadata.get(f"{architecture}.attention.head_count_kv", heads)),
        head_dim=lengths.pop(),
        tied=complete and all(tensor.name != "output.weight" for tensor in header.tensors),
        context_length=checked_size(size("context_length")),
    )


def _check_constants(header: GGUFHeader, architecture: str) -> None:
    """ValueError for what llama.cpp would abort at, or write nonsense with."""
    told = header.metadata
    epsilon = told[f"{architecture}.attention.layer_norm_rms_epsilon"]
    base = told.get(f"{architecture}.rope.freq_base", 10_000.0)
    if not isinstance(epsilon, float) or not 0 <= epsilon < 1:
        raise ValueError(f"epsilon {epsilon}")
    if not isinstance(base, float) or not 0 < base < math.inf:
        raise ValueError(f"rotation base {base}")
    if told.get(f"{architecture}.rope.scaling.type", "none") not in ROPE_SCALINGS:
        raise ValueError(f"rotation of kind {told[f'{architecture}.rope.scaling.type']}")


def quantization_of(header: GGUFHeader) -> str:
    """By the file's own word, or else by the type of most of its bytes."""
    said = header.metadata.get("general.file_type")
    if isinstance(said, int) and said & ~GUESSED in FILE_TYPES:
        return FILE_TYPES[said & ~GUESSED]
    bytes_of: Counter[int] = Counter()
    for tensor in header.tensors:
        bytes_of[tensor.type] += tensor.bytes
    return TYPES[bytes_of.most_common(1)[0][0]][0] if bytes_of else LIKE_UNKNOWN


def weights_in(header: GGUFHeader, shape: ModelShape, quantization: str, *, complete: bool) -> GGUFWeights:
    """The bytes of the model's parts; ValueError if tensors are missing or don't have the shapes that the model needs."""
    if not header.tensors:
        likely = quantization if quantization in QUANTIZATIONS else LIKE_UNKNOWN
        return replace(estimated_weights(shape, likely, mmproj=False), quantization=quantization)
    layers: Counter[int] = Counter()
    embedding = head = 0
    names = set()
    for tensor in header.tensors:
        names.add(tensor.name)
        _check_tensor(tensor, shape)
        layer = _LAYER.match(tensor.name)
        if layer:
            layers[int(layer[1])] += tensor.bytes
        elif tensor.name.startswith("output"):
            head += tensor.bytes
        else:
            embedding += tensor.bytes
    if any(layer >= shape.layers for layer in layers):
        raise ValueError("more layers than there should be")
    if complete:
        _check_complete(names, shape)
    largest = max(layers.values(), default=0)  # stands for layers that are in other files, or only in part in this one
    return GGUFWeights(
        quantization,
        tuple(layers[n] if 2 * layers[n] > largest else largest for n in range(shape.layers)),
        embedding,
        head + (embedding if "output.weight" not in names else 0),
        tied=shape.tied,
    )


def _check_tensor(tensor: GGUFTensor, shape: ModelShape) -> None:
    inner, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    expected = {
        "token_embd": (shape.hidden, shape.vocabulary),
        "output": (shape.hidden, shape.vocabulary),
        "output_norm": (shape.hidden,),
        "attn_norm": (shape.hidden,),
        "ffn_norm": (shape.hidden,),
        "attn_q": (shape.hidden, inner),
        "attn_k": (shape.hidden, keys),
        "attn_v": (shape.hidden, keys),
        "attn_output": (inner, shape.hidden),
        "ffn_gate": (shape.hidden, shape.intermediate),
        "ffn_up": (shape.hidden, shape.intermediate),
        "ffn_down": (shape.intermediate, shape.hidden),
    }
    part = _LAYER.sub("", tensor.name).removesuffix(".weight")
    if tensor.shape != expected.get(part, tensor.shape):
        raise ValueError(f"{tensor.name} is {tensor.shape}")


def _check_complete(names: Set[str], shape: ModelShape) -> None:
    for part in ("token_embd", "output_norm"):
        if f"{part}.weight" not in names:
            raise LookupError(part)
    for layer in range(shape.layers):
        fused = f"blk.{layer}.attn_qkv.weight" in names
        for part in LAYER_PARTS:
            if f"blk.{layer}.{part}.weight" not in names and not (fused and part in FUSED_PARTS):
                raise LookupError(f"blk.{layer}.{part}")
