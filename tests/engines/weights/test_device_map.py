"""A model over several devices, on a machine without: the map against accelerate, the forward on tensors that claim so."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from accelerate.utils import check_device_map, compute_module_sizes
from torch.overrides import TorchFunctionMode
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    MistralForCausalLM,
    PixtralVisionConfig,
)

from magistral_ui.engines.local import cuda_graphs, kv_cache
from magistral_ui.engines.local.cuda_recorder import Compute, Recording
from magistral_ui.engines.local.decoder import Decoder, DecoderInput
from magistral_ui.engines.local.kv_cache import SCRATCH_PAGE
from magistral_ui.engines.local.paged_attention import ReferenceAttention
from magistral_ui.engines.weights.devices import Device
from magistral_ui.engines.weights.loader import device_map
from magistral_ui.models.memory import GIB, plan
from magistral_ui.models.shape import read_shape
from tests.engines.conftest import load_folder, text_config
from tests.engines.local.fake_devices import ACROSS, CPU, Claims, claim, place_of
from tests.engines.local.recorded_steps import Tape
from tests.engines.local.test_decoder import step


def cards(*gigabytes: int) -> Device:
    first, *others = (Device("cuda", "RTX", n * GIB, n * GIB, index) for index, n in enumerate(gigabytes))
    return replace(first, others=tuple(others))


def magistral(vision: bool, tied: bool = False) -> Mistral3Config | MistralConfig:
    text = MistralConfig(
        vocab_size=131_072,
        hidden_size=5_120,
        intermediate_size=32_768,
        num_hidden_layers=40,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=tied,
    )
    tower = PixtralVisionConfig(image_size=1_540, patch_size=14)
    if not vision:
        return text
    return Mistral3Config(text_config=text.to_dict(), vision_config=tower.to_dict(), tie_word_embeddings=tied)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("vision", [True, False])
def test_the_map_covers_the_model_and_each_device_holds_what_was_planned(vision: bool, tied: bool) -> None:
    config, device = magistral(vision, tied), cards(48, 32)
    with init_empty_weights():
        kind = Mistral3ForConditionalGeneration if vision else MistralForCausalLM
        model = kind(config).to(torch.bfloat16)  # type: ignore[arg-type]
    model.tie_weights()
    shape = read_shape(config.to_dict())
    planned = plan(shape, "bfloat16", device.place)
    placed = device_map(planned, device, vision=vision, tied=tied)
    check_device_map(model, placed)
    sizes = compute_module_sizes(model)
    for n, share in enumerate(planned.shares):
        names = [name for name, place in placed.items() if place.index == n and not (tied and name == "lm_head")]
        held = sum(sizes[name] for name in names if "rotary" not in name)
        assert held == pytest.approx(share.weights, rel=1e-4)
    assert len(planned.shares) == 2
    behind = torch.device("cuda", 0 if tied else 1)
    assert placed["lm_head"] == behind


def test_one_device_is_a_map_of_one() -> None:
    device = Device("cpu", "CPU", 64 * GIB, 64 * GIB)
    planned = plan(read_shape(text_config().to_dict()), "float32", device.place)
    assert device_map(planned, device, vision=False, tied=False) == {"": torch.device("cpu")}


PLACES = [[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 2, 2], [0, 0, 0, 1], [0, 1, 1, 0]]
"""Of three layers, and of norm and head."""


@pytest.fixture
def spread(text_folder: Path) -> Iterator[Callable[[list[int]], Decoder]]:
    """Makes a model whose layers claim to lie on these graphics cards: any operation across two of them raises."""
    models = [load_folder(text_folder).model for _ in range(2)]

    def made(places: list[int]) -> Decoder:
        model = models.pop()
        for name, module in model.named_modules():
            layer = next((int(part) for part in name.split(".") if part.isdigit()), None)
            index = places[-1] if name in ("lm_head", "model.norm") else 0 if layer is None else places[layer]
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                claim(tensor, torch.device("cuda", index))
        return Decoder(model)

    with Claims():
        yield made


BATCHES = [[1, *range(200, 210)], [1, *range(300, 390)], [1, 5, 6, 7]]


class NothingMoves(TorchFunctionMode):
    """While it is entered, what moves from a card to another raises, as it does while a graph is recorded."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in ACROSS and place_of(out) != place_of(args[-1] if func is torch.Tensor.copy_ else args[0]):
            raise RuntimeError(f"{func} from {place_of(args[0])} to {place_of(out)}")
        return out


