"""The pace of models with torch: estimated on one layer of the real classes, once."""

import json
from pathlib import Path

import pytest
import torch

from magistral_ui.engines.weights import pace as module
from magistral_ui.engines.weights import pace_file
from magistral_ui.engines.weights.devices import Device
from magistral_ui.engines.weights.pace import estimated_pace, pace_of
from magistral_ui.engines.weights.pace_file import known_pace, record_pace
from magistral_ui.models.memory import GIB
from magistral_ui.models.shape import MAGISTRAL_SMALL_1_2, ModelShape

CPU = Device("cpu", "CPU", 8 * GIB, 8 * GIB)
SMALL = ModelShape(16_384, 256, 512, 3, 4, 2, 64, False, 4_096)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pace_file, "copies_folder", lambda: tmp_path / "assets" / "quantized")
    return tmp_path / "assets" / "pace.json"


@pytest.mark.parametrize("precision", ["bfloat16", "nf4", "int8", "float32"])
def test_a_layer_is_timed_once_and_remembered(file: Path, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = estimated_pace(SMALL, precision, CPU)
    assert found is not None
    assert 0 < found < 1e6
    assert list(json.loads(file.read_text())["estimated"].values()) == [found]
    monkeypatch.setattr(module, "_seconds", lambda *_: 1 / 0)
    assert estimated_pace(SMALL, precision, CPU) == found
    assert pace_of(CPU)(SMALL, precision) == (found, False)


def test_where_nothing_may_be_timed_only_what_is_known_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert known_pace(CPU)(SMALL, "float32") == (None, False)
    found = estimated_pace(SMALL, "float32", CPU)
    monkeypatch.setattr(module, "_seconds", lambda *_: 1 / 0)
    assert known_pace(CPU)(SMALL, "float32") == (found, False)
    record_pace(SMALL, "float32", CPU, 7.0)
    assert known_pace(CPU)(SMALL, "float32") == (7.0, True)


def test_all_layers_and_the_whole_head_are_counted(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_least", lambda run, *_: (run(), 0.001)[1])
    assert estimated_pace(SMALL, "float32", CPU) == pytest.approx(1 / (3 * 0.001 + 2 * 0.001), rel=1e-3)


def test_the_layer_is_of_the_shape_and_quantized_as_when_it_is_loaded() -> None:
    from bitsandbytes.nn import Linear4bit  # its import takes seconds, in every process that only reads this file

    model = module._one_layer(SMALL, "nf4", CPU)
    (layer,) = model.model.layers
    assert isinstance(layer.mlp.down_proj, Linear4bit)
    assert layer.mlp.down_proj.weight.quant_state.shape == (256, 512)
    assert layer.self_attn.k_proj.weight.quant_state.nested
    assert model.lm_head.weight.dtype == torch.bfloat16


def test_no_layer_is_made_where_it_would_not_fit(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = module.look_again(CPU)
    small = Device("cpu", "CPU", GIB, memory.total)
    monkeypatch.setattr(module, "look_again", lambda _: small)
    monkeypatch.setattr(module, "_seconds", lambda *_: 1 / 0)
    assert estimated_pace(MAGISTRAL_SMALL_1_2, "nf4", CPU) is None
    assert not file.exists()


def test_a_layer_that_cannot_run_has_no_pace(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> float:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(module, "_seconds", fail)
    assert pace_of(CPU)(SMALL, "nf4") == (None, False)
