"""Makes a tiny model with random weights and all 131,072 tokens of Mistral's vocabulary, as GGUF and as tekken.json."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from magistral_ui.models.folder import DEMO_FOLDER
from tests.servers.gguf_files import write_quick_mmproj
from tests.servers.public_vocabulary import PUBLIC, SPECIAL, Writer, add_vocabulary, special_names

TOKENS, HIDDEN, HEAD = 131_072, 192, 32
MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
"""All of HIDDEN × HIDDEN, which is the size of the demo model's projector too."""


def write_full_vocabulary(folder: Path) -> None:
    """`tekken.json` and `model.gguf`, with a quick `mmproj.gguf` and an empty chat template."""
    demo = json.loads((DEMO_FOLDER / "tekken.json").read_text(encoding="utf-8"))
    full: dict[str, Any] = json.loads(PUBLIC.read_text(encoding="utf-8"))
    names = special_names()
    full["special_tokens"] = [{"rank": n, "token_str": name, "is_control": True} for n, name in enumerate(names)]
    full["config"] |= {"version": demo["config"]["version"], "default_vocab_size": TOKENS}
    full["config"]["default_num_special_tokens"] = SPECIAL
    full["image"] = {**demo["image"], "max_image_size": 1540}
    (folder / "tekken.json").write_text(json.dumps(full), encoding="utf-8")
    (folder / "chat_template.jinja").write_text("", encoding="utf-8")
    write_quick_mmproj(folder / "mmproj.gguf")
    _write_model(folder / "model.gguf")


def _write_model(path: Path) -> None:
    out = Writer(str(path), "llama")
    out.add_block_count(1)
    out.add_context_length(8192)
    out.add_embedding_length(HIDDEN)
    out.add_feed_forward_length(HIDDEN)
    out.add_head_count(HIDDEN // HEAD)
    out.add_head_count_kv(HIDDEN // HEAD)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_dimension_count(HEAD)
    out.add_vocab_size(TOKENS)
    add_vocabulary(out, TOKENS)
    draw, q8_0 = np.random.default_rng(0), gguf.GGMLQuantizationType.Q8_0
    embedding = draw.standard_normal((TOKENS, HIDDEN), np.float32) / 10
    out.add_tensor("token_embd.weight", gguf.quants.quantize(embedding, q8_0), raw_dtype=q8_0)
    out.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
    for name in MATRICES:
        out.add_tensor(f"blk.0.{name}.weight", draw.standard_normal((HIDDEN, HIDDEN), np.float32) / 10)
    for name in ("attn_norm", "ffn_norm"):
        out.add_tensor(f"blk.0.{name}.weight", np.ones(HIDDEN, np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
