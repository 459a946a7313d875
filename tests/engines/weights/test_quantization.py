"""Quantized weights: which modules, how many bytes against the plan, and that the engine writes with them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    BitsAndBytesConfig,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    MistralForCausalLM,
    PixtralVisionConfig,
)

from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.local.running_model import RunningModel
from magistral_ui.engines.weights.loader import Loaded, load
from magistral_ui.engines.weights.packing import least_rows, pack_linears
from magistral_ui.engines.weights.quantization import has_fast_nf4, held_bytes, stored_precision, update_skip_list
from magistral_ui.engines.weights.quantized_cache import QuantizedCopy
from magistral_ui.engines.weights.source import ModelSource
from magistral_ui.errors import ModelFilesBroken, NotAMistralModel
from magistral_ui.models.folder import inspect_folder
from magistral_ui.models.memory import head_copy_bytes, plan
from magistral_ui.models.shape import (
    MAGISTRAL_SMALL_1_2,
    MINISTRAL_3_3B_SHAPE,
    read_shape,
    weight_bytes,
)
from tests.benchmarks.full_size import make_folder
from tests.engines.conftest import CPU

QUANTIZED = ["nf4", "int8"]


def linear(precision: str) -> type[nn.Linear]:
    """The class of quantized layers; its import takes seconds, in every process that only reads this file."""
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    return {"nf4": Linear4bit, "int8": Linear8bitLt}[precision]


def loaded(folder: Path, precision: str, copy: QuantizedCopy | None = None) -> Loaded:
    return load(ModelSource(inspect_folder(folder).card, folder, copy=copy), CPU, precision, lambda _: None)


def write(model: RunningModel, tokens: int = 8, image: ImageFile | None = None) -> list[int]:
    """Ids that the model writes, taking the likeliest each time."""
    turn = UserTurn("What is 12 + 30?", (image,) if image else ())
    params = SamplingParams(temperature=0.0, max_tokens=tokens, seed=1)
    generation = model.submit(GenerationRequest(Prompt((), (turn,)), params, "ann"))
    while not generation.ended:
        model.scheduler.step()
    (entry,) = [e for e in model.cache._entries if e.visitor == "ann"]
    return entry.keys[-tokens + 1 :]


def wide_config(vision: bool) -> dict[str, object]:
    """Wide enough that blocks and scales matter as they do at full size, small enough for a test."""
    text = MistralConfig(
        vocab_size=2112,
        hidden_size=512,
        intermediate_size=1_536,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=32,
        sliding_window=None,
    ).to_dict()
    if not vision:
        return text
    tower = PixtralVisionConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=112,
        patch_size=14,
    )
    return {"text_config": text, "vision_config": tower.to_dict(), "tie_word_embeddings": False}


def make(folder: Path, config: dict[str, object], tekken: Path, shard: str = "2MB") -> Path:
    torch.manual_seed(0)
    folder.mkdir()
    if "text_config" in config:
        model = Mistral3ForConditionalGeneration(Mistral3Config(**config))
    else:
        model = MistralForCausalLM(MistralConfig(**config))
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=shard)
    shutil.copy(tekken, folder)
    return folder


@pytest.fixture(scope="module", params=[True, False], ids=["vision", "text"])
def wide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, vision_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("wide") / "model"
    return make(folder, wide_config(request.param), vision_folder / "tekken.json")


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory, vision_folder: Path) -> Path:
    """As `vision_folder`, but with rows of whole blocks of 64, which bitsandbytes' CPU kernels need (Magistral has them)."""
    config = Mistral3Config.from_pretrained(vision_folder).to_dict()
    config["text_config"]["intermediate_size"] = 128
    folder = make(tmp_path_factory.mktemp("lively") / "model", config, vision_folder / "tekken.json")
    shutil.copy(vision_folder / "SYSTEM_PROMPT.txt", folder)
    return folder


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "nf4"])
def test_planned_bytes_are_measured_bytes(wide: Path, precision: str) -> None:
    model = loaded(wide, precision)
    planned = weight_bytes(inspect_folder(wide).shape, precision)
    assert planned == pytest.approx(model.weights, rel=0.001)
    if precision in ("float32", "bfloat16"):
        assert planned == pytest.approx(model.weights, abs=4096)  # but for the rotary tables
    assert model.info.parameters == inspect_folder(wide).shape.parameters


