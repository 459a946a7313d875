"""Repositories in the exact layout of mistralai's, with small random weights: what is tested here is all but their size."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    Ministral3Config,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    MistralForCausalLM,
    PixtralVisionConfig,
)

from magistral_ui.models.cards import ModelCard
from magistral_ui.models.folder import DEMO_FOLDER
from tests.benchmarks.full_size import ROPE

SPECIAL = 1_000
VOCABULARY = SPECIAL + 1_200


def make_repository(folder: Path, card: ModelCard, version: str = "v13") -> Path:
    """The files of `card`'s repository: shards with an index, Mistral's own format beside them, and no chat template."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    ministral = card.shape is not None and card.shape.context_length == 262_144
    tied = card.shape is not None and card.shape.tied
    model = (
        _vision(_ministral(tied) if ministral else _text(), tied)
        if card.vision
        else MistralForCausalLM(MistralConfig(**_text()))
    )
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="150KB")
    if not ministral:
        _as_published(folder / "config.json")
    elif not tied:
        _without_tie(folder / "config.json")
    tekken = tokenizer(version, think=card.marks == "tokens")
    (folder / "tekken.json").write_text(json.dumps(tekken), encoding="utf-8")
    (folder / "SYSTEM_PROMPT.txt").write_text(card.system_prompt(), encoding="utf-8")
    (folder / "params.json").write_text(json.dumps({"dim": 64, "n_layers": 2}), encoding="utf-8")
    (folder / "README.md").write_text("# Model card", encoding="utf-8")
    save_file({"tok_embeddings.weight": torch.zeros(VOCABULARY, 64)}, folder / "consolidated.safetensors")
    return folder


def tokenizer(version: str, think: bool) -> dict[str, object]:
    """The beginning of the public vocabulary behind a thousand control tokens; only some versions know [THINK]."""
    demo = json.loads((DEMO_FOLDER / "tekken.json").read_text(encoding="utf-8"))
    special = demo["special_tokens"]
    special += [{"rank": i, "token_str": f"<SPECIAL_{i}>", "is_control": True} for i in range(len(special), SPECIAL)]
    if not think:
        for rank in (34, 35):
            special[rank]["token_str"] = f"<SPECIAL_{rank}>"
    vocabulary = demo["vocab"][: VOCABULARY - SPECIAL]
    sizes = {
        "version": version,
        "default_vocab_size": VOCABULARY,
        "default_num_special_tokens": SPECIAL,
        "num_vocab_tokens": len(vocabulary),
    }
    made = {"config": demo["config"] | sizes, "vocab": vocabulary, "special_tokens": special}
    return made | {"image": {"image_patch_size": 14, "max_image_size": 1540, "spatial_merge_size": 2}}


def _text() -> dict[str, object]:
    config = MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=4_096,
        rope_theta=1e9,
        sliding_window=None,
        initializer_range=0.3,
    )
    return dict(config.to_dict())


def _ministral(tied: bool) -> dict[str, object]:
    """Ministral 3's decoder with its own rotary parameters, but a window of 256 tokens."""
    rope = ROPE | {"original_max_position_embeddings": 256}
    same = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    same += ("num_key_value_heads", "head_dim", "max_position_embeddings", "initializer_range")
    small = {name: _text()[name] for name in same}
    return dict(Ministral3Config(**small, rope_parameters=rope, tie_word_embeddings=tied).to_dict())


def _vision(text: dict[str, object], tied: bool) -> Mistral3ForConditionalGeneration:
    tower = PixtralVisionConfig(
        hidden_size=64,  # rows of whole blocks, so that it can be quantized too
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=1_540,
        patch_size=14,
        initializer_range=0.3,
    )
    config = Mistral3Config(
        text_config=text, vision_config=tower.to_dict(), image_token_index=10, tie_word_embeddings=tied
    )
    return Mistral3ForConditionalGeneration(config)


def _as_published(file: Path) -> None:
    """The configuration as transformers 4 wrote it: torch_dtype, rope_theta, and nothing about tied embeddings."""
    config = json.loads(file.read_text(encoding="utf-8"))
    for part in (config, config.get("text_config", {}), config.get("vision_config", {})):
        part.pop("tie_word_embeddings", None)
        if "dtype" in part:
            part["torch_dtype"] = part.pop("dtype")
        if rope := part.pop("rope_parameters", None):
            part["rope_theta"] = rope["rope_theta"]
    file.write_text(json.dumps(config), encoding="utf-8")


def _without_tie(file: Path) -> None:
    """As the 8B's and 14B's configurations are: they do not say that the head is not the embedding."""
    config = json.loads(file.read_text(encoding="utf-8"))
    for part in (config, config["text_config"]):
        part.pop("tie_word_embeddings", None)
    file.write_text(json.dumps(config), encoding="utf-8")
