"""What is remembered of paces, in a file that may be broken; without torch where only llama.cpp is asked about."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from magistral_ui.engines.weights import pace_file
from magistral_ui.engines.weights.devices import Device
from magistral_ui.engines.weights.pace import pace_of
from magistral_ui.engines.weights.pace_file import keep_estimate, known_pace, measured_pace, record_pace
from magistral_ui.models.memory import GIB
from magistral_ui.models.shape import ModelShape

ROOT = Path(__file__).parents[3]
CPU = Device("cpu", "CPU", 8 * GIB, 8 * GIB)
SMALL = ModelShape(16_384, 256, 512, 3, 4, 2, 64, False, 4_096)
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = sys.modules["bitsandbytes"] = None
from types import SimpleNamespace
from magistral_ui.engines.switching import machine, pace_timer
from magistral_ui.engines.weights.pace_file import measured_pace, record_pace
from magistral_ui.models.shape import MINISTRAL_3_3B_SHAPE
for quantization in ("Q4_K_M", "IQ4_XS", "UD-Q4_K_XL"):
    record_pace(MINISTRAL_3_3B_SHAPE, quantization, SimpleNamespace(name="CPU"), 5.0)
    assert measured_pace(MINISTRAL_3_3B_SHAPE, quantization, SimpleNamespace(name="CPU")) == 5.0
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pace_file, "copies_folder", lambda: tmp_path / "assets" / "quantized")
    return tmp_path / "assets" / "pace.json"


def test_llama_cpp_s_paces_need_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    ended = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr


def test_a_quantization_has_a_pace_of_its_own(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record_pace(SMALL, "Q4_K_M", CPU, 7.0)
    keep_estimate(SMALL, "Q8_0", CPU, 4.0)
    assert measured_pace(SMALL, "Q8_0", CPU) is None
    assert known_pace(CPU)(SMALL, "Q4_K_M") == (7.0, True)
    assert known_pace(CPU)(SMALL, "Q8_0") == (4.0, False)
    monkeypatch.setattr(pace_file, "_llama_cpp", lambda: "llama.cpp another")
    assert measured_pace(SMALL, "Q4_K_M", CPU) is None, "with another llama.cpp it is another pace"


def test_what_was_measured_comes_first(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert measured_pace(SMALL, "nf4", CPU) is None
    record_pace(SMALL, "nf4", CPU, 10.0)
    assert pace_of(CPU)(SMALL, "nf4") == (10.0, True)
    record_pace(SMALL, "nf4", CPU, 20.0)
    assert measured_pace(SMALL, "nf4", CPU) == pytest.approx(13.0)
    assert measured_pace(SMALL, "int8", CPU) is None
    assert measured_pace(SMALL, "nf4", Device("cuda", "RTX", GIB, GIB)) is None
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert measured_pace(SMALL, "nf4", CPU) is None, "with other threads it is another pace"


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"version": 99}', '{"version": 1}', '{"version": 1, "estimated": 3, "measured": {}}'],
)
def test_a_broken_file_is_as_none(file: Path, content: str) -> None:
    file.parent.mkdir()
    file.write_text(content)
    assert measured_pace(SMALL, "nf4", CPU) is None
    record_pace(SMALL, "nf4", CPU, 5.0)
    assert measured_pace(SMALL, "nf4", CPU) == 5.0
    assert [each.name for each in file.parent.iterdir()] == ["pace.json"]


def test_impossible_paces_are_ignored(file: Path) -> None:
    record_pace(SMALL, "nf4", CPU, 5.0)
    broken = json.loads(file.read_text())
    broken["measured"] = dict.fromkeys(broken["measured"], "fast")
    file.write_text(json.dumps(broken))
    assert measured_pace(SMALL, "nf4", CPU) is None


def test_where_nothing_can_be_written_nothing_is_remembered(file: Path) -> None:
    file.parent.parent.joinpath("assets").write_text("a file in the way")
    record_pace(SMALL, "nf4", CPU, 5.0)
    assert measured_pace(SMALL, "nf4", CPU) is None
