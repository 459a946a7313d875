"""What llama.cpp is told of a plan for several graphics cards, of which this machine has none."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from magistral_ui.engines.base import ModelRequest
from magistral_ui.engines.gguf.child import parameters
from magistral_ui.engines.gguf.devices import LlamaDevice, find_llama_device, listing_of
from magistral_ui.engines.gguf.loading import server_settings
from magistral_ui.engines.gguf.supervisor import ServerSettings
from magistral_ui.models.gguf_plan import estimated_weights, plan_gguf
from magistral_ui.models.memory import GIB, MemoryPlan
from magistral_ui.models.shape import MAGISTRAL_SMALL_1_2

xllamacpp = pytest.importorskip("xllamacpp")


def cards(*free: int) -> LlamaDevice:
    """A machine with CUDA cards that have so many GiB free, of 24, in llama.cpp's order."""
    listed = [
        {"name": f"CUDA{n}", "description": "RTX", "free": each * GIB, "total": 24 * GIB, "type": "GPU"}
        for n, each in enumerate(free)
    ]
    return find_llama_device("auto", lambda: listing_of({"devices": listed}))


def told(device: LlamaDevice, quantization: str) -> tuple[ServerSettings, MemoryPlan]:
    weights = estimated_weights(MAGISTRAL_SMALL_1_2, quantization)
    plan = plan_gguf(MAGISTRAL_SMALL_1_2, weights, replace(device.place, host=0), recommended=40_960)
    source: Any = SimpleNamespace(files=(Path("x.gguf"),), mmproj=Path("mmproj.gguf"), name="x")
    return server_settings(ModelRequest("x"), source, device, plan), plan


def given(settings: ServerSettings) -> Any:
    """The library's own parameters; it has none of these cards, which must not matter for the projector."""
    return parameters(xllamacpp, json.loads(json.dumps(settings.told("key"))))


def test_the_fewest_cards_are_used_and_the_others_left_alone() -> None:
    settings, plan = told(cards(4, 6, 23, 5), "Q4_K_M")
    assert settings.tensor_split == (0, 0, 41)
    assert settings.mmproj_device == "CUDA2"
    assert [(each.index, each.layers) for each in plan.shares] == [(2, 40)]
    params = given(settings)
    assert (params.split_mode, params.main_gpu) == (xllamacpp.llama_split_mode.LLAMA_SPLIT_MODE_NONE, 2)


def test_each_card_holds_what_was_planned_in_llama_cpp_s_order() -> None:
    settings, plan = told(cards(20, 3, 23), "Q8_0")
    first, second = plan.shares
    assert (first.index, second.index) == (0, 2)
    assert first.layers + second.layers == 40
    assert settings.tensor_split == (first.layers, 0, second.layers + 1), "the head counts as a layer"
    assert sum(settings.tensor_split) == settings.gpu_layers
    assert settings.mmproj_device == "CUDA0"
    for share, free in ((first, 20), (second, 23)):
        assert share.weights + share.working + share.margin + share.kv_bytes <= free * GIB
    params = given(settings)
    assert params.split_mode == xllamacpp.llama_split_mode.LLAMA_SPLIT_MODE_LAYER
    assert params.tensor_split[:4] == [*map(float, settings.tensor_split), 0.0]


def test_a_single_card_is_left_to_llama_cpp() -> None:
    settings, _ = told(cards(23), "Q4_K_M")
    assert (settings.tensor_split, settings.mmproj_device) == ((), "")
    assert given(settings).split_mode == xllamacpp.llama_split_mode.LLAMA_SPLIT_MODE_LAYER
