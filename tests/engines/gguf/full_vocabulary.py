"""Makes a tiny model with random weights and all 131,072 tokens of Mistral's vocabulary, as GGUF and as tekken.json."""

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import mistral_common
import numpy as np

from magistral_ui.models.folder import DEMO_FOLDER
from magistral_ui.models.gguf_vocabulary import merges_of, spelled

TOKENS, SPECIAL, HIDDEN, HEAD = 131_072, 1_000, 192, 32
MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
"""All of HIDDEN × HIDDEN, which is the size of the demo model's projector too."""


def write_full_vocabulary(folder: Path, mmproj: Path) -> None:
    """`tekken.json` and `model.gguf`, beside the demo model's `mmproj.gguf` and an empty chat template."""
    demo = json.loads((DEMO_FOLDER / "tekken.json").read_text(encoding="utf-8"))
    public = Path(mistral_common.__file__).parent / "data" / "tekken_240911.json"
    full: dict[str, Any] = json.loads(public.read_text(encoding="utf-8"))
    names = [each["token_str"] for each in demo["special_tokens"]]
    names += [f"<SPECIAL_{n}>" for n in range(len(names), SPECIAL)]
    full["special_tokens"] = [{"rank": n, "token_str": name, "is_control": True} for n, name in enumerate(names)]
    full["config"] |= {"version": demo["config"]["version"], "default_vocab_size": TOKENS}
    full["config"]["default_num_special_tokens"] = SPECIAL
    full["image"] = {**demo["image"], "max_image_size": 1540}
    (folder / "tekken.json").write_text(json.dumps(full), encoding="utf-8")
    (folder / "chat_template.jinja").write_text("", encoding="utf-8")
    shutil.copy(mmproj, folder / "mmproj.gguf")
    _write_model(folder / "model.gguf", names, [base64.b64decode(each["token_bytes"]) for each in full["vocab"]])


def _write_model(path: Path, special: list[str], ranks: list[bytes]) -> None:
    ranks = ranks[: TOKENS - SPECIAL]
    out = gguf.GGUFWriter(str(path), "llama")
    out.add_block_count(1)
    out.add_context_length(8192)
    out.add_embedding_length(HIDDEN)
    out.add_feed_forward_length(HIDDEN)
    out.add_head_count(HIDDEN // HEAD)
    out.add_head_count_kv(HIDDEN // HEAD)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_dimension_count(HEAD)
    out.add_vocab_size(TOKENS)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("tekken")
    out.add_token_list([*special, *map(spelled, ranks)])
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    out.add_token_types([*[control] * SPECIAL, *[normal] * len(ranks)])
    out.add_token_merges(merges_of(ranks))
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
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