@pytest.mark.parametrize("precision", ["bfloat16", "nf4"])
def test_planned_bytes_are_those_of_a_layer_of_real_width(precision: str, tmp_path: Path) -> None:
    """One layer of Ministral 3 3B with a small vocabulary, so that it takes seconds; benchmarks/full_size.py loads all of it."""
    shape = MINISTRAL_3_3B_SHAPE
    assert shape.vision is not None
    vision = replace(shape.vision, layers=1, image=112)
    one = replace(shape, layers=1, vocabulary=4_096, vision=vision)
    model = loaded(make_folder(tmp_path / "model", one), precision)
    assert model.weights == pytest.approx(weight_bytes(one, precision), rel=1e-4), "as it is saved"
    running = RunningModel(model, CPU)
    planned, copied = plan(one, precision, CPU.place).weights, head_copy_bytes(one, precision, "cpu")
    if not running.decoder.copied_bytes:  # not every processor packs bfloat16
        planned -= copied
    assert running.info.plan is not None
    held = running.info.plan.weights
    if precision == "nf4" and not has_fast_nf4():  # then scales stay nested, which takes a little less
        assert 0.985 * planned < held < planned
    else:
        assert held == pytest.approx(planned, rel=1e-4)


@pytest.mark.skipif(not has_fast_nf4(), reason="only AVX512-BF16 has a layout of its own")
def test_scales_that_the_first_forward_unpacks_are_counted(lively: Path) -> None:
    model = loaded(lively, "nf4")
    before = held_bytes(model.model)
    running = RunningModel(model, CPU)
    assert running.info.plan is not None
    unpacked = held_bytes(model.model) - before
    assert unpacked != 0
    assert running.info.plan.weights == model.weights + running.decoder.copied_bytes + unpacked


@pytest.mark.skipif(not has_fast_nf4(), reason="only AVX512-BF16 has a layout of its own")
def test_joined_nf4_layers_say_the_same(lively: Path) -> None:
    """As bitsandbytes' own, to the last bit, for one row and for many."""
    apart = loaded(lively, "nf4").model.model.language_model.layers[0].self_attn
    joined = loaded(lively, "nf4").model.model.language_model.layers[0].self_attn
    assert pack_linears(joined) == 4
    assert least_rows(joined) == 1
    for count in (1, 9):
        rows = torch.randn(count, apart.q_proj.in_features, dtype=torch.bfloat16)
        with torch.inference_mode():
            said = torch.cat([each(rows) for each in (apart.q_proj, apart.k_proj, apart.v_proj)], -1)
            assert torch.equal(joined.qkv_proj(rows), said)
            assert torch.equal(joined.qkv_proj(rows[:1]), said[:1])


@pytest.mark.parametrize("text_only", [False, True])
def test_magistral_s_count_is_a_real_model_s(text_only: bool) -> None:
    """Built on the meta device, where tensors have shapes and no bytes."""
    shape = MAGISTRAL_SMALL_1_2.without_vision() if text_only else MAGISTRAL_SMALL_1_2
    vision = MAGISTRAL_SMALL_1_2.vision
    assert vision is not None
    text = MistralConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
    )
    tower = PixtralVisionConfig(hidden_size=vision.hidden, image_size=vision.image, patch_size=vision.patch)
    with torch.device("meta"):
        model = (
            MistralForCausalLM(text)
            if text_only
            else Mistral3ForConditionalGeneration(
                Mistral3Config(text_config=text.to_dict(), vision_config=tower.to_dict(), tie_word_embeddings=False)
            )
        )
    assert sum(each.numel() for each in model.parameters()) == shape.parameters
    assert read_shape(model.config.to_dict(), has_head=True) == shape


