"""From a wish to a running model: what is told on the way, and what a machine's graphics cards have to do with it."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from transformers import AttentionInterface

from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest, Loading, ModelRequest
from magistral_ui.engines.local import running_model
from magistral_ui.engines.local.kv_cache import PagePool
from magistral_ui.engines.local.running_model import RunningModel, load_model
from magistral_ui.engines.pace_recorder import MIN_MEASURED_TOKENS
from magistral_ui.engines.weights import devices, loader
from magistral_ui.engines.weights.devices import Device
from magistral_ui.engines.weights.gpu_diagnosis import GraphicsCard
from magistral_ui.engines.weights.loader import Loaded, load
from magistral_ui.engines.weights.source import ModelSource
from magistral_ui.errors import BadSetting, DeviceTooSmall
from magistral_ui.models.folder import inspect_folder
from magistral_ui.models.memory import PAGE_TOKENS
from tests.engines.conftest import CPU


@pytest.fixture
def with_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a card that torch cannot use."""
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices.torch.version, "cuda", None)
    monkeypatch.setattr(devices, "find_graphics_cards", lambda: [GraphicsCard("RTX 4090", "591.44", 13, (8, 9))])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("with_a_card")
def test_why_no_card_is_used_is_told_from_the_first_moment_on(text_folder: Path) -> None:
    told: list[Loading] = []
    brought = load_model(ModelRequest(str(text_folder)), told.append, threading.Event())
    assert brought is not None
    assert [each.key for each in brought.info.notices] == ["gpu_torch_without_cuda"]
    assert told
    assert all(each.notices == brought.info.notices for each in told)
    brought.close()


