"""Ministral 3 in each layout that repositories have, from a hub on loopback to a reply that transformers' own model confirms."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, BitsAndBytesConfig, Mistral3ForConditionalGeneration

from magistral_ui.engines.base import Broken, Ready
from magistral_ui.engines.local.engine import LocalEngine
from magistral_ui.models.cards import MINISTRAL_3_3B, MINISTRAL_3_8B, ModelCard
from magistral_ui.models.folder import inspect_folder
from tests.hub.checkpoints import make_repository
from tests.hub.server import Hub
from tests.hub.test_cards import ask, square, wait

CARDS = {"tied": MINISTRAL_3_3B, "untied": MINISTRAL_3_8B}
COPY = "someone/Ministral-copy"
INDEX = "model.safetensors.index.json"
DECODER = "language_model."
SKIPPED = ["lm_head", "multi_modal_projector", "vision_tower"]
"""What re-uploads leave as it was, in the names of 2025."""
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("originals")
    return {heads: make_repository(base / heads, card) for heads, card in CARDS.items()}


@pytest.fixture(params=CARDS)
def heads(request: pytest.FixtureRequest) -> str:
    """Whether the head is the embedding, as in the 3B, or not, as in the 8B."""
    return str(request.param)


@pytest.fixture
def original(originals: dict[str, Path], heads: str) -> Path:
    return originals[heads]


@pytest.fixture
def run(hub: Hub) -> Iterator[Callable[[str], LocalEngine]]:
    """Starts an engine with a repository's model and waits until it is ready or broken."""
    engines: list[LocalEngine] = []

    def started(model: str) -> LocalEngine:
        engines.append(LocalEngine(model, device="cpu"))
        engines[-1].start()
        wait(engines[-1])
        return engines[-1]

    yield started
    for engine in engines:
        engine.close()


def theirs(folder: Path, **options: Any) -> Any:
    """transformers' own model of the original's files."""
    config = AutoConfig.from_pretrained(folder)
    config.tie_word_embeddings = "language_model.lm_head.weight" not in weights_of(folder)
    return Mistral3ForConditionalGeneration.from_pretrained(folder, config=config, **options).eval()


def weights_of(folder: Path) -> Weights:
    return {name: each for file in sorted(folder.glob("model*.safetensors")) for name, each in load_file(file).items()}


def new_names(weights: Weights) -> Weights:
    """As transformers 5 calls them in memory."""

    def renamed(name: str) -> str:
        if name.startswith(f"{DECODER}model."):
            return f"model.{DECODER}" + name.removeprefix(f"{DECODER}model.")
        return name.removeprefix(DECODER) if name.startswith(DECODER) else f"model.{name}"

    return {renamed(name): each for name, each in weights.items()}


def with_stored_head(weights: Weights) -> Weights:
    """Some tools save a tied head beside the embedding."""
    return {f"{DECODER}lm_head.weight": weights[f"{DECODER}model.embed_tokens.weight"].clone()} | weights


def text_only(weights: Weights) -> Weights:
    return {name.removeprefix(DECODER): each for name, each in weights.items() if name.startswith(DECODER)}


LAYOUTS: dict[str, Callable[[Weights], Weights]] = {
    "old names": dict,
    "new names": new_names,
    "stored head": with_stored_head,
    "text only": text_only,
}


def laid_out(original: Path, folder: Path, layout: str, shards: bool) -> Path:
    """A copy of the repository with its tensors in another layout; text only: with the decoder's configuration alone."""
    shutil.copytree(original, folder, ignore=shutil.ignore_patterns("model*", "consolidated*", "params.json"))
    weights = LAYOUTS[layout](weights_of(original))
    names = sorted(weights)
    parts = [names[::2], names[1::2]] if shards else [names]
    files = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)] if shards else ["model.safetensors"]
    for file, part in zip(files, parts, strict=True):
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
    if shards:
        where = {name: file for file, part in zip(files, parts, strict=True) for name in part}
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}), encoding="utf-8")
    if layout == "text only":
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        text = config["text_config"] | {"architectures": ["Ministral3ForCausalLM"], "dtype": "bfloat16"}
        (folder / "config.json").write_text(json.dumps(text), encoding="utf-8")
    return folder


