"""Makes the demo model's GGUF files from its safetensors, so that llama.cpp can run it; names and order are llama.cpp's.

The weights are the same bfloat16 numbers. Only the rows of queries and keys stand in another order, that of Mistral's own files.
"""

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from magistral_ui.engines.gguf.cache_folder import cached
from magistral_ui.engines.gguf.writer import CONTROL, NORMAL, Value, write_gguf
from magistral_ui.models.folder import DEMO_FOLDER
from magistral_ui.models.gguf_vocabulary import merges_of, spelled

FORMAT = 1
"""Raised whenever the same model gives other files."""
WEIGHTS, TEKKEN, CONFIG = "model.safetensors", "tekken.json", "config.json"
FILE_TYPE_BF16 = 32
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
Parts = tuple[dict[str, Value], dict[str, np.ndarray]]
"""Metadata and tensors."""


def demo_files() -> tuple[Path, Path]:
    """The demo model's file and its projector's, from the user's cache; made if they are not there, in a tenth of a second."""
    told = hashlib.sha256(str(FORMAT).encode())
    for name in (WEIGHTS, TEKKEN, CONFIG):
        told.update((DEMO_FOLDER / name).read_bytes())
    folder = f"demo-{told.hexdigest()[:32]}"
    return cached(f"{folder}/demo.gguf", write_model), cached(f"{folder}/mmproj.gguf", write_mmproj)


def write_model(path: Path) -> None:
    write_gguf(path, *model_parts())


def write_mmproj(path: Path) -> None:
    write_gguf(path, *mmproj_parts())


def model_parts() -> Parts:
    """The demo model's decoder and vocabulary."""
    text = _config()["text_config"]
    heads = {"q_proj": text["num_attention_heads"], "k_proj": text["num_key_value_heads"]}
    metadata: dict[str, Value] = {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": "Demo model",
        "llama.block_count": text["num_hidden_layers"],
        "llama.context_length": text["max_position_embeddings"],
        "llama.embedding_length": text["hidden_size"],
        "llama.feed_forward_length": text["intermediate_size"],
        "llama.attention.head_count": text["num_attention_heads"],
        "llama.attention.head_count_kv": text["num_key_value_heads"],
        "llama.rope.freq_base": float(text["rope_parameters"]["rope_theta"]),
        "llama.attention.layer_norm_rms_epsilon": float(text["rms_norm_eps"]),
        "llama.attention.key_length": text["head_dim"],
        "llama.attention.value_length": text["head_dim"],
        "llama.rope.dimension_count": text["head_dim"],
        "llama.vocab_size": text["vocab_size"],
        "general.file_type": FILE_TYPE_BF16,
    }
    return metadata | _vocabulary(), _tensors(_text_name, heads)


def mmproj_parts() -> Parts:
    """The demo model's vision tower and projector."""
    config = _config()
    vision = config["vision_config"]
    heads = dict.fromkeys(("q_proj", "k_proj"), vision["num_attention_heads"])
    metadata: dict[str, Value] = {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "general.name": "Demo model",
        "general.file_type": FILE_TYPE_BF16,
        "clip.has_vision_encoder": True,
        "clip.projector_type": "pixtral",
        "clip.vision.projection_dim": config["text_config"]["hidden_size"],
        "clip.vision.image_size": vision["image_size"],
        "clip.vision.patch_size": vision["patch_size"],
        "clip.vision.embedding_length": vision["hidden_size"],
        "clip.vision.feed_forward_length": vision["intermediate_size"],
        "clip.vision.block_count": vision["num_hidden_layers"],
        "clip.vision.attention.head_count": vision["num_attention_heads"],
        "clip.vision.image_mean": [0.48145466, 0.4578275, 0.40821073],
        "clip.vision.image_std": [0.26862954, 0.26130258, 0.27577711],
        "clip.vision.attention.layer_norm_epsilon": 1e-5,
        "clip.rope.freq_base": float(vision["rope_parameters"]["rope_theta"]),
        "clip.use_gelu": vision["hidden_act"] == "gelu",
        "clip.use_silu": vision["hidden_act"] == "silu",
        "clip.vision.spatial_merge_size": config["spatial_merge_size"],
    }
    tensors = _tensors(_tower_name, heads)
    embedding = read_safetensors(DEMO_FOLDER / WEIGHTS)[f"{TEXT}embed_tokens.weight"]
    tensors["v.token_embd.img_break"] = widened(embedding[IMAGE_BREAK])
    return metadata, tensors


def _config() -> dict[str, Any]:
    config: dict[str, Any] = json.loads((DEMO_FOLDER / CONFIG).read_text(encoding="utf-8"))
    return config


def _text_name(name: str) -> str | None:
    """llama.cpp's name of one of the decoder's weights; None for all others."""
    if not name.startswith(TEXT):
        return None
    layer, _, part = name.removeprefix(TEXT).removeprefix("layers.").partition(".")
    return f"blk.{layer}.{LAYER[part]}" if part in LAYER else REST[name]


def _tower_name(name: str) -> str | None:
    """llama.cpp's name of one of the tower's or the projector's weights; None for all others."""
    if name.startswith(TEXT):
        return None
    layer, _, part = name.removeprefix(f"{TOWER}transformer.layers.").partition(".")
    return f"v.blk.{layer}.{TOWER_LAYER[part]}" if part in TOWER_LAYER else REST[name]


def _tensors(name_of: Callable[[str], str | None], heads: dict[str, int]) -> dict[str, np.ndarray]:
    """Matrices stay bfloat16; vectors, the patch filter and the patch merger become float32, as llama.cpp expects them."""
    tensors = {}
    for key, array in read_safetensors(DEMO_FOLDER / WEIGHTS).items():
        weight = key.removesuffix(".weight")
        name = name_of(weight)
        if name is None:
            continue
        part = weight.rsplit(".", 1)[-1]
        if part in heads:
            array = interleaved(array, heads[part])
        tensors[f"{name}.weight"] = array if array.ndim == 2 and part != "merging_layer" else widened(array)
    return tensors


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """All tensors of a file that holds nothing but bfloat16, as the 16 bits of each number."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, told in header.items():
        if name != "__metadata__":
            begin, end = told["data_offsets"]
            bits = np.frombuffer(data[8 + length + begin : 8 + length + end], np.uint16)
            tensors[name] = bits.reshape(told["shape"])
    return tensors


def widened(bits: np.ndarray) -> np.ndarray:
    """bfloat16 as float32: its upper half."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries and keys in the order of Mistral's own files: the two halves of a rotation beside each other."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _vocabulary() -> dict[str, Value]:
    tekken = json.loads((DEMO_FOLDER / TEKKEN).read_text(encoding="utf-8"))
    marks = [each["token_str"] for each in tekken["special_tokens"]]
    tokens = [base64.b64decode(each["token_bytes"]) for each in tekken["vocab"]]
    tokens = tokens[: tekken["config"]["default_vocab_size"] - len(marks)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "tekken",
        "tokenizer.ggml.tokens": [*marks, *map(spelled, tokens)],
        "tokenizer.ggml.token_type": [*[CONTROL] * len(marks), *[NORMAL] * len(tokens)],
        "tokenizer.ggml.merges": merges_of(tokens),
        "tokenizer.ggml.bos_token_id": marks.index("<s>"),
        "tokenizer.ggml.eos_token_id": marks.index("</s>"),
        "tokenizer.ggml.unknown_token_id": marks.index("<unk>"),
        "tokenizer.ggml.padding_token_id": marks.index("<pad>"),
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
    }
