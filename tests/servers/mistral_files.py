"""Writes the demo model in Mistral's own layout, as vLLM reads it: params.json, consolidated.safetensors and tekken.json."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from magistral_ui.engines.gguf.demo_file import PROJECTOR, TEXT, TOWER, interleaved
from magistral_ui.models.folder import DEMO_FOLDER

LAYER = {
    "q_proj": "attention.wq",
    "k_proj": "attention.wk",
    "v_proj": "attention.wv",
    "o_proj": "attention.wo",
    "gate_proj": "feed_forward.w1",
    "down_proj": "feed_forward.w2",
    "up_proj": "feed_forward.w3",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "attention_norm": "attention_norm",
    "ffn_norm": "ffn_norm",
}
REST = {
    f"{TEXT}embed_tokens": "tok_embeddings",
    f"{TEXT}norm": "norm",
    f"{TOWER}patch_conv": "vision_encoder.patch_conv",
    f"{TOWER}ln_pre": "vision_encoder.ln_pre",
    f"{PROJECTOR}norm": "pre_mm_projector_norm",
    f"{PROJECTOR}patch_merger.merging_layer": "patch_merger.merging_layer",
    f"{PROJECTOR}linear_1": "vision_language_adapter.w_in",
    f"{PROJECTOR}linear_2": "vision_language_adapter.w_out",
}


def write_mistral(folder: Path) -> None:
    """The three files in `folder`."""
    config = json.loads((DEMO_FOLDER / "config.json").read_text(encoding="utf-8"))
    text, vision = config["text_config"], config["vision_config"]
    heads = {
        TEXT: (text["num_attention_heads"], text["num_key_value_heads"]),
        TOWER: (vision["num_attention_heads"], vision["num_attention_heads"]),
    }
    weights = {}
    for name, weight in load_file(DEMO_FOLDER / "model.safetensors").items():
        new, count = _name(name.removesuffix(".weight"), heads)
        weights[f"{new}.weight"] = _reordered(weight, count) if count else weight.contiguous()
    save_file(weights, folder / "consolidated.safetensors")
    (folder / "params.json").write_text(json.dumps(params(config)), encoding="utf-8")
    shutil.copy(DEMO_FOLDER / "tekken.json", folder)


def params(config: dict[str, Any]) -> dict[str, Any]:
    """The shape of the model in the words of Mistral's own files."""
    text, vision = config["text_config"], config["vision_config"]
    return {
        "dim": text["hidden_size"],
        "n_layers": text["num_hidden_layers"],
        "head_dim": text["head_dim"],
        "hidden_dim": text["intermediate_size"],
        "n_heads": text["num_attention_heads"],
        "n_kv_heads": text["num_key_value_heads"],
        "rope_theta": text["rope_parameters"]["rope_theta"],
        "norm_eps": text["rms_norm_eps"],
        "vocab_size": text["vocab_size"],
        "max_position_embeddings": text["max_position_embeddings"],
        "tied_embeddings": config["tie_word_embeddings"],
        "vision_encoder": {
            "hidden_size": vision["hidden_size"],
            "num_channels": vision["num_channels"],
            "image_size": vision["image_size"],
            "max_image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "rope_theta": vision["rope_parameters"]["rope_theta"],
            "intermediate_size": vision["intermediate_size"],
            "num_hidden_layers": vision["num_hidden_layers"],
            "num_attention_heads": vision["num_attention_heads"],
            "adapter_bias": False,
            "mm_projector_id": "patch_merge",
            "spatial_merge_size": config["spatial_merge_size"],
            "add_pre_mm_projector_layer_norm": True,
            "image_token_id": config["image_token_index"],
            "image_break_token_id": 12,
            "image_end_token_id": 13,
        },
    }


def _name(name: str, heads: dict[str, tuple[int, int]]) -> tuple[str, int]:
    """The new name, and how many heads the rows belong to where they have to be reordered, else 0."""
    if name in REST:
        return REST[name], 0
    root = TEXT if name.startswith(TEXT) else TOWER
    prefix = "" if root == TEXT else "vision_encoder.transformer."
    layer, part = name.split("layers.")[1].split(".")[0], name.rsplit(".", 1)[1]
    count = {"q_proj": heads[root][0], "k_proj": heads[root][1]}.get(part, 0)
    return f"{prefix}layers.{layer}.{LAYER[part]}", count


def _reordered(weight: torch.Tensor, heads: int) -> torch.Tensor:
    return torch.from_numpy(interleaved(weight.float().numpy(), heads)).to(weight.dtype).contiguous()