class CardTape(Tape):
    def __call__(self, compute: Compute, device: torch.device) -> Recording:
        def alone() -> torch.Tensor:
            with NothingMoves():
                return compute()

        return super().__call__(alone, device)


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("places", PLACES)
def test_layers_on_several_devices_say_the_same(
    spread: Callable[[list[int]], Decoder], places: list[int], paged: bool
) -> None:
    model, alone = spread(places), spread([0, 0, 0, 0])
    if paged:
        for each in (model, alone):
            each.open_pool(8, 512)
            each.decode_with(dict.fromkeys(each.layers.devices, ReferenceAttention()))
    logits = step(model, BATCHES)
    assert torch.equal(logits.to(CPU), step(alone, BATCHES).to(CPU))
    assert logits.device == torch.device("cuda", places[-1])
    logits = model(
        [DecoderInput(model.new_cache(), [1, 2, 3]), DecoderInput(model.new_cache(), [4])]
    )  # read and written together
    assert logits.shape[0] == 2


@pytest.mark.parametrize("places", [[0, 1, 2, 2], [0, 1, 1, 0]])
def test_recorded_segments_say_the_same_and_stay_on_their_card(
    spread: Callable[[list[int]], Decoder], places: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_graphs, "recorded_buckets", lambda layer, device: (1, 4))
    model, alone = spread(places), spread([0, 0, 0, 0])
    model.open_pool(8, 512)
    model.decode_with(dict.fromkeys(model.layers.devices, ReferenceAttention()))
    tape = CardTape()
    model.record(tape)
    assert model.graphs is not None
    assert model.graphs.buckets == (1, 4)
    assert [(device.index, rows) for device, rows in tape.asked[:3]] == [
        (place, 4) for place in ((0, 1, 2) if 2 in places else (0, 1, 0))
    ]
    logits = step(model, BATCHES)
    assert torch.allclose(logits.to(CPU), step(alone, BATCHES).to(CPU), atol=1e-3)
    assert logits.device == torch.device("cuda", places[-1])


@pytest.mark.parametrize("places", PLACES)
def test_keys_and_values_lie_with_their_layer_and_come_back_there(
    spread: Callable[[list[int]], Decoder], places: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = spread(places)
    for index, place in enumerate(places[:-1]):
        assert [each.device for each in model.pool.layer(index)] == [torch.device("cuda", place)] * 2
    cache = model.new_cache()
    model([DecoderInput(cache, [1, 2, 3, 4])])
    branch = cache.branch(4)
    expected = model([DecoderInput(branch, [5])])
    branch.release()
    monkeypatch.setattr(kv_cache, "_host_buffer", lambda shape, like: torch.empty(shape, dtype=like.dtype))
    cache.spill()
    assert cache.pages == [SCRATCH_PAGE]
    assert model.pool.used == 0
    model.new_cache().reserve(600)  # other pages take its place
    cache.restore(4)
    assert torch.equal(model([DecoderInput(cache, [5])]), expected)


def test_a_hidden_state_that_is_not_moved_would_be_noticed(
    spread: Callable[[list[int]], Decoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = spread([0, 1, 1, 1])
    monkeypatch.setattr("magistral_ui.engines.local.decoder.move", lambda tensor, device: tensor)
    with pytest.raises(RuntimeError, match="cuda:1"):
        model([DecoderInput(model.new_cache(), [1, 2, 3])])
