"""Reading a folder: stages told in bytes, given up when the engine closes, and never much more memory than the weights."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from magistral_ui.engines.base import Loading
from magistral_ui.engines.local.running_model import RunningModel, plan_now
from magistral_ui.engines.weights.devices import choose_plan
from magistral_ui.engines.weights.loader import Loaded, load
from magistral_ui.engines.weights.progress import Cancelled
from magistral_ui.engines.weights.quantized_cache import QuantizedCopy, save_copy
from magistral_ui.engines.weights.source import ModelSource
from magistral_ui.errors import CopyNotSaved, Message
from magistral_ui.i18n.texts import sentence
from magistral_ui.models.folder import inspect_folder
from magistral_ui.models.memory import MemoryPlan
from tests.engines.conftest import CPU


def reports_of(folder: Path, precision: str) -> list[Loading]:
    reports: list[Loading] = []
    load(ModelSource(inspect_folder(folder).card, folder), CPU, precision, reports.append)
    return reports


@pytest.mark.parametrize(
    ("precision", "stage"), [("float32", "reading"), ("nf4", "quantizing"), ("int8", "quantizing")]
)
@pytest.mark.parametrize("kind", ["vision_folder", "text_folder"])
def test_reading_is_told_in_bytes(kind: str, precision: str, stage: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    reports = reports_of(folder, precision)
    size = inspect_folder(folder).bytes
    assert {report.stage for report in reports} == {stage}
    assert {report.total for report in reports} == {size}
    assert [r.done for r in reports] == sorted(r.done for r in reports)


def test_every_tensor_is_counted(vision_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magistral_ui.engines.weights.progress.REPORT_INTERVAL", 0.0)
    reports = reports_of(vision_folder, "float32")
    assert len(reports) > 20
    facts = inspect_folder(vision_folder)
    assert reports[-1].done == sum(facts.tensors.values())


def test_closing_gives_up_in_the_middle(vision_folder: Path) -> None:
    closing = threading.Event()

    def report(loading: Loading) -> None:
        closing.set()

    with pytest.raises(Cancelled):
        load(ModelSource(inspect_folder(vision_folder).card, vision_folder), CPU, "float32", report, closing=closing)
    assert reports_of(vision_folder, "float32"), "the next one is not disturbed"


def test_the_running_model_is_bound_by_the_plan(vision_loaded: Loaded) -> None:
    planned = plan_now(vision_loaded, CPU)
    assert planned.weights == vision_loaded.weights
    running = RunningModel(vision_loaded, CPU)
    assert running.info.plan is not None
    assert running.context_length <= running.info.plan.context
    page = running.decoder.pool.page_bytes
    assert running.info.plan.kv_bytes - page < running.cache.budget <= running.info.plan.kv_bytes
    assert running.context_length * running.info.plan.kv_per_token <= running.cache.budget


def test_a_plan_with_less_room_means_a_shorter_context(vision_loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    working = plan_now(vision_loaded, CPU).working + plan_now(vision_loaded, CPU).margin
    scarce = psutil.virtual_memory()._replace(available=working + 2 * 1_000 * vision_loaded.kv_bytes_per_token)
    monkeypatch.setattr("magistral_ui.engines.weights.devices.psutil.virtual_memory", lambda: scarce)
    assert RunningModel(vision_loaded, CPU).context_length == 1_000


def test_a_copy_that_cannot_be_written_leaves_nothing(
    vision_loaded: Loaded, vision_folder: Path, tmp_path: Path
) -> None:
    copy = QuantizedCopy(tmp_path / "copy", {"model": "m", "revision": "", "precision": "nf4"}, asked=True)

    class Full:
        def save_pretrained(self, folder: Path, **_: object) -> None:
            (folder / "model.safetensors").write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(CopyNotSaved) as refused:
        save_copy(Full(), vision_folder, copy, 1_000, lambda _: None)
    assert "No space left" in str(refused.value.message.values["reason"])
    assert not list(tmp_path.iterdir())
    assert not copy.is_there


PEAKS = """
import gc, os, sys, threading
from pathlib import Path
import torch
from magistral_ui.engines.weights.devices import Device
from magistral_ui.engines.weights.loader import load
from magistral_ui.engines.weights.source import ModelSource
from magistral_ui.models.folder import inspect_folder
from magistral_ui.models.memory import MemoryPlan
folder, small = Path(sys.argv[1]), Path(sys.argv[2])
card, small_card = inspect_folder(folder).card, inspect_folder(small).card
import transformers.models.mistral3.modeling_mistral3, transformers.models.pixtral.modeling_pixtral, bitsandbytes
device = Device("cpu", "CPU", 2**36, 2**36)
def private():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("RssAnon"))
def watch(done, seen):
    while not done.wait(0.002):
        seen.append(private())
for precision in sys.argv[3:]:
    # Once before, so that what imports and threads take is not counted.
    load(ModelSource(small_card, small), device, precision, lambda _: None)
    gc.collect()
    before, seen, done = private(), [], threading.Event()
    thread = threading.Thread(target=watch, args=(done, seen))
    thread.start()
    loaded = load(ModelSource(card, folder), device, precision, lambda _: None)
    done.set()
    thread.join()
    print(precision, max(seen) - before, loaded.weights, flush=True)
    del loaded
os._exit(0)  # to end torch takes a second
"""
PRECISIONS = ("nf4", "int8", "bfloat16", "float32")


@pytest.fixture(scope="module")
def large_folder(tmp_path_factory: pytest.TempPathFactory, vision_folder: Path) -> Path:
    """A checkpoint of a hundred megabytes in shards of 24."""
    from tests.engines.weights.test_quantization import make, wide_config

    config = wide_config(vision=False) | {"num_hidden_layers": 16}
    return make(tmp_path_factory.mktemp("large") / "model", config, vision_folder / "tekken.json", shard="24MB")


@pytest.fixture(scope="module")
def peaks(large_folder: Path, vision_folder: Path) -> dict[str, tuple[int, int]]:
    """Bytes that loading took at its peak, and of the weights, by precision. One process loads all: importing takes longest."""
    ended = subprocess.run(
        [sys.executable, "-c", PEAKS, str(large_folder), str(vision_folder), *PRECISIONS],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},  # so that what is freed is gone, and not kept for later
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert ended.returncode == 0, ended.stderr
    found = [line.split() for line in ended.stdout.splitlines()]
    return {precision: (int(peak), int(weights)) for precision, peak, weights in found}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_loading_holds_the_weights_and_one_shard_at_most(
    large_folder: Path, peaks: dict[str, tuple[int, int]], precision: str
) -> None:
    """Of memory that is the process's own: pages of the mapped files can go at any time, and are not counted."""
    shard = max(file.stat().st_size for file in large_folder.glob("*.safetensors"))
    peak, weights = peaks[precision]
    assert peak <= weights + shard, f"{peak / 2**20:.0f} MiB for {weights / 2**20:.0f} MiB of weights"


def test_images_that_the_plan_makes_smaller_are_said(vision_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(*args: object, **more: object) -> MemoryPlan:
        return replace(choose_plan(*args, **more), image_side=56)  # type: ignore[arg-type]

    monkeypatch.setattr("magistral_ui.engines.weights.loader.choose_plan", chosen)
    source = ModelSource(inspect_folder(vision_folder).card, vision_folder)
    loaded = load(source, CPU, "float32", lambda _: None)
    assert loaded.info.notices == (Message("smaller_images", {"side": 56, "full": 168}),)
    assert loaded.shape.image_side == 56
    assert "56 pixels instead of 168" in sentence(loaded.info.notices[0])
