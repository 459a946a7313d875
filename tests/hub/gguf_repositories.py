"""Repositories of GGUF files: headers of a tiny model as llama.cpp has them, and noise of the asked size behind."""

from pathlib import Path

import gguf
import numpy as np

from magistral_ui.models.gguf_file import GGUFFacts
from magistral_ui.models.memory import MemoryPlan
from tests.hub.conftest import noise

HIDDEN, HEADS = 32, 2
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
VISIBLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
VOCABULARY = len(SPECIAL) + 256
SMALLEST = 120_000
"""Bytes of a model's file that is all header and tensors."""
MAX_NOISE = 1_000_000
"""Bytes behind which a file is empty: to make more would take longer than to download it."""


def make_model(
    path: Path, size: int = SMALLEST, *, architecture: str = "llama", header: int = 0, part: tuple[int, int] = (0, 1)
) -> Path:
    """A model's file of `size` bytes, whose header has at least `header` bytes; or one `part` of several."""
    path.parent.mkdir(parents=True, exist_ok=True)
    out = gguf.GGUFWriter(str(path), architecture)
    out.add_name("Tiny")
    out.add_block_count(1)
    out.add_context_length(131_072)
    out.add_embedding_length(HIDDEN)
    out.add_feed_forward_length(2 * HIDDEN)
    out.add_head_count(HEADS)
    out.add_head_count_kv(1)
    out.add_key_length(16)
    out.add_value_length(16)
    out.add_rope_dimension_count(16)
    out.add_rope_freq_base(1e9)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(VOCABULARY)
    out.add_file_type(gguf.LlamaFileType.ALL_F32)
    if part[1] > 1:
        out.add_uint16("split.no", part[0])
        out.add_uint16("split.count", part[1])
        out.add_int32("split.tensors.count", len(tensors()))
    if part[0] == 0:
        _add_vocabulary(out)
    if header:
        out.add_array("tokenizer.ggml.merges", ["x" * 100] * (header // 108 + 1))
    for name, shape in tensors()[part[0] :: part[1]]:
        out.add_tensor(name, np.zeros(shape[::-1], np.float32))
    return _fill(out, path, size)


def make_mmproj(path: Path, size: int, width: int = HIDDEN, architecture: str = "clip") -> Path:
    """A projector's file of `size` bytes, for a decoder of that `width`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    out = gguf.GGUFWriter(str(path), architecture)
    out.add_type(gguf.GGUFType.MMPROJ)
    out.add_clip_projector_type("pixtral")
    out.add_vision_projection_dim(width)
    out.add_tensor("mm.2.weight", np.zeros((width, 4), np.float32))
    return _fill(out, path, size)


def tensors() -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a decoder's tensors, the length of a row first."""
    vectors = [(f"blk.0.{name}.weight", (HIDDEN,)) for name in ("attn_norm", "ffn_norm")]
    square = (HIDDEN, HIDDEN)
    layer = {"attn_q": square, "attn_output": square, "attn_k": (HIDDEN, 16), "attn_v": (HIDDEN, 16)}
    layer |= {"ffn_up": (HIDDEN, 2 * HIDDEN), "ffn_gate": (HIDDEN, 2 * HIDDEN), "ffn_down": (2 * HIDDEN, HIDDEN)}
    tables = [("token_embd.weight", (HIDDEN, VOCABULARY)), ("output.weight", (HIDDEN, VOCABULARY))]
    return [*tables, ("output_norm.weight", (HIDDEN,)), *vectors, *((f"blk.0.{n}.weight", s) for n, s in layer.items())]


def plan_of(facts: GGUFFacts, context: int) -> MemoryPlan:
    """A plan of which only the context is read."""
    return MemoryPlan(facts.quantization, 0, 0, 0, 1, context, context, 1, (), gpu_layers=0)


def listed(name: str, size: int) -> dict[str, object]:
    """An entry of a list of files, as the Hub has it."""
    sha = "a" * 64
    return {"rfilename": name, "size": size, "blobId": sha, "lfs": {"size": size, "sha256": sha, "pointerSize": 134}}


def _add_vocabulary(out: gguf.GGUFWriter) -> None:
    others = iter(range(256, 512))
    tokens = [*SPECIAL, *(chr(byte if byte in VISIBLE else next(others)) for byte in range(256))]
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("tekken")
    out.add_token_list(tokens)
    out.add_token_types([control if n < len(SPECIAL) else normal for n in range(len(tokens))])
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)


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
