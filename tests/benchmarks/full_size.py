"""Loads a model of the family at its full size with random weights, and compares memory and pace with the plan and the estimate.

    python -m tests.benchmarks.full_size [KEY] [--precision NAME] [--folder FOLDER] [--tokens N]

The 3B needs 7.7 GB of disk, and in bfloat16 12 GB of memory. A folder that is named is kept, and read again the next time.
"""

import argparse
import gc
import json
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import save_file
from transformers import Ministral3Config, Mistral3Config, Mistral3ForConditionalGeneration, PixtralVisionConfig

from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.local.running_model import RunningModel
from magistral_ui.engines.weights.devices import choose_plan, find_device
from magistral_ui.engines.weights.loader import load
from magistral_ui.engines.weights.pace import estimated_pace
from magistral_ui.engines.weights.source import ModelSource
from magistral_ui.models.cards import FAMILY, ModelCard, find_card
from magistral_ui.models.memory import GIB
from magistral_ui.models.shape import ModelShape
from tests.benchmarks.models import tokenizer

SHARD_BYTES = 2 * 10**9
ROPE = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 16.0,
    "original_max_position_embeddings": 16_384,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}


def configuration(shape: ModelShape) -> Mistral3Config:
    """A configuration of `shape`, which must have vision, as the Ministral 3 have it."""
    assert shape.vision is not None
    text = Ministral3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.context_length,
        rope_parameters=ROPE,
        tie_word_embeddings=shape.tied,
    )
    vision = shape.vision
    tower = PixtralVisionConfig(
        hidden_size=vision.hidden,
        intermediate_size=vision.intermediate,
        num_hidden_layers=vision.layers,
        num_attention_heads=16,
        image_size=vision.image,
        patch_size=vision.patch,
    )
    return Mistral3Config(
        text_config=text.to_dict(),
        vision_config=tower.to_dict(),
        image_token_index=10,
        tie_word_embeddings=shape.tied,
    )


def make_folder(folder: Path, shape: ModelShape) -> Path:
    """Write a checkpoint of `shape` with random weights, shard by shard, unless it is there."""
    if (folder / "tekken.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    config = configuration(shape)
    with torch.device("meta"):
        outline = Mistral3ForConditionalGeneration(config)
    names = [name for name in outline.state_dict() if not (shape.tied and name == "lm_head.weight")]
    noise = torch.randn(2**20).mul_(0.02).bfloat16()  # repeated: drawing billions would take minutes
    shard: dict[str, torch.Tensor] = {}
    where: dict[str, str] = {}
    number = 0
    for name in names:
        sizes = outline.state_dict()[name].shape
        shard[name] = noise.repeat(-(-sizes.numel() // len(noise)))[: sizes.numel()].view(sizes).clone()
        where[name] = f"model-{number:05}.safetensors"
        if name == names[-1] or sum(each.nbytes for each in shard.values()) > SHARD_BYTES:
            save_file(shard, folder / where[name], metadata={"format": "pt"})
            shard, number = {}, number + 1
    index: dict[str, Any] = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    config.save_pretrained(folder)
    (folder / "tekken.json").write_text(json.dumps(tokenizer()), encoding="utf-8")
    return folder


def compare(card: ModelCard, folder: Path, precision: str, tokens: int) -> list[str]:
    """Load, ask, and tell what was planned beside what was measured."""
    assert card.shape is not None
    device = find_device("cpu")
    planned = choose_plan(card.name, card.shape, device, precision)
    expected = estimated_pace(card.shape, planned.precision, device)
    gc.collect()
    before = own_bytes()
    loaded = load(ModelSource(replace(card, demo=True), folder), device, precision, lambda _: None)
    running = RunningModel(loaded, device)
    loaded = replace(loaded, model=None)
    gc.collect()
    held = own_bytes() - before
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        generation = ask(running, tokens)
        peak = own_bytes() - before
    finally:
        running.close()
        thread.join()
    usage = generation.usage
    written = usage.reasoning_tokens + usage.answer_tokens
    pace = (written - 1) / (usage.total_seconds - usage.first_token_seconds) if written > 1 else 0.0
    counted = running.info.plan.weights if running.info.plan else 0
    return [
        f"{card.name} in {planned.precision} on {torch.get_num_threads()} threads",
        f"weights: planned {planned.weights / GIB:.3f} GiB, counted {counted / GIB:.3f}, resident {held / GIB:.3f}",
        f"with working memory: planned {(planned.weights + planned.working) / GIB:.3f}, after a reply {peak / GIB:.3f}",
        f"tokens per second: estimated {expected or 0:.2f}, measured {pace:.2f} over {written} tokens",
    ]


def own_bytes() -> int:
    """Resident memory of this process, but for the pages of files, which go whenever memory is short."""
    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


def ask(running: RunningModel, tokens: int) -> Any:
    params = SamplingParams(temperature=0.7, max_tokens=tokens, seed=1)
    generation = running.submit(GenerationRequest(Prompt((), (UserTurn("What is 12 + 30?"),)), params))
    while not generation.wait(1.0):
        pass
    return generation


def options_of(description: str | None, precision: str, tokens: int) -> argparse.ArgumentParser:
    """What the benchmarks at full size take: the card's key, a folder for its weights, and these defaults."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("key", nargs="?", default=FAMILY[-1].key, choices=[card.key for card in FAMILY])
    parser.add_argument("--precision", default=precision)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--tokens", type=int, default=tokens)
    return parser


@contextmanager
def full_size_model(key: str, folder: Path | None) -> Iterator[tuple[ModelCard, Path, Path]]:
    """A card of the family, the folder with its random weights (made if `folder` is None), and a scratch folder."""
    card = find_card(key)
    assert card is not None
    assert card.shape is not None
    with tempfile.TemporaryDirectory() as made:
        yield card, make_folder(folder or Path(made) / "model", card.shape), Path(made)


def main() -> None:
    options = options_of(__doc__, "bfloat16", 48).parse_args()
    with full_size_model(options.key, options.folder) as (card, folder, _):
        print("\n".join(compare(card, folder, options.precision, options.tokens)))


if __name__ == "__main__":
    main()
