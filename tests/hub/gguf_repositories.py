"""Repositories of GGUF files: headers of a tiny model as llama.cpp has them, then noise up to the requested size."""

from math import prod
from pathlib import Path

import gguf
import numpy as np

from magistral_ui.models.gguf_file import GGUFFacts
from magistral_ui.models.gguf_header import read_header
from magistral_ui.models.gguf_vocabulary import BYTES
from magistral_ui.models.memory import MemoryPlan
from magistral_ui.models.shape import ModelShape
from tests.hub.conftest import noise
from tests.servers.random_gguf import add_shape

HIDDEN = 32
SPECIAL = [
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[THINK]",
    "[/THINK]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[IMG]",
]
TINY = ModelShape(len(SPECIAL) + 256, HIDDEN, 2 * HIDDEN, 1, 2, 1, 16, tied=False, context_length=131_072)
SMALLEST = 120_000
"""Bytes of a model's file that is all header and tensors."""
MAX_NOISE = 1_000_000
"""Bytes after which a file is empty: to make more would take longer than to download it."""


def make_model(
    path: Path, size: int = SMALLEST, *, architecture: str = "llama", header: int = 0, part: tuple[int, int] = (0, 1)
) -> Path:
    """A model's file of `size` bytes, whose header has at least `header` bytes; or one `part` of several."""
    out = _begin(path, TINY, architecture)
    if part[1] > 1:
        out.add_uint16("split.no", part[0])
        out.add_uint16("split.count", part[1])
        out.add_int32("split.tensors.count", len(tensors(TINY)))
    if part[0] == 0:
        _add_vocabulary(out, TINY.vocabulary)
    if header:
        _add_filler(out, header)
    for name, shape in tensors(TINY)[part[0] :: part[1]]:
        out.add_tensor(name, np.zeros(shape[::-1], np.float32))
    return _fill(out, path, size)


def make_header(path: Path, shape: ModelShape, kind: gguf.GGMLQuantizationType) -> int:
    """The header of a model of that `shape` with matrices of one `kind`, and nothing behind; the bytes that the file would have.

    It is as long as Magistral's.
    """
    out = _begin(path, shape, "llama")
    _add_vocabulary(out, shape.vocabulary)
    _add_filler(out, 5_000_000)
    for name, dimensions in tensors(shape):
        type = kind if len(dimensions) > 1 else gguf.GGMLQuantizationType.F32
        block, size = gguf.GGML_QUANT_SIZES[type]
        out.add_tensor_info(name, dimensions[::-1], np.dtype(np.float32), prod(dimensions) // block * size, type)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_ti_data_to_file()
    out.close()
    with path.open("rb") as opened:
        return read_header(opened).data_end


def make_mmproj(path: Path, size: int, width: int = HIDDEN, architecture: str = "clip") -> Path:
    """A projector's file of `size` bytes, for a decoder of that `width`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    out = gguf.GGUFWriter(str(path), architecture)
    out.add_type(gguf.GGUFType.MMPROJ)
    out.add_clip_projector_type("pixtral")
    out.add_vision_projection_dim(width)
    out.add_tensor("mm.2.weight", np.zeros((width, 4), np.float32))
    return _fill(out, path, size)


def tensors(shape: ModelShape) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a decoder's tensors, the length of a row first."""
    hidden, wide = shape.hidden, shape.intermediate
    inner, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer: dict[str, tuple[int, ...]] = {"attn_norm": (hidden,), "ffn_norm": (hidden,)}
    layer |= {
        "attn_q": (hidden, inner),
        "attn_k": (hidden, keys),
        "attn_v": (hidden, keys),
        "attn_output": (inner, hidden),
    }
    layer |= {"ffn_up": (hidden, wide), "ffn_gate": (hidden, wide), "ffn_down": (wide, hidden)}
    found: dict[str, tuple[int, ...]] = {"token_embd": (hidden, shape.vocabulary), "output": (hidden, shape.vocabulary)}
    found["output_norm"] = (hidden,)
    found |= {f"blk.{n}.{name}": dimensions for n in range(shape.layers) for name, dimensions in layer.items()}
    return [(f"{name}.weight", dimensions) for name, dimensions in found.items()]


def plan_of(facts: GGUFFacts, context: int) -> MemoryPlan:
    """A plan of which only the context is read."""
    return MemoryPlan(facts.quantization, 0, 0, 0, 1, context, context, 1, (), gpu_layers=0)


def listed(name: str, size: int) -> dict[str, object]:
    """An entry of a list of files, as the Hub has it."""
    sha = "a" * 64
    return {"rfilename": name, "size": size, "blobId": sha, "lfs": {"size": size, "sha256": sha, "pointerSize": 134}}


def _begin(path: Path, shape: ModelShape, architecture: str) -> gguf.GGUFWriter:
    path.parent.mkdir(parents=True, exist_ok=True)
    out = gguf.GGUFWriter(str(path), architecture)
    out.add_name("Tiny")
    add_shape(out, shape)
    out.add_file_type(gguf.LlamaFileType.ALL_F32)
    return out


def _add_vocabulary(out: gguf.GGUFWriter, size: int) -> None:
    tokens = [*SPECIAL, *BYTES]
    tokens += [f"token{n}" for n in range(size - len(tokens))]
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("tekken")
    out.add_token_list(tokens)
    out.add_token_types([control if n < len(SPECIAL) else normal for n in range(size)])
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)


def _add_filler(out: gguf.GGUFWriter, size: int) -> None:
    """What makes a header long: an array that nobody reads."""
    out.add_array("tokenizer.ggml.merges", ["x" * 100] * (size // 108 + 1))


def _fill(out: gguf.GGUFWriter, path: Path, size: int) -> Path:
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    held = path.stat().st_size
    assert held <= size, held
    with path.open("ab") as opened:
        opened.write(noise(len(path.name), min(size - held, MAX_NOISE)))
        opened.truncate(size)
    return path
