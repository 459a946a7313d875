"""Devices of llama.cpp: what the installed library lists, and cards that it cannot use. Answers of others are made up."""

import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest

from magistral_ui.engines.gguf import devices
from magistral_ui.engines.gguf.devices import (
    LlamaDevice,
    ask_child,
    find_llama_device,
    hindrance_of,
    listing_of,
)
from magistral_ui.engines.weights.gpu_diagnosis import GraphicsCard
from magistral_ui.errors import BadSetting, Message, ModelError
from magistral_ui.i18n.texts import sentence

GIB = 2**30
NVIDIA = GraphicsCard("NVIDIA GeForce RTX 4080", "550.54", 12, (8, 9))
AMD, INTEL = GraphicsCard("AMD", nvidia=False), GraphicsCard("Intel", nvidia=False)
PIP = "pip install --force-reinstall --no-deps xllamacpp=="


def answer(*found: tuple[str, str, str, int, int], system: str = "CPU : AVX2 = 1 | ") -> dict[str, Any]:
    """What child.py says: name, description, type, free and total GiB of each device."""
    cpu = ("CPU", "AMD EPYC", "CPU", 20, 24)
    names = ("name", "description", "type", "free", "total")
    listed = [dict(zip(names, (*each[:3], each[3] * GIB, each[4] * GIB), strict=True)) for each in (*found, cpu)]
    return {"devices": listed, "system": system}


def found(said: dict[str, Any], wanted: str = "auto") -> LlamaDevice:
    return find_llama_device(wanted, lambda: listing_of(said))


