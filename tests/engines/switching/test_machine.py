"""What a machine can run with and without torch, and beside GPUs that only one of the libraries sees."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from magistral_ui.engines.gguf.devices import LlamaDevice
from magistral_ui.engines.switching import machine as module
from magistral_ui.engines.switching.machine import Machine, freed
from magistral_ui.engines.weights.devices import Device
from magistral_ui.errors import BadSetting, DeviceTooSmall
from magistral_ui.models.cards import DEMO, MAGISTRAL_1_2, MINISTRAL_3_8B, MINISTRAL_3_14B
from magistral_ui.models.ladder import Held
from magistral_ui.models.memory import GIB
from magistral_ui.models.shape import ModelShape

ROOT = Path(__file__).parents[3]
WITHOUT_TORCH = """
import sys
for name in ("torch", "transformers", "accelerate", "bitsandbytes", "safetensors"):
    sys.modules[name] = None
from magistral_ui.engines.switching.machine import find_machine
machine = find_machine("cpu")
assert (machine.torch, machine.precisions, machine.place.type) == (None, (), "cpu")
assert all(plan.kv_type for each in machine.candidates() for plan in each.plans)
machine.choose_default()
"""
LITTLE = LlamaDevice("cpu", "CPU", "CPU", 28 * GIB, 32 * GIB)
VULKAN = LlamaDevice("gpu", "Vulkan", "Radeon", 15 * GIB, 16 * GIB)
NVIDIA = Device("cuda", "RTX", 23 * GIB, 24 * GIB)
CPU = Device("cpu", "CPU", 28 * GIB, 32 * GIB)


@pytest.fixture(autouse=True)
def ram(monkeypatch: pytest.MonkeyPatch) -> None:
    plenty = psutil.virtual_memory()._replace(available=28 * GIB, total=32 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: plenty)


def test_it_needs_no_torch() -> None:
    ended = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr


def test_a_card_that_only_llama_cpp_sees_runs_the_best_model() -> None:
    machine = Machine(CPU, VULKAN)
    chosen = machine.choose_default()
    assert (chosen.card, chosen.why, chosen.precision) == (MINISTRAL_3_14B, "model_chosen_gpu_fits", "Q5_K_M")
    assert machine.hindrance is None
    assert Machine(CPU, None).choose_default().precision in ("bfloat16", "nf4", "int8")


def test_an_nvidia_gpu_stays_torch_s() -> None:
    def pace(shape: ModelShape, precision: str) -> tuple[float | None, bool]:
        assert precision not in ("nf4", "bfloat16"), "a GPU is never timed to choose"
        return 9.0, False

    assert Machine(NVIDIA, LITTLE).choose_default(pace)[::2] == (MAGISTRAL_1_2, "nf4")


def test_without_a_name_only_what_is_here_runs() -> None:
    nothing = Held(lambda _: False, lambda _: ())
    assert Machine(CPU, LITTLE).choose_default(held=nothing)[:2] == (DEMO, "model_chosen_not_downloaded")
    one = Held(lambda _: False, lambda card: ("Q6_K",) if card is MINISTRAL_3_8B else ())
    assert Machine(CPU, LITTLE).choose_default(held=one)[::2] == (MINISTRAL_3_8B, "Q6_K")
    other = Held(lambda card: card is MINISTRAL_3_8B, lambda _: ())
    chosen = Machine(CPU, LITTLE).choose_default(held=other)
    assert chosen.card is MINISTRAL_3_8B
    assert chosen.precision in ("bfloat16", "nf4", "int8")


def test_what_runs_now_will_be_free() -> None:
    machine = freed(Machine(CPU, LITTLE), 3 * GIB, "llama.cpp")
    assert machine.torch is not None
    assert machine.llama is not None
    assert (machine.torch.free, machine.llama.free) == (31 * GIB, 31 * GIB)
    assert freed(Machine(None, VULKAN), 9 * GIB, "llama.cpp").place.free == 16 * GIB


def test_a_quantization_is_checked_on_llama_cpp_s_device() -> None:
    machine = Machine(CPU, VULKAN)
    magistral = machine.candidates()[0]
    machine.check(magistral, "Q3_K_M", None)
    with pytest.raises(DeviceTooSmall) as refused:
        Machine(None, LlamaDevice("gpu", "Vulkan", "Arc", 6 * GIB, 6 * GIB)).check(magistral, "BF16", None)
    assert refused.value.message.values["precision"] == "BF16"
    assert machine.needed_bytes(MAGISTRAL_1_2.shape, magistral.plan, 16_384) > 10 * GIB  # type: ignore[arg-type]


def test_paces_are_asked_of_the_library_that_runs_a_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "estimated_gguf_pace", lambda shape, precision, device, rest: 8.0)
    monkeypatch.setattr(module, "measured_pace", lambda *_: None)
    shape = MINISTRAL_3_8B.shape
    assert shape is not None
    assert Machine(None, LITTLE).pace(shape, "Q4_K_M") == (8.0, False)
    assert Machine(None, LITTLE).pace(shape, "nf4") == (None, False)
    assert Machine(None, LITTLE).may_be_slow("Q4_K_M")
    assert not Machine(CPU, VULKAN).may_be_slow("Q4_K_M")
    assert Machine(CPU, VULKAN).may_be_slow("nf4")


def test_a_device_that_llama_cpp_lacks_is_torch_s_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(wanted: str) -> LlamaDevice:
        raise BadSetting("device_not_here", name="--device", value=wanted)

    monkeypatch.setattr(module, "find_llama_device", refuse)
    assert module.find_machine("cpu").llama is None
    monkeypatch.setattr(module, "has_torch", lambda: False)
    with pytest.raises(BadSetting):
        module.find_machine("cpu")


@pytest.mark.parametrize("wanted", ["gpu", "cuda"])
def test_a_device_that_torch_lacks_is_llama_cpp_s_alone(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.setattr(module, "find_llama_device", lambda _: VULKAN)
    assert module.find_machine(wanted) == Machine(None, VULKAN)
    monkeypatch.setattr(module, "has_llama_cpp", lambda: False)
    with pytest.raises(BadSetting):
        module.find_machine(wanted)
