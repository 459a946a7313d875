"""Writes a GGUF file of a few layers of a model's shape, to be timed: its weights are a hole in the file, and read as zeros."""

from collections.abc import Iterator
from pathlib import Path

from magistral_ui.engines.gguf.writer import CONTROL, NORMAL, Value, Zeros, write_gguf
from magistral_ui.models.shape import ModelShape

QUANTIZATION = "Q4_K_M"
"""The usual one. The others follow by their bytes, which is exact where memory is the limit; a processor that is slow at
calculating writes more exact ones faster than that."""
USUAL, EXACT = "Q4_K", "Q6_K"
"""The types of its matrices; in half of the layers, values and the down projection are more exact."""
MIN_BYTES = 2**29
"""Bytes of the layers, so that no processor's cache holds them from one token to the next."""
VOCABULARY = 256
"""Tokens, few enough that the head takes no time."""
CONTEXT_LENGTH = 4_096


def write_timed_file(path: Path, shape: ModelShape) -> int:
    """Write the file, and return the bytes of its layers. An even number of them: half have more exact matrices."""
    pair = sum(tensor.nbytes for layer in (0, 1) for _, tensor in _layer(shape, layer))
    layers = 2 * -(-MIN_BYTES // pair)
    write_gguf(path, _metadata(shape, layers), dict(_tensors(shape, layers)))
    return pair * layers // 2


def _tensors(shape: ModelShape, layers: int) -> Iterator[tuple[str, Zeros]]:
    yield "token_embd.weight", Zeros((shape.hidden, VOCABULARY), "F16")
    for layer in range(layers):
        yield from _layer(shape, layer)
    yield "output_norm.weight", Zeros((shape.hidden,), "F32")
    yield "output.weight", Zeros((shape.hidden, VOCABULARY), "F16")


def _layer(shape: ModelShape, layer: int) -> Iterator[tuple[str, Zeros]]:
    mixed = USUAL if layer % 2 else EXACT  # as llama.cpp's quantizer mixes them
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    for name, columns, rows, type in (
        ("attn_q", shape.hidden, queries, USUAL),
        ("attn_k", shape.hidden, keys, USUAL),
        ("attn_v", shape.hidden, keys, mixed),
        ("attn_output", queries, shape.hidden, USUAL),
        ("ffn_gate", shape.hidden, shape.intermediate, USUAL),
        ("ffn_up", shape.hidden, shape.intermediate, USUAL),
        ("ffn_down", shape.intermediate, shape.hidden, mixed),
    ):
        yield f"blk.{layer}.{name}.weight", Zeros((columns, rows), type)
    for name in ("attn_norm", "ffn_norm"):
        yield f"blk.{layer}.{name}.weight", Zeros((shape.hidden,), "F32")


def _metadata(shape: ModelShape, layers: int) -> dict[str, Value]:
    marks = ["<unk>", "<s>", "</s>"]
    texts = [f"t{n}" for n in range(VOCABULARY - len(marks))]
    return {
        "general.architecture": "llama",
        "llama.block_count": layers,
        "llama.context_length": CONTEXT_LENGTH,
        "llama.embedding_length": shape.hidden,
        "llama.feed_forward_length": shape.intermediate,
        "llama.attention.head_count": shape.heads,
        "llama.attention.head_count_kv": shape.kv_heads,
        "llama.attention.key_length": shape.head_dim,
        "llama.attention.value_length": shape.head_dim,
        "llama.rope.dimension_count": shape.head_dim,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "tekken",
        "tokenizer.ggml.tokens": [*marks, *texts],
        "tokenizer.ggml.token_type": [*[CONTROL] * len(marks), *[NORMAL] * len(texts)],
        "tokenizer.ggml.merges": ["t 1"],
        "tokenizer.ggml.bos_token_id": marks.index("<s>"),
        "tokenizer.ggml.eos_token_id": marks.index("</s>"),
    }
