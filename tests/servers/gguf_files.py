"""Writes the demo model as llama.cpp reads models: weights, vision tower, vocabulary and chat template; it runs nothing.

The weights are those of magistral_ui/models/demo, so that the same questions have the same answers on every server.
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from mistral_common.integrations.chat_templates.chat_templates import convert_tokenizer_to_chat_template
from safetensors import safe_open

from magistral_ui import models

FOLDER = Path(models.__file__).parent / "demo"
BF16, F32 = gguf.GGMLQuantizationType.BF16, gguf.GGMLQuantizationType.F32
TEXT = "language_model.model."
TOWER = "vision_tower."
PROJECTOR = "multi_modal_projector."
LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.down_proj": "ffn_down",
    "mlp.up_proj": "ffn_up",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
TOWER_LAYER = {
    "attention.q_proj": "attn_q",
    "attention.k_proj": "attn_k",
    "attention.v_proj": "attn_v",
    "attention.o_proj": "attn_out",
    "feed_forward.gate_proj": "ffn_gate",
    "feed_forward.down_proj": "ffn_down",
    "feed_forward.up_proj": "ffn_up",
    "attention_norm": "ln1",
    "ffn_norm": "ln2",
}
REST = {
    f"{TEXT}embed_tokens": "token_embd",
    f"{TEXT}norm": "output_norm",
    f"{TOWER}ln_pre": "v.pre_ln",
    f"{TOWER}patch_conv": "v.patch_embd",
    f"{PROJECTOR}norm": "mm.input_norm",
    f"{PROJECTOR}patch_merger.merging_layer": "mm.patch_merger",
    f"{PROJECTOR}linear_1": "mm.1",
    f"{PROJECTOR}linear_2": "mm.2",
}
IMAGE_BREAK = 12
"""Id of [IMG_BREAK], whose embedding llama.cpp keeps beside the tower."""


def write_gguf(folder: Path) -> None:
    """`model.gguf`, `mmproj.gguf` and `chat_template.jinja` in `folder`; takes a second."""
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    _write_text_model(folder / "model.gguf", config["text_config"])
    _write_vision_tower(folder / "mmproj.gguf", config)
    template = convert_tokenizer_to_chat_template(str(FOLDER / "tekken.json"))
    (folder / "chat_template.jinja").write_text(str(template), encoding="utf-8")


def _write_text_model(path: Path, text: dict[str, Any]) -> None:
    out = gguf.GGUFWriter(str(path), "llama")
    out.add_name("Demo model")
    out.add_block_count(text["num_hidden_layers"])
    out.add_context_length(text["max_position_embeddings"])
    out.add_embedding_length(text["hidden_size"])
    out.add_feed_forward_length(text["intermediate_size"])
    out.add_head_count(text["num_attention_heads"])
    out.add_head_count_kv(text["num_key_value_heads"])
    out.add_rope_freq_base(text["rope_parameters"]["rope_theta"])
    out.add_layer_norm_rms_eps(text["rms_norm_eps"])
    out.add_key_length(text["head_dim"])
    out.add_value_length(text["head_dim"])
    out.add_rope_dimension_count(text["head_dim"])
    out.add_vocab_size(text["vocab_size"])
    out.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    _add_vocabulary(out)
    heads = {"q_proj": text["num_attention_heads"], "k_proj": text["num_key_value_heads"]}
    _add_tensors(out, lambda name: _text_name(name), heads)
    _close(out)


def _write_vision_tower(path: Path, config: dict[str, Any]) -> None:
    vision, eps = config["vision_config"], 1e-5
    out = gguf.GGUFWriter(str(path), "clip")
    out.add_type(gguf.GGUFType.MMPROJ)
    out.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    out.add_clip_has_vision_encoder(True)
    out.add_clip_projector_type("pixtral")
    out.add_vision_projection_dim(config["text_config"]["hidden_size"])
    out.add_vision_image_size(vision["image_size"])
    out.add_vision_patch_size(vision["patch_size"])
    out.add_vision_embedding_length(vision["hidden_size"])
    out.add_vision_feed_forward_length(vision["intermediate_size"])
    out.add_vision_block_count(vision["num_hidden_layers"])
    out.add_vision_head_count(vision["num_attention_heads"])
    out.add_vision_image_mean([0.48145466, 0.4578275, 0.40821073])
    out.add_vision_image_std([0.26862954, 0.26130258, 0.27577711])
    out.add_vision_attention_layernorm_eps(eps)
    out.add_float32("clip.rope.freq_base", vision["rope_parameters"]["rope_theta"])
    out.add_vision_use_gelu(vision["hidden_act"] == "gelu")
    out.add_vision_use_silu(vision["hidden_act"] == "silu")
    out.add_vision_spatial_merge_size(config["spatial_merge_size"])
    heads = dict.fromkeys(("q_proj", "k_proj"), vision["num_attention_heads"])
    _add_tensors(out, lambda name: None if name.startswith(TEXT) else _tower_name(name), heads)
    with safe_open(FOLDER / "model.safetensors", "pt") as weights:
        embedding = weights.get_slice(f"{TEXT}embed_tokens.weight")[IMAGE_BREAK]
    out.add_tensor("v.token_embd.img_break", embedding.float().numpy())
    _close(out)


def _text_name(name: str) -> str | None:
    if not name.startswith(TEXT):
        return None
    layer, part = _layer_of(name.removeprefix(TEXT).removeprefix("layers."))
    return f"blk.{layer}.{LAYER[part]}" if part in LAYER else REST[name]


def _tower_name(name: str) -> str:
    layer, part = _layer_of(name.removeprefix(f"{TOWER}transformer.layers."))
    return f"v.blk.{layer}.{TOWER_LAYER[part]}" if part in TOWER_LAYER else REST[name]


def _layer_of(name: str) -> tuple[str, str]:
    layer, _, part = name.partition(".")
    return layer, part


def _add_tensors(out: gguf.GGUFWriter, name_of: Callable[[str], str | None], heads: dict[str, int]) -> None:
    """Matrices stay bfloat16, vectors and the patch filter become float32, as llama.cpp expects them."""
    with safe_open(FOLDER / "model.safetensors", "pt") as weights:
        for key in weights.keys():  # noqa: SIM118  # not a dict
            name = name_of(key.removesuffix(".weight"))
            if name is None:
                continue
            data = weights.get_tensor(key).float().numpy()
            kind = key.removesuffix(".weight").rsplit(".", 1)[-1]
            if kind in heads:
                data = interleaved(data, heads[kind])
            if data.ndim == 2 and "patch_merger" not in name:
                out.add_tensor(f"{name}.weight", gguf.quants.quantize(data, BF16), raw_dtype=BF16)
            else:
                out.add_tensor(f"{name}.weight", data, raw_dtype=F32)


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries and keys in the order of Mistral's own files: the two halves of a rotation beside each other."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _add_vocabulary(out: gguf.GGUFWriter) -> None:
    tekken = json.loads((FOLDER / "tekken.json").read_text(encoding="utf-8"))
    special = [each["token_str"] for each in tekken["special_tokens"]]
    ranks = [base64.b64decode(each["token_bytes"]) for each in tekken["vocab"]]
    ranks = ranks[: tekken["config"]["default_vocab_size"] - len(special)]
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("tekken")
    out.add_token_list([*special, *map(_spelled, ranks)])
    out.add_token_types([*[control] * len(special), *[normal] * len(ranks)])
    out.add_token_merges(_merges(ranks))
    out.add_bos_token_id(special.index("<s>"))
    out.add_eos_token_id(special.index("</s>"))
    out.add_unk_token_id(special.index("<unk>"))
    out.add_pad_token_id(special.index("<pad>"))
    out.add_add_bos_token(True)
    out.add_add_eos_token(False)


def _merges(ranks: list[bytes]) -> list[str]:
    """All pairs of tokens that make another one, the earliest token first."""
    rank = {token: n for n, token in enumerate(ranks)}
    merges: list[str] = []
    for token in ranks:
        cuts = [(token[:n], token[n:]) for n in range(1, len(token))]
        pairs = sorted((rank[a], rank[b]) for a, b in cuts if a in rank and b in rank)
        merges += [f"{_spelled(ranks[a])} {_spelled(ranks[b])}" for a, b in pairs]
    return merges


def _spelled(token: bytes) -> str:
    """Bytes as the visible characters that GPT-2's vocabulary files use for them."""
    return "".join(BYTES[byte] for byte in token)


def _visible_bytes() -> list[str]:
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte if byte in shown else next(others)) for byte in range(256)]


BYTES = _visible_bytes()


def _close(out: gguf.GGUFWriter) -> None:
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