@pytest.mark.usefixtures("with_a_card")
def test_a_model_too_large_for_the_processor_names_what_keeps_the_card(
    text_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = psutil.virtual_memory()._replace(available=2**20, total=2**30)
    monkeypatch.setattr(devices.psutil, "virtual_memory", lambda: memory)
    with pytest.raises(BadSetting) as refused:
        load_model(ModelRequest(str(text_folder)), lambda _: None, threading.Event())
    assert refused.value.message.key == "gpu_torch_without_cuda"
    with pytest.raises(DeviceTooSmall):
        load_model(ModelRequest(str(text_folder), device="cpu"), lambda _: None, threading.Event())


def test_the_plan_comes_after_the_first_forward_and_what_it_leaves_over_is_given_back(
    vision_loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []

    def noted(name: str, usual: Callable[..., object]) -> Callable[..., object]:
        def call(*values: object) -> object:
            happened.append(name)
            return usual(*values)

        return call

    for name in ("warm_up", "empty_device_cache", "plan_now"):
        monkeypatch.setattr(running_model, name, noted(name, getattr(running_model, name)))
    RunningModel(vision_loaded, CPU)
    assert happened == ["warm_up", "empty_device_cache", "plan_now"]


def room_for(pages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device on which allocating more pages than these fails."""
    usual = PagePool.__init__

    def made(self: PagePool, *places: Any) -> None:
        if places[-1] > pages:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        usual(self, *places)

    monkeypatch.setattr(PagePool, "__init__", made)


def test_a_pool_that_finds_less_room_than_planned_is_smaller(
    vision_loaded: Loaded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Something else took memory after it was counted: the model runs with what is left, and says how much that is."""
    monkeypatch.setattr(running_model, "MIN_CONTEXT", 1_024)
    room_for(10, monkeypatch)
    running = RunningModel(vision_loaded, CPU)
    pool = running.decoder.pool
    assert 9 <= pool.pages <= 10
    assert running.context_length == pool.pages * PAGE_TOKENS == running.info.context_length
    assert running.info.plan is not None
    assert running.info.plan.kv_bytes == pool.pages * pool.page_bytes
    assert "no room for" in caplog.text
    generation = running.submit(GenerationRequest(Prompt((), (UserTurn("Hi"),)), SamplingParams(max_tokens=3, seed=1)))
    while not generation.ended:
        running.scheduler.step()
    assert generation.usage.reasoning_tokens + generation.usage.answer_tokens


def test_a_shorter_context_than_is_useful_is_no_way_out(vision_loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_model, "MIN_CONTEXT", 1_024)
    room_for(3, monkeypatch)
    with pytest.raises(torch.OutOfMemoryError):
        RunningModel(vision_loaded, CPU)
    assert RunningModel(vision_loaded, CPU, context_length=700).decoder.pool.pages == 3


@pytest.mark.parametrize(("buckets", "rows"), [((1, 2, 4), 4), ((1, 2, 4, 8, 16), 8), (None, 8)])
def test_drafts_add_no_more_rows_than_are_recorded(buckets: tuple[int, ...] | None, rows: int) -> None:
    graphs = None if buckets is None else SimpleNamespace(buckets=buckets)
    decoder: Any = SimpleNamespace(graphs=graphs)
    assert running_model.speculative_rows(decoder) == rows


TURING = Device("cuda", "T4", 2**34, 2**34, capability=(7, 5))
AMPERE = replace(TURING, capability=(8, 0))


def test_images_look_the_same_in_float32(vision_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole tower, by its attention and by ours; weights and what comes out keep their type."""
    model = loader.Mistral3ForConditionalGeneration.from_pretrained(vision_folder, dtype=torch.bfloat16).eval()
    pixels = torch.randn(1, 3, 56, 84, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    sizes = torch.tensor([[56, 84]])

    @torch.inference_mode()
    def seen() -> torch.Tensor:
        return torch.cat(
            list(model.get_image_features(pixel_values=pixels, image_sizes=sizes, return_dict=True).pooler_output)
        )

    usual = seen()
    asked: list[torch.dtype] = []
    loader.see_in_float32(model)
    attend = AttentionInterface()[loader.FLOAT32_ATTENTION]

    def watched(module: object, query: torch.Tensor, *more: object, **named: object) -> object:
        asked.append(query.dtype)
        return attend(module, query, *more, **named)

    AttentionInterface.register(loader.FLOAT32_ATTENTION, watched)
    ours = seen()
    AttentionInterface.register(loader.FLOAT32_ATTENTION, attend)
    assert len(asked) == 2, "each layer of the tower"
    assert ours.dtype == usual.dtype
    assert torch.allclose(ours.float(), usual.float(), atol=0.1 * usual.float().abs().max().item())
    assert model.config.text_config._attn_implementation != loader.FLOAT32_ATTENTION


@pytest.mark.parametrize(("device", "calls"), [(TURING, 1), (AMPERE, 0)])
def test_the_loader_sees_to_it_on_older_cards_alone(
    vision_folder: Path, monkeypatch: pytest.MonkeyPatch, device: Device, calls: int
) -> None:
    looked: list[object] = []
    monkeypatch.setattr(loader, "see_in_float32", looked.append)
    monkeypatch.setattr(loader, "device_map", lambda *_, **__: {"": torch.device("cpu")})
    load(ModelSource(inspect_folder(vision_folder).card, vision_folder), device, "float32", lambda _: None)
    assert len(looked) == calls


@pytest.mark.parametrize("demo", [False, True])
def test_the_pace_of_real_models_is_recorded(
    vision_loaded: Loaded, monkeypatch: pytest.MonkeyPatch, demo: bool
) -> None:
    recorded: list[tuple[object, ...]] = []
    monkeypatch.setattr(running_model, "record_pace", lambda *values: recorded.append(values))
    running = RunningModel(replace(vision_loaded, card=replace(vision_loaded.card, demo=demo)), CPU)
    params = SamplingParams(temperature=0.0, max_tokens=MIN_MEASURED_TOKENS + 8, seed=1)
    generation = running.submit(GenerationRequest(Prompt((), (UserTurn("What is 12 + 30?"),)), params))
    while not generation.ended:
        running.scheduler.step()
    usage = generation.usage
    assert usage.reasoning_tokens + usage.answer_tokens >= MIN_MEASURED_TOKENS, "long enough to count"
    assert [values[:3] for values in recorded] == ([] if demo else [(vision_loaded.shape, "float32", CPU)])
