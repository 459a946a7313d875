"""Write the demo model's tokenizer, configuration and random weights; knows nothing of its data or training.

    python training/blank_model.py

replaces the files in this folder, the weights included, by those of an untrained model.
"""

import json
from pathlib import Path
from typing import Any

import mistral_common
import torch
from mistral_common.tokens.tokenizers.base import SpecialTokens
from transformers import (
    GenerationConfig,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralVisionConfig,
)

FOLDER = Path(__file__).parents[1] / "magistral_ui" / "models" / "demo"
PUBLIC_VOCABULARY = Path(mistral_common.__file__).parent / "data" / "tekken_240911.json"
VOCABULARY_SIZE = 2112
SPECIAL_SLOTS = 64
MAX_IMAGE_SIZE = 112  # pixels: at most 4 x 4 image tokens
CONTEXT = 8192

# The slots of the special tokens in v13, as Magistral has them.
SPECIAL_TOKENS: dict[int, str] = {
    0: SpecialTokens.unk,
    1: SpecialTokens.bos,
    2: SpecialTokens.eos,
    3: SpecialTokens.begin_inst,
    4: SpecialTokens.end_inst,
    5: SpecialTokens.begin_tools,
    6: SpecialTokens.end_tools,
    7: SpecialTokens.begin_tool_results,
    8: SpecialTokens.end_tool_results,
    9: SpecialTokens.tool_calls,
    10: SpecialTokens.img,
    11: SpecialTokens.pad,
    12: SpecialTokens.img_break,
    13: SpecialTokens.img_end,
    14: SpecialTokens.prefix,
    15: SpecialTokens.middle,
    16: SpecialTokens.suffix,
    17: SpecialTokens.begin_system,
    18: SpecialTokens.end_system,
    19: SpecialTokens.begin_tool_content,
    24: SpecialTokens.audio,
    25: SpecialTokens.begin_audio,
    32: SpecialTokens.args,
    33: SpecialTokens.call_id,
    34: SpecialTokens.begin_think,
    35: SpecialTokens.end_think,
}


def write_tokenizer(folder: Path) -> None:
    """Write `tekken.json`: the public vocabulary's first entries under Magistral's special tokens."""
    source: dict[str, Any] = json.loads(PUBLIC_VOCABULARY.read_text(encoding="utf-8"))
    vocabulary = source["vocab"][: VOCABULARY_SIZE - SPECIAL_SLOTS]
    special = [
        {
            "rank": rank,
            "token_str": str(SPECIAL_TOKENS[rank]) if rank in SPECIAL_TOKENS else f"<SPECIAL_{rank}>",
            "is_control": True,
        }
        for rank in range(SPECIAL_SLOTS)
    ]
    tokenizer = {
        "config": source["config"]
        | {
            "version": "v13",
            "default_vocab_size": VOCABULARY_SIZE,
            "default_num_special_tokens": SPECIAL_SLOTS,
            "num_vocab_tokens": len(vocabulary),
        },
        "vocab": vocabulary,
        "special_tokens": special,
        "image": {"image_patch_size": 14, "max_image_size": MAX_IMAGE_SIZE, "spatial_merge_size": 2},
    }
    (folder / "tekken.json").write_text(json.dumps(tokenizer, indent=0) + "\n", encoding="utf-8")


def configuration() -> Mistral3Config:
    """Return the architecture: Magistral's, with small numbers."""
    text = MistralConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        rope_theta=1e5,
        sliding_window=None,
        tie_word_embeddings=True,
    )
    vision = PixtralVisionConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        head_dim=32,
        image_size=MAX_IMAGE_SIZE,
        patch_size=14,
    )
    return Mistral3Config(
        text_config=text.to_dict(),
        vision_config=vision.to_dict(),
        image_token_index=10,
        spatial_merge_size=2,
        tie_word_embeddings=True,
    )


def write_weights(folder: Path) -> None:
    """Write `config.json`, `generation_config.json` and random `model.safetensors` in bf16."""
    torch.manual_seed(0)
    model = Mistral3ForConditionalGeneration(configuration()).to(torch.bfloat16)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=11, max_length=CONTEXT)
    model.save_pretrained(folder)


if __name__ == "__main__":
    write_tokenizer(FOLDER)
    write_weights(FOLDER)