@pytest.mark.parametrize("precision", QUANTIZED)
def test_just_the_language_model_s_layers_are_quantized(lively: Path, precision: str) -> None:
    model = loaded(lively, precision).model
    kinds = {name: type(module) for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    layers = {name for name in kinds if name.startswith("model.language_model.layers.")}
    assert len(layers) == 3 * 7
    assert {kinds[name] for name in layers} == {linear(precision)}
    rest = {name: kind for name, kind in kinds.items() if name not in layers}
    assert {"lm_head", "model.multi_modal_projector.linear_1"} < set(rest)
    assert any(name.startswith("model.vision_tower.") for name in rest)
    assert set(rest.values()) == {nn.Linear}
    assert {model.get_submodule(name).weight.dtype for name in rest} == {torch.bfloat16}


@pytest.mark.parametrize("precision", QUANTIZED)
def test_the_engine_writes_with_quantized_weights(
    lively: Path, paint: Callable[..., ImageFile], precision: str
) -> None:
    """The same tokens as transformers' own forward over the same weights, one by one; a picture does no harm."""
    model = loaded(lively, precision)
    running = RunningModel(model, CPU)
    written = write(running)
    (entry,) = [e for e in running.cache._entries if e.visitor == "ann"]
    start = len(entry.keys) - len(written)
    untouched = loaded(lively, precision).model
    with torch.inference_mode():
        logits = untouched(input_ids=torch.tensor([entry.keys])).logits[0, start - 1 : -1].float()
    likeliest = logits.max(-1).values
    chosen = logits[torch.arange(len(written)), torch.tensor(written)]
    assert torch.all(likeliest - chosen < 0.05 * likeliest.abs() + 0.1)  # bfloat16: two that are all but equal may swap
    assert len(write(RunningModel(model, CPU), image=paint(56, 56))) == 7


@pytest.mark.parametrize("precision", QUANTIZED)
def test_a_copy_is_the_same_model_and_is_found_again(lively: Path, tmp_path: Path, precision: str) -> None:
    first = loaded(lively, precision, copy=QuantizedCopy(tmp_path / "copy", {"precision": precision}, asked=True))
    again = loaded(tmp_path / "copy", "auto")
    assert again.info.precision == precision
    assert again.weights == pytest.approx(first.weights, abs=4096)
    assert again.system == first.system
    assert write(RunningModel(again, CPU)) == write(RunningModel(first, CPU))
    assert not list(tmp_path.glob("*.partial"))


def test_skip_lists_of_last_year_get_today_s_names() -> None:
    stored = {"llm_int8_skip_modules": ["lm_head", "vision_tower", "language_model.model.layers.0.self_attn"]}
    update_skip_list(stored)
    assert stored["llm_int8_skip_modules"] == [
        "lm_head",
        "vision_tower",
        "language_model.model.layers.0.self_attn",
        "model.vision_tower",
        "model.language_model.layers.0.self_attn",
    ]
    update_skip_list(stored)
    assert len(stored["llm_int8_skip_modules"]) == 5


def test_a_checkpoint_with_last_year_s_skip_list_runs(lively: Path, tmp_path: Path) -> None:
    """Quantized with one attention left as it was, like the dynamic repositories, and its list in the old names."""
    kept = "model.language_model.layers.1.self_attn"
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=["lm_head", "model.vision_tower", "model.multi_modal_projector", kept],
    )
    model = Mistral3ForConditionalGeneration.from_pretrained(
        lively, dtype=torch.bfloat16, quantization_config=config, device_map="cpu"
    )
    folder = tmp_path / "dynamic"
    model.save_pretrained(folder)
    shutil.copy(lively / "tekken.json", folder)
    old = ["lm_head", "vision_tower", "multi_modal_projector", "language_model.model.layers.1.self_attn"]
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings["quantization_config"]["llm_int8_skip_modules"] = old
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")

    read = loaded(folder, "auto")
    kinds = {name: type(each) for name, each in read.model.named_modules() if isinstance(each, nn.Linear)}
    assert {kind for name, kind in kinds.items() if name.startswith(kept)} == {nn.Linear}
    assert kinds["model.language_model.layers.0.self_attn.q_proj"] is linear("nf4")
    assert kinds["model.vision_tower.transformer.layers.0.attention.q_proj"] is nn.Linear
    assert read.weights == pytest.approx(held_bytes(model), abs=4096)
    assert len(write(RunningModel(read, CPU))) == 7


def test_other_ways_of_quantizing_are_named() -> None:
    assert stored_precision("m", None) is None
    assert stored_precision("m", {"quant_method": "bitsandbytes", "load_in_8bit": True}) == "int8"
    with pytest.raises(NotAMistralModel) as refused:
        stored_precision("m", {"quant_method": "compressed-tensors"})
    assert refused.value.message.key == "quantization_not_supported"


@pytest.mark.parametrize(
    "stored", ["nf4", ["bitsandbytes"], 4, {"quant_method": "bitsandbytes", "llm_int8_skip_modules": 3}]
)
def test_a_quantization_that_is_no_description_is_damage(stored: object) -> None:
    with pytest.raises(ModelFilesBroken):
        stored_precision("m", stored)
