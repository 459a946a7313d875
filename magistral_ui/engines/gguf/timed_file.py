"""Writes a GGUF file of a few layers of a model's shape, to be timed: its weights are a hole in the file, and read as zeros."""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from magistral_ui.models.shape import ModelShape

MIN_BYTES = 2**29
"""Bytes of the layers, so that no processor's cache holds them from one token to the next."""
VOCABULARY = 256
"""Tokens, few enough that the head takes no time."""
ALIGNMENT = 32
TYPES: Mapping[str, tuple[int, int, int]] = {
    "F32": (0, 1, 4),
    "F16": (1, 1, 2),
    "BF16": (30, 1, 2),
    "Q4_0": (2, 32, 18),
    "Q8_0": (8, 32, 34),
    "Q2_K": (10, 256, 84),
    "Q3_K": (11, 256, 110),
    "Q4_K": (12, 256, 144),
    "Q5_K": (13, 256, 176),
    "Q6_K": (14, 256, 210),
}
"""ggml's types: number, weights in a block, bytes of a block."""
STRING, UINT32, FLOAT32, ARRAY, INT32 = 8, 4, 6, 9, 5
"""GGUF's types of values."""


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    """Rows last, as in the file."""
    type: str

    @property
    def bytes(self) -> int:
        count, (_, block, size) = 1, TYPES[self.type]
        for each in self.shape:
            count *= each
        return -(-(count // block * size) // ALIGNMENT) * ALIGNMENT


def write_timed_file(path: Path, shape: ModelShape, quantization: str) -> int:
    """Write the file, and return the bytes of its layers. An even number of them: half have more exact matrices in some types."""
    pair = sum(tensor.bytes for layer in (0, 1) for tensor in _layer(shape, quantization, layer))
    layers = 2 * -(-MIN_BYTES // pair)
    tensors = list(_tensors(shape, quantization, layers))
    values = _values(shape, layers)
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(values))
    parts, offset = [head, *(_string(key) + value for key, value in values.items())], 0
    for tensor in tensors:
        parts.append(_string(tensor.name) + struct.pack("<I", len(tensor.shape)))
        parts.append(struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape))
        parts.append(struct.pack("<IQ", TYPES[tensor.type][0], offset))
        offset += tensor.bytes
    written = b"".join(parts)
    start = -(-len(written) // ALIGNMENT) * ALIGNMENT
    with path.open("wb") as file:
        file.write(written)
        file.truncate(start + offset)
    return pair * layers // 2


def _tensors(shape: ModelShape, quantization: str, layers: int) -> Iterator[_Tensor]:
    yield _Tensor("token_embd.weight", (shape.hidden, VOCABULARY), "F16")
    for layer in range(layers):
        yield from _layer(shape, quantization, layer)
    yield _Tensor("output_norm.weight", (shape.hidden,), "F32")
    yield _Tensor("output.weight", (shape.hidden, VOCABULARY), "F16")


def _layer(shape: ModelShape, quantization: str, layer: int) -> Iterator[_Tensor]:
    usual, value, down, output = _types(quantization, layer)
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    for name, columns, rows, type in (
        ("attn_q", shape.hidden, queries, usual),
        ("attn_k", shape.hidden, keys, usual),
        ("attn_v", shape.hidden, keys, value),
        ("attn_output", queries, shape.hidden, output),
        ("ffn_gate", shape.hidden, shape.intermediate, usual),
        ("ffn_up", shape.hidden, shape.intermediate, usual),
        ("ffn_down", shape.intermediate, shape.hidden, down),
    ):
        yield _Tensor(f"blk.{layer}.{name}.weight", (columns, rows), type)
    for name in ("attn_norm", "ffn_norm"):
        yield _Tensor(f"blk.{layer}.{name}.weight", (shape.hidden,), "F32")


def _types(quantization: str, layer: int) -> tuple[str, str, str, str]:
    """The types of most matrices, of values, down projection and output projection, as llama.cpp's quantizer mixes them."""
    usual = quantization if quantization in TYPES else quantization.rsplit("_", 1)[0]
    if quantization in ("Q4_K_M", "Q5_K_M") and layer % 2 == 0:
        return usual, "Q6_K", "Q6_K", usual
    if quantization == "Q3_K_M":
        return usual, "Q4_K", "Q4_K", "Q4_K"
    if quantization == "Q3_K_L":
        return usual, "Q5_K", "Q5_K", "Q5_K"
    if quantization == "Q2_K":
        return usual, "Q4_K", "Q3_K", "Q3_K"
    return usual, usual, usual, usual


def _values(shape: ModelShape, layers: int) -> dict[str, bytes]:
    def number(value: int) -> bytes:
        return struct.pack("<II", UINT32, value)

    marks = ("<unk>", "<s>", "</s>")
    tokens = [*marks, *(f"t{n}" for n in range(VOCABULARY - len(marks)))]
    kinds = [3] * len(marks) + [1] * (VOCABULARY - len(marks))
    return {
        "general.architecture": struct.pack("<I", STRING) + _string("llama"),
        "llama.block_count": number(layers),
        "llama.context_length": number(4_096),
        "llama.embedding_length": number(shape.hidden),
        "llama.feed_forward_length": number(shape.intermediate),
        "llama.attention.head_count": number(shape.heads),
        "llama.attention.head_count_kv": number(shape.kv_heads),
        "llama.attention.key_length": number(shape.head_dim),
        "llama.attention.value_length": number(shape.head_dim),
        "llama.rope.dimension_count": number(shape.head_dim),
        "llama.attention.layer_norm_rms_epsilon": struct.pack("<If", FLOAT32, 1e-5),
        "tokenizer.ggml.model": struct.pack("<I", STRING) + _string("gpt2"),
        "tokenizer.ggml.pre": struct.pack("<I", STRING) + _string("tekken"),
        "tokenizer.ggml.tokens": struct.pack("<IIQ", ARRAY, STRING, len(tokens)) + b"".join(map(_string, tokens)),
        "tokenizer.ggml.token_type": struct.pack(f"<IIQ{len(kinds)}i", ARRAY, INT32, len(kinds), *kinds),
        "tokenizer.ggml.merges": struct.pack("<IIQ", ARRAY, STRING, 1) + _string("t 1"),
        "tokenizer.ggml.bos_token_id": number(1),
        "tokenizer.ggml.eos_token_id": number(2),
    }


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded
