"""Writes a large GGUF of random weights in seconds, for tests of loading and speed: `python random_gguf.py OUT SHAPE QUANT`.

SHAPE is a card's key (`magistral-small-2509`) or `small`; QUANT is the name of a file type, as Q2_K, Q4_0, Q4_K_M or BF16. With
`--sparse` the weights are zeros that take no space on the disk. The vocabulary is the public one, as in the benchmarks.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import gguf
import numpy as np

from magistral_ui.models.cards import CARDS
from magistral_ui.models.shape import ModelShape
from tests.servers.public_vocabulary import Writer, add_vocabulary

SMALL = ModelShape(131_072, 1_024, 4_096, 12, 16, 4, 64, tied=False, context_length=131_072)
CHUNK = 2**22
"""Bytes of random blocks, which are repeated through all tensors."""
SCALE = 0.002
"""Of the weights in a block: outputs neither overflow nor vanish."""
SCALES_AT = {
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_0": (0,),
    "Q4_K": (0, 2),
    "Q5_0": (0,),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "Q8_0": (0,),
}
"""Where in a block of each type its 16-bit scales are."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("shape")
    parser.add_argument("quant")
    parser.add_argument("--sparse", action="store_true")
    asked = parser.parse_args()
    shape = SMALL if asked.shape == "small" else CARDS[asked.shape].shape
    assert shape is not None, "the card has no shape"
    write(asked.out, shape.without_vision(), asked.quant.upper(), sparse=asked.sparse)


def write(path: Path, shape: ModelShape, quant: str, *, sparse: bool = False) -> None:
    """Write the file; the bytes are the same at each call."""
    main_type = gguf.GGMLQuantizationType[quant.removesuffix("_S").removesuffix("_M")]
    tensors = list(_tensors(shape, main_type, mixed=quant.endswith("_M")))
    out = Writer(str(path), "llama")
    add_metadata(out, shape, quant)
    add_vocabulary(out, shape.vocabulary)
    for name, size, kind in tensors:
        out.add_tensor_info(name, size, np.dtype(np.float32), _bytes(size, kind), raw_dtype=kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_ti_data_to_file()
    assert out.fout is not None
    file: Any = out.fout[0]
    out.write_padding(file, file.tell())
    blocks = {kind: _blocks(kind) for kind in {kind for *_, kind in tensors}}
    for _, size, kind in tensors:
        _write_tensor(file, blocks[kind], _bytes(size, kind), sparse=sparse and kind != gguf.GGMLQuantizationType.F32)
        out.write_padding(file, _bytes(size, kind))
    file.truncate(file.tell())
    out.close()


def _tensors(
    shape: ModelShape, main_type: gguf.GGMLQuantizationType, *, mixed: bool
) -> Iterator[tuple[str, tuple[int, ...], gguf.GGMLQuantizationType]]:
    """Name, size and type of each, as llama.cpp's own quantization chooses them, roughly."""
    quantized = main_type.name in SCALES_AT
    better = gguf.GGMLQuantizationType.Q6_K if mixed else main_type
    single = gguf.GGMLQuantizationType.F32
    yield "token_embd.weight", (shape.vocabulary, shape.hidden), main_type
    yield "output_norm.weight", (shape.hidden,), single
    if not shape.tied:
        head = gguf.GGMLQuantizationType.Q6_K if quantized and main_type.name.endswith("_K") else main_type
        yield "output.weight", (shape.vocabulary, shape.hidden), head
    names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    for layer in range(shape.layers):
        for name, size in zip(names, shape.linears, strict=True):
            exact = name in ("attn_v", "ffn_down") and layer % 2 == 0
            yield f"blk.{layer}.{name}.weight", size, better if exact else main_type
        for name in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{name}.weight", (shape.hidden,), single


def add_metadata(out: gguf.GGUFWriter, shape: ModelShape, quant: str) -> None:
    out.add_name("Random weights")
    add_shape(out, shape)
    out.add_file_type(gguf.LlamaFileType[f"MOSTLY_{quant}"])


def add_shape(out: gguf.GGUFWriter, shape: ModelShape) -> None:
    out.add_block_count(shape.layers)
    out.add_context_length(shape.context_length)
    out.add_embedding_length(shape.hidden)
    out.add_feed_forward_length(shape.intermediate)
    out.add_head_count(shape.heads)
    out.add_head_count_kv(shape.kv_heads)
    out.add_rope_freq_base(1e9)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_key_length(shape.head_dim)
    out.add_value_length(shape.head_dim)
    out.add_rope_dimension_count(shape.head_dim)
    out.add_vocab_size(shape.vocabulary)


def _bytes(size: tuple[int, ...], kind: gguf.GGMLQuantizationType) -> int:
    weights, block = gguf.GGML_QUANT_SIZES[kind]
    return int(np.prod(size, dtype=np.int64)) // weights * block


def _blocks(kind: gguf.GGMLQuantizationType) -> bytes:
    """About CHUNK bytes of whole random blocks with scales that make sense."""
    random = np.random.default_rng(0)
    if kind.name == "F32":
        return np.ones(CHUNK // 4, np.float32).tobytes()
    if kind.name == "F16":
        return random.normal(0, 0.02, CHUNK // 2).astype(np.float16).tobytes()
    if kind.name == "BF16":
        single = random.normal(0, 0.02, CHUNK // 2).astype(np.float32)
        return (single.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    _, block = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (CHUNK // block, block), dtype=np.uint8)
    wide = SCALE / 32 if kind.name.endswith("_K") or kind.name == "Q8_0" else SCALE
    for place in SCALES_AT[kind.name]:
        blocks[:, place : place + 2] = np.frombuffer(np.float16(wide).tobytes(), np.uint8)
    return blocks.tobytes()


def _write_tensor(file: BinaryIO, blocks: bytes, count: int, *, sparse: bool) -> None:
    if sparse:
        file.seek(count, 1)
        return
    while count > 0:
        count -= file.write(blocks[:count])


if __name__ == "__main__":
    main()
