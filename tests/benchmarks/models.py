"""Makes the benchmarks' model: a Mistral of a few hundred million random parameters with Magistral's vocabulary."""

import json
import shutil
from pathlib import Path

import mistral_common
import torch
from transformers import Mistral3Config, Mistral3ForConditionalGeneration, MistralConfig, PixtralVisionConfig

from magistral_ui.models.folder import DEMO_FOLDER

VOCABULARY = 131_072
SPECIAL = 1_000


SMALL = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
}
MAGISTRAL = {
    "hidden_size": 5120,
    "intermediate_size": 32_768,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}


def make_model(
    folder: Path, shape: dict[str, int] | None = None, dtype: torch.dtype = torch.bfloat16, device: str = "cpu"
) -> Path:
    """Write a checkpoint into `folder` (unless it is there): weights, configuration and a full-sized tokenizer.

    The weights are drawn on `device`: a GPU makes billions of them in a second.
    """
    if (folder / "tekken.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    text = MistralConfig(
        vocab_size=VOCABULARY,
        **(shape or SMALL),
        max_position_embeddings=131_072,
        rope_theta=1e9,
        sliding_window=None,
        tie_word_embeddings=False,
    )
    vision = PixtralVisionConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    config = Mistral3Config(
        text_config=text.to_dict(), vision_config=vision.to_dict(), image_token_index=10, tie_word_embeddings=False
    )
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    with torch.device(device):
        model = Mistral3ForConditionalGeneration(config).to(dtype)
    model.save_pretrained(folder, max_shard_size="4GB")
    torch.set_default_dtype(default)
    shutil.copy(DEMO_FOLDER / "SYSTEM_PROMPT.txt", folder)
    (folder / "tekken.json").write_text(json.dumps(tokenizer()), encoding="utf-8")
    return folder


def tokenizer() -> dict:  # type: ignore[type-arg]
    """The public vocabulary under the demo model's special tokens, filled up to Magistral's thousand."""
    public = Path(mistral_common.__file__).parent / "data" / "tekken_240911.json"
    source = json.loads(public.read_text(encoding="utf-8"))
    demo = json.loads((DEMO_FOLDER / "tekken.json").read_text(encoding="utf-8"))
    special = demo["special_tokens"][:64]
    special += [{"rank": i, "token_str": f"<SPECIAL_{i}>", "is_control": True} for i in range(len(special), SPECIAL)]
    vocabulary = source["vocab"][: VOCABULARY - SPECIAL]
    sizes = {
        "version": "v13",
        "default_vocab_size": VOCABULARY,
        "default_num_special_tokens": SPECIAL,
        "num_vocab_tokens": len(vocabulary),
    }
    image = {"image_patch_size": 14, "max_image_size": 1540, "spatial_merge_size": 2}
    return {"config": source["config"] | sizes, "vocab": vocabulary, "special_tokens": special, "image": image}