@pytest.fixture(autouse=True)
def no_cards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without a graphics card."""
    monkeypatch.setattr(devices, "find_graphics_cards", list)
    monkeypatch.setattr(devices, "DRM", tmp_path)


def test_the_installed_library_lists_the_processor() -> None:
    listing = ask_child()
    assert "CPU" in listing.backends
    device = find_llama_device("cpu", lambda: listing)
    assert (device.kind, device.backend, device.place.type) == ("cpu", "CPU", "cpu")
    assert 0 < device.free <= device.total == psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("name", "backend", "place"),
    [
        ("CUDA0", "CUDA", "cuda"),
        ("ROCm0", "ROCm", "cuda"),
        ("MTL0", "Metal", "mps"),
        ("Metal", "Metal", "mps"),
        ("Vulkan0", "Vulkan", "gpu"),
        ("SYCL0", "SYCL", "gpu"),
        ("GPUOpenCL", "OpenCL", "gpu"),
    ],
)
def test_each_backend_is_named(name: str, backend: str, place: str) -> None:
    device = found(answer((name, "A card", "GPU", 15, 16)))
    assert (device.kind, device.backend, device.name) == ("gpu", backend, "A card")
    assert (device.place.type, device.place.free, device.place.total) == (place, 15 * GIB, 16 * GIB)
    assert device.hindrance is None


def test_several_cards_are_counted_the_freest_first() -> None:
    said = answer(("CUDA0", "Small", "GPU", 5, 8), ("CUDA1", "Large", "GPU", 20, 24), ("Vulkan0", "Small", "GPU", 5, 8))
    device = found(said)
    assert (device.name, [each.name for each in device.others]) == ("Large", ["Small"])
    assert [each.free for each in device.place.all] == [20 * GIB, 5 * GIB]


def test_integrated_graphics_count_where_there_is_no_other_card() -> None:
    inside, card = ("Vulkan0", "Inside", "IGPU", 10, 12), ("Vulkan1", "Card", "GPU", 7, 8)
    assert found(answer(inside)).name == "Inside"
    assert found(answer(inside, card)).name == "Card"
    assert not found(answer(inside, card)).others


def test_what_only_speeds_up_the_processor_is_no_card() -> None:
    assert found(answer(("BLAS", "OpenBLAS", "ACCEL", 0, 0))).kind == "cpu"


def test_the_processor_can_be_chosen_beside_a_card() -> None:
    device = found(answer(("CUDA0", "A card", "GPU", 15, 16)), "cpu")
    assert (device.kind, device.hindrance) == ("cpu", None)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("CUDA0", "cuda"), ("ROCm0", "cuda"), ("MTL0", "mps"), ("Vulkan0", "gpu"), ("CUDA0", "gpu"), ("MTL0", "gpu")],
)
def test_a_card_can_be_chosen(name: str, wanted: str) -> None:
    assert found(answer((name, "A card", "GPU", 15, 16)), wanted).kind == "gpu"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("CPU", "cuda"), ("CPU", "gpu"), ("CPU", "mps"), ("MTL0", "cuda"), ("CUDA0", "mps"), ("Vulkan0", "cuda")],
)
def test_a_device_that_is_not_here_is_refused(name: str, wanted: str) -> None:
    kind = "CPU" if name == "CPU" else "GPU"
    with pytest.raises(BadSetting) as refused:
        found(answer((name, "A card", kind, 15, 16)), wanted)
    assert refused.value.message == Message("device_not_here", {"name": "--device", "value": wanted})


@pytest.mark.parametrize(
    ("card", "system", "wheel"),
    [
        (NVIDIA, "Linux", "cu128"),
        (GraphicsCard("NVIDIA Tesla K80", "470.1", 11, (3, 7)), "Linux", "vulkan"),
        (AMD, "Linux", "rocm-7.2.4"),
        (AMD, "Windows", "vulkan"),
        (INTEL, "Linux", "vulkan"),
    ],
)
def test_a_card_that_the_wheel_cannot_use_is_named_with_one_command(
    monkeypatch: pytest.MonkeyPatch, card: GraphicsCard, system: str, wheel: str
) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    said = hindrance_of([card], frozenset({"CPU"}))
    assert said is not None
    assert said.key == "gguf_card_unused"
    command = str(said.values["command"])
    assert command.startswith(PIP)
    assert command.endswith(f" --index-url https://xorbitsai.github.io/xllamacpp/whl/{wheel}")
    assert command in sentence(said)


def test_a_driver_comes_before_a_wheel() -> None:
    assert hindrance_of([GraphicsCard("NVIDIA")], frozenset()) == Message("gpu_driver_missing", {"card": "NVIDIA"})


def test_a_wheel_for_cards_that_finds_none_says_so() -> None:
    said = hindrance_of([NVIDIA], listing_of(answer(system="CPU : AVX2 = 1 | CUDA : ARCHS = 860 | ")).backends)
    assert said == Message("gguf_card_not_found", {"card": NVIDIA.name, "backend": "CUDA"})


def test_a_machine_without_a_card_has_no_notice() -> None:
    assert hindrance_of([], frozenset()) is None
    assert found(answer()).hindrance is None


def test_a_processor_says_which_card_is_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "find_graphics_cards", lambda: [NVIDIA])
    device = found(answer())
    assert device.kind == "cpu"
    assert device.hindrance is not None
    assert device.hindrance.key == "gguf_card_unused"
    with pytest.raises(BadSetting) as refused:
        found(answer(), "cuda")
    assert refused.value.message == device.hindrance
    assert found(answer(), "cpu").hindrance is None, "it was asked for"


def card_in(folder: Path, name: str, address: str, **files: str) -> None:
    """A card as Linux shows it."""
    device = folder / "pci" / address
    device.mkdir(parents=True)
    for file, text in files.items():
        (device / file).write_text(text + "\n")
    (folder / name).mkdir()
    (folder / name / "device").symlink_to(device)


@pytest.mark.parametrize(
    ("address", "files", "expected"),
    [
        ("0000:03:00.0", {"vendor": "0x1002", "mem_info_vram_total": str(16 * GIB)}, ["AMD"]),
        ("0000:05:00.0", {"vendor": "0x1002", "mem_info_vram_total": str(GIB // 2)}, []),
        ("0000:03:00.0", {"vendor": "0x8086"}, ["Intel"]),
        ("0000:00:02.0", {"vendor": "0x8086"}, []),
        ("0000:03:00.0", {"vendor": "0x1a03"}, []),
        ("0000:03:00.0", {}, []),
    ],
)
def test_cards_of_other_makers_are_found(
    tmp_path: Path, address: str, files: dict[str, str], expected: list[str]
) -> None:
    card_in(tmp_path, "card0", address, **files)
    (tmp_path / "card0-HDMI-A-1").mkdir()
    (tmp_path / "renderD128").mkdir()
    assert [each.name for each in devices.installed_cards()] == expected


def test_the_library_is_asked_once_where_there_is_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, with_card = listing_of(answer()), listing_of(answer(("CUDA0", "A", "GPU", 1, 2)))
    for listing, expected in ((plain, 1), (with_card, 3)):
        asked = Mock(return_value=listing)
        monkeypatch.setattr(devices, "ask_child", asked)
        devices._remembered.cache_clear()
        for _ in range(3):
            find_llama_device()
        assert asked.call_count == expected
    devices._remembered.cache_clear()


@pytest.mark.parametrize(
    ("code", "key"),
    [
        ("raise ModuleNotFoundError('no')", "llama_cpp_missing"),
        ("raise ImportError('libcuda.so.1: cannot open')", "gguf_library_unusable"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "gguf_processor_too_old"),
    ],
)
def test_a_library_that_cannot_be_used_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, key: str
) -> None:
    (tmp_path / "xllamacpp.py").write_text(code)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(ModelError) as failure:
        ask_child()
    assert failure.value.message.key == key