def confirm(engine: LocalEngine, model: Any, bfloat16: bool = False) -> None:
    """Each token of a greedy reply is the likeliest by `model`; in bfloat16, two that are all but equal may swap."""
    written = ask(engine).usage.completion_tokens
    running = engine._running
    assert running is not None
    (entry,) = (each for each in running.cache._entries if each.visitor == "ann")
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([entry.keys])).logits[0, -written:-1].float()
    assert float(logits.std()) > 0.5, "so large that a wrong tensor would show"
    chosen = logits.gather(1, torch.tensor(entry.keys[-written + 1 :])[:, None])[:, 0]
    likeliest = logits.max(-1).values
    assert torch.all(likeliest - chosen <= (0.05 * likeliest.abs() + 0.1 if bfloat16 else 1e-4))


@pytest.mark.parametrize("shards", [True, False], ids=["shards", "one file"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_answers_as_the_original(
    hub: Hub, run: Callable[[str], LocalEngine], original: Path, tmp_path: Path, layout: str, shards: bool
) -> None:
    hub.add(COPY, laid_out(original, tmp_path / "copy", layout, shards))
    engine = run(COPY)
    status = engine.status()
    assert isinstance(status, Ready), status
    assert status.info.precision == "float32"
    assert engine.card.vision == (layout != "text only")
    assert engine.card.context_length == 4_096
    if layout != "text only":
        assert inspect_folder(original).shape.parameters <= status.info.parameters
    confirm(engine, theirs(original, dtype=torch.float32))
    if engine.card.vision:
        assert ask(engine, square()).usage.completion_tokens == 12


def quantized(original: Path, folder: Path, card: ModelCard, skipped: list[str] | None) -> Any:
    """A re-upload in nf4 as its makers publish it: configured in the names of 2025, without Mistral's own files.

    Where nothing is named to be `skipped`, transformers itself leaves the head alone, and quantizes the vision tower too.
    """
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=skipped and ["lm_head", *(f"model.{name}" for name in skipped if name != "lm_head")],
    )
    model = theirs(original, dtype=torch.bfloat16, quantization_config=config, device_map="cpu")
    model.save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings["quantization_config"]["llm_int8_skip_modules"] = skipped
    assert card.shape is not None
    if not card.shape.tied:  # as the original's
        for part in (settings, settings["text_config"]):
            part.pop("tie_word_embeddings", None)
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert not (folder / "tekken.json").exists()
    return model


@pytest.mark.parametrize("skipped", [SKIPPED, None], ids=["vision kept", "vision quantized"])
def test_a_quantized_copy_takes_the_tokenizer_of_its_original(
    hub: Hub,
    run: Callable[[str], LocalEngine],
    originals: dict[str, Path],
    heads: str,
    tmp_path: Path,
    skipped: list[str] | None,
) -> None:
    card, original = CARDS[heads], originals[heads]
    model = quantized(original, tmp_path / "copy", card, skipped)
    hub.add(card.repository or "", original, card.revision or "")
    hub.add(COPY, tmp_path / "copy").card = {"base_model": card.repository, "base_model_relation": "quantized"}
    engine = run(COPY)
    status = engine.status()
    assert isinstance(status, Ready), status
    assert status.info.precision == "nf4"
    assert hub.files().count("tekken.json") == 1
    assert not {file.name for file in original.glob("*.safetensors")} & set(hub.files()) - {"model.safetensors"}
    assert engine.card.system() == card.system()
    assert engine.card.sampling == card.sampling
    confirm(engine, model, bfloat16=True)
    assert ask(engine, square()).usage.completion_tokens == 12


@pytest.mark.parametrize(("gone", "missing"), [((), "model.safetensors"), (("config.json",), "config.json")])
def test_mistral_s_own_format_alone_is_refused_before_it_is_downloaded(
    hub: Hub, run: Callable[[str], LocalEngine], original: Path, tmp_path: Path, gone: tuple[str, ...], missing: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(original, folder, ignore=shutil.ignore_patterns("model*", *gone))
    assert (folder / "consolidated.safetensors").exists()
    hub.add(COPY, folder)
    status = run(COPY).status()
    assert isinstance(status, Broken)
    assert (status.key, status.values["file"]) == ("file_missing", missing)
    assert set(hub.files()) <= {"config.json"}
