"""The pace with llama.cpp: timed once on layers of the real shape in a child process, which ends with what waits for it."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from magistral_ui.engines.gguf import child, child_process, pace, timed_file
from magistral_ui.engines.gguf.devices import LlamaDevice
from magistral_ui.engines.gguf.pace import estimated_gguf_pace
from magistral_ui.engines.gguf.timed_file import write_timed_file
from magistral_ui.engines.weights import pace_file
from magistral_ui.models.gguf_header import read_header
from magistral_ui.models.gguf_plan import QUANTIZATIONS, estimated_weights
from magistral_ui.models.memory import GIB
from magistral_ui.models.shape import MAGISTRAL_SMALL_1_2, MINISTRAL_3_3B_SHAPE, ModelShape

CPU = LlamaDevice("cpu", "CPU", "CPU", 8 * GIB, 8 * GIB)
SMALL = ModelShape(16_384, 256, 512, 3, 4, 2, 64, False, 4_096)


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pace_file, "copies_folder", lambda: tmp_path / "assets" / "quantized")
    monkeypatch.setattr(timed_file, "MIN_BYTES", 1)
    return tmp_path / "assets" / "pace.json"


def go_on() -> None:
    """Nothing to wait for."""


def test_layers_are_timed_once_for_all_quantizations(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = estimated_gguf_pace(SMALL, "Q8_0", CPU, go_on)
    assert found is not None
    assert 0 < found < 1e6
    monkeypatch.setattr(pace, "write_timed_file", lambda *_: 1 / 0)
    others = {each: estimated_gguf_pace(SMALL, each, CPU, go_on) for each in QUANTIZATIONS}
    assert others["Q8_0"] == found
    assert sorted(others.values(), key=float) == sorted(json.loads(file.read_text())["estimated"].values())
    most_exact_first = sorted(QUANTIZATIONS, key=lambda each: -pace.read_bytes(SMALL, each))
    assert list(map(others.get, most_exact_first)) == sorted(others.values(), key=float)


def test_what_is_known_is_not_timed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pace_file.keep_estimate(SMALL, "Q4_K_M", CPU, 7.0)
    monkeypatch.setattr(pace, "write_timed_file", lambda *_: 1 / 0)
    assert estimated_gguf_pace(SMALL, "Q4_K_M", CPU, go_on) == 7.0


def test_all_layers_and_the_head_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = []
    monkeypatch.setattr(pace, "_seconds", lambda file, *_: timed.append(write_timed_file(file, SMALL)) or 0.5)
    weights = estimated_weights(SMALL, "Q8_0")
    found = estimated_gguf_pace(SMALL, "Q8_0", CPU, go_on)
    assert found == pytest.approx(timed[0] / (sum(weights.layers) + weights.head) / 0.5, rel=0.01)


@pytest.mark.parametrize(("seconds", "runs"), [(60.0, child.TIMED_REPLIES), (0.0, 1)])
def test_the_best_run_counts_when_time_is_up(seconds: float, runs: int) -> None:
    class Server:
        asked = 0

        def handle_completions(self, _: dict[str, object]) -> str:
            self.asked += 1
            return json.dumps({"timings": {"predicted_ms": 3_000 / self.asked, "predicted_n": 3}})

    server = Server()
    assert child.seconds_per_token(server, seconds) == pytest.approx(1 / runs)
    assert server.asked == runs


@pytest.mark.parametrize("shape", [MAGISTRAL_SMALL_1_2, MINISTRAL_3_3B_SHAPE])
def test_the_file_has_layers_as_large_as_the_model_s(
    shape: ModelShape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timed_file, "MIN_BYTES", 2**29)
    path = tmp_path / "layers.gguf"
    layers = write_timed_file(path, shape)
    with path.open("rb") as opened:
        header = read_header(opened)
    assert header.data_end <= path.stat().st_size
    count = header.metadata["llama.block_count"]
    assert layers >= 2**29
    assert layers / count == pytest.approx(estimated_weights(shape, timed_file.QUANTIZATION).layers[0], rel=0.02)
    if sys.platform == "linux":
        assert path.stat().st_blocks * 512 < 2**20, "its weights take no room"


@pytest.fixture
def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that would never answer."""
    script = tmp_path / "silent.py"
    script.write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setattr(child_process, "CHILD", script)


@pytest.mark.usefixtures("silent")
def test_giving_up_ends_the_child() -> None:
    before = {each.pid for each in psutil.Process().children()}

    class GivenUp(Exception):
        pass

    def give_up() -> None:
        raise GivenUp

    with pytest.raises(GivenUp):
        estimated_gguf_pace(SMALL, "Q4_K_M", CPU, give_up)
    assert {each.pid for each in psutil.Process().children()} <= before


def test_a_child_that_cannot_time_leaves_the_pace_unknown(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert estimated_gguf_pace(replace(SMALL, hidden=250), "Q4_K_M", CPU, go_on) is None, "no multiple of a block"
    says_nothing = Path(pace.__file__).with_name("__init__.py")
    monkeypatch.setattr(child_process, "CHILD", says_nothing)
    assert estimated_gguf_pace(SMALL, "Q4_K_M", CPU, go_on) is None
    assert not file.exists()


@pytest.mark.usefixtures("silent")
def test_a_child_that_takes_too_long_leaves_the_pace_unknown(file: Path) -> None:
    assert estimated_gguf_pace(SMALL, "Q4_K_M", CPU, go_on, timeout=0.2) is None
    assert not file.exists()


def test_layers_that_do_not_fit_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    scarce = psutil.virtual_memory()._replace(available=2**20)
    monkeypatch.setattr(pace.psutil, "virtual_memory", lambda: scarce)
    monkeypatch.setattr(pace, "_seconds", lambda *_: 1 / 0)
    assert estimated_gguf_pace(SMALL, "Q4_K_M", CPU, go_on) is None
