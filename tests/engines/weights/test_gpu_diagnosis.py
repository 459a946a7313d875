"""Why a graphics card cannot be used: each cause has its own sentence with the remedy, found without torch."""

import os
from pathlib import Path

import pytest

from magistral_ui.engines.weights import devices, gpu_diagnosis
from magistral_ui.engines.weights.devices import choose_default, find_device
from magistral_ui.engines.weights.gpu_diagnosis import (
    GraphicsCard,
    TorchBuild,
    cuda_of_driver,
    find_graphics_cards,
    install_command,
    runs_kernels_for,
    why_unusable,
)
from magistral_ui.errors import BadSetting
from magistral_ui.i18n.texts import sentence
from magistral_ui.models.cards import DEMO
from magistral_ui.models.memory import GIB

INDEX = "--index-url https://download.pytorch.org/whl/"
CUDA_13, WITHOUT = TorchBuild("2.13.0", "13.0"), TorchBuild("2.13.0", None)
OLD_DRIVER = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 12060). Please update your driver"
)


def card(driver: str, capability: tuple[int, int] | None = (8, 9), name: str = "RTX 4090") -> GraphicsCard:
    return GraphicsCard(name, driver, cuda_of_driver(driver), capability)


CASES = [
    # cards, torch, CUDA_VISIBLE_DEVICES, key, what the sentence must name, what it must not
    ([card("591.44")], WITHOUT, None, "gpu_torch_without_cuda", f"torch==2.13.0+cu130 {INDEX}cu130", "driver"),
    ([card("560.94")], WITHOUT, None, "gpu_torch_without_cuda", f"torch==2.13.0+cu126 {INDEX}cu126", "cu130"),
    ([card("576.02", (12, 0), "RTX 5090")], WITHOUT, None, "gpu_driver_old", "580", "cu1"),
    ([card("472.12")], WITHOUT, None, "gpu_driver_old", "https://www.nvidia.com/drivers", "pip"),
    ([card("550.54.15")], CUDA_13, None, "gpu_driver_old_or_torch", f"torch==2.13.0+cu126 {INDEX}cu126", "without"),
    ([card("550.54.15")], CUDA_13, None, "gpu_driver_old_or_torch", "580", "{"),
    ([card("572.16", (12, 0))], CUDA_13, None, "gpu_driver_old", "580", "pip"),
    ([card("470.82.01")], TorchBuild("2.13.0", "12.6"), None, "gpu_driver_old", "525", "pip"),
    ([], TorchBuild("2.13.0", "13.0", OLD_DRIVER), None, "gpu_driver_old_or_torch", "CUDA 12.6", "{"),
    ([card("580.65.06")], CUDA_13, "", "gpu_hidden", "CUDA_VISIBLE_DEVICES", "driver"),
    ([card("580.65.06")], CUDA_13, "-1", "gpu_hidden", "“-1”", "driver"),
    ([card("580.65.06")], CUDA_13, "7", "gpu_hidden", "“7”", "driver"),
    ([card("580.65.06", (6, 1), "GTX 1080 Ti")], CUDA_13, None, "gpu_too_old", "7.5", "pip"),
    ([card("535.10", (7, 0), "V100")], WITHOUT, None, "gpu_too_old", "--model owner/name-GGUF", "pip"),
    ([GraphicsCard("NVIDIA")], CUDA_13, None, "gpu_driver_missing", "https://www.nvidia.com/drivers", "pip"),
    ([GraphicsCard("AMD", nvidia=False)], CUDA_13, None, "gpu_not_nvidia", "--model owner/name-GGUF", "pip"),
    (
        [card("580.65.06")],
        TorchBuild("2.13.0", "13.0", "CUDA unknown error. More."),
        None,
        "gpu_not_started",
        "--gpus",
        "{",
    ),
]


@pytest.mark.parametrize(("cards", "torch", "visible", "key", "named", "not_named"), CASES)
def test_each_cause_has_its_remedy(
    cards: list[GraphicsCard], torch: TorchBuild, visible: str | None, key: str, named: str, not_named: str
) -> None:
    told = why_unusable(cards, torch, visible)
    assert told is not None
    said = sentence(told)
    assert told.key == key
    assert named in said
    assert not_named not in said.replace("CUDA_VISIBLE_DEVICES", "")
    assert "{" not in said


def test_no_card_needs_no_reason() -> None:
    assert why_unusable([], CUDA_13, None) is None
    assert why_unusable([], WITHOUT, "") is None


def test_one_card_that_is_too_old_beside_one_that_is_not() -> None:
    told = why_unusable([card("550.1", (6, 1)), card("550.1", (8, 6))], CUDA_13, None)
    assert told is not None
    assert told.key == "gpu_driver_old_or_torch"


@pytest.mark.parametrize(
    ("driver", "cuda"),
    [("580.65.06", 13), ("610.1", 13), ("579.99", 12), ("525.60.13", 12), ("470.82", 11), ("390.1", 10)],
)
def test_drivers_by_the_cuda_that_they_know(driver: str, cuda: int) -> None:
    assert cuda_of_driver(driver) == cuda


def test_a_command_names_the_build_in_the_version_too() -> None:
    """pip takes torch 2.13.0+cpu for the torch==2.13.0 that is asked for, and installs nothing."""
    for driver in ("580.1", "550.1"):
        command = install_command(card(driver), "2.13.0")
        assert command is not None
        build = command.rpartition("/")[2]
        assert f"torch==2.13.0+{build}" in command


@pytest.mark.parametrize(
    ("capability", "runs"), [((7, 5), True), ((8, 9), True), ((9, 0), True), ((7, 0), False), ((12, 0), False)]
)
def test_kernels_run_on_their_own_generation(capability: tuple[int, int], runs: bool) -> None:
    assert runs_kernels_for(capability, ["sm_75", "sm_80", "sm_86", "sm_90"]) is runs
    assert runs_kernels_for(capability, [])
    assert runs_kernels_for((12, 1), ["sm_75", "sm_120", "compute_120"])


def tool(folder: Path, script: str) -> None:
    made = folder / "nvidia-smi"
    made.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    made.chmod(0o755)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine in which nothing is found but what the test puts into this folder."""
    for name in ("PROC", "PCI"):
        monkeypatch.setattr(gpu_diagnosis, name, tmp_path / name.lower())
    monkeypatch.setattr(gpu_diagnosis, "SMI", ())
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


@pytest.mark.skipif(os.name != "posix", reason="a script stands in for the tool")
def test_nvidia_s_tool_is_asked(bare: Path) -> None:
    tool(bare, "echo 'NVIDIA GeForce RTX 3090, 550.54.15, 8.6'")
    assert find_graphics_cards() == [GraphicsCard("NVIDIA GeForce RTX 3090", "550.54.15", 12, (8, 6))]
    tool(bare, 'case "$1" in *compute_cap*) exit 2;; *) echo "Tesla T4, 470.82.01";; esac')
    assert find_graphics_cards() == [GraphicsCard("Tesla T4", "470.82.01", 11)]
    tool(bare, "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9")
    assert find_graphics_cards() == []
    tool(bare, "echo '| NVIDIA-SMI 535.183.01   Driver Version: 535.183.01   CUDA Version: 12.2 |'")
    assert find_graphics_cards() == [GraphicsCard("NVIDIA", "535.183.01", 12)]


def test_without_the_tool_the_driver_is_seen_in_proc(bare: Path) -> None:
    gpu = bare / "proc" / "gpus" / "0000:01:00.0"
    gpu.mkdir(parents=True)
    version = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build\nGCC version: 12.2.0"
    (bare / "proc" / "version").write_text(version, encoding="utf-8")
    (gpu / "information").write_text("Model: \t\t NVIDIA L4\nIRQ: 1\n", encoding="utf-8")
    assert find_graphics_cards() == [GraphicsCard("NVIDIA L4", "570.86.10", 12)]


@pytest.mark.parametrize(("maker", "name"), [("0x10de", "NVIDIA"), ("0x1002", "AMD")])
def test_a_card_without_a_driver_is_seen_on_the_bus(bare: Path, maker: str, name: str) -> None:
    for index, (vendor, kind) in enumerate([(maker, "0x030000"), (maker, "0x040300"), ("0x8086", "0x030000")]):
        device = bare / "pci" / str(index)
        device.mkdir(parents=True)
        (device / "vendor").write_text(vendor + "\n", encoding="utf-8")
        (device / "class").write_text(kind + "\n", encoding="utf-8")
    assert find_graphics_cards() == [GraphicsCard(name, nvidia=name == "NVIDIA")], "sound is no graphics"


def test_windows_without_the_tool(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Driver:
        """As much of nvcuda.dll as is called; arguments by reference have their object in `_obj`."""

        def cuDriverGetVersion(self, version: object) -> int:
            version._obj.value = 12_040  # type: ignore[attr-defined]
            return 0

        def cuInit(self, flags: int) -> int:
            return 0

        def cuDeviceGetCount(self, count: object) -> int:
            count._obj.value = 1  # type: ignore[attr-defined]
            return 0

        def cuDeviceGetName(self, name: object, size: int, index: int) -> int:
            name.value = b"RTX 4080"  # type: ignore[attr-defined]
            return 0

        def cuDeviceGetAttribute(self, value: object, which: int, index: int) -> int:
            value._obj.value = {75: 8, 76: 9}[which]  # type: ignore[attr-defined]
            return 0

    monkeypatch.setattr(gpu_diagnosis, "_nvcuda", Driver)
    assert find_graphics_cards() == [GraphicsCard("RTX 4080", "CUDA 12.4", 12, (8, 9))]


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> list[GraphicsCard]:
    """The cards of a machine on which torch sees none."""
    cards: list[GraphicsCard] = []
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "find_graphics_cards", lambda: cards)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return cards


def test_the_demo_model_runs_with_the_real_reason(idle: list[GraphicsCard], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.torch.version, "cuda", None)
    memory = devices.psutil.virtual_memory()._replace(available=2**32, total=2**32)
    monkeypatch.setattr(devices.psutil, "virtual_memory", lambda: memory)
    assert choose_default(find_device(), lambda _: False)[:2] == (DEMO, "model_chosen_no_gpu")
    idle.append(card("591.44"))
    device = find_device()
    assert device.type == "cpu"
    assert choose_default(device, lambda _: False)[:2] == (DEMO, "model_chosen_gpu_unusable")
    assert device.hindrance is not None
    assert device.hindrance.key == "gpu_torch_without_cuda"
    with pytest.raises(BadSetting) as refused:
        find_device("cuda")
    assert refused.value.message.key == "gpu_torch_without_cuda"
    assert "{" not in sentence(refused.value.message)


def test_who_asked_for_the_processor_hears_nothing_of_cards(idle: list[GraphicsCard]) -> None:
    idle.append(card("550.1"))
    assert find_device("cpu").hindrance is None


def test_no_card_is_said_plainly(idle: list[GraphicsCard]) -> None:
    with pytest.raises(BadSetting) as refused:
        find_device("cuda")
    assert refused.value.message.key == "device_not_here"


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch) -> dict[int, tuple[int, int]]:
    """Cards that torch sees: index → compute capability."""
    capabilities: dict[int, tuple[int, int]] = {}
    cuda = devices.torch.cuda
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(cuda, "get_device_capability", lambda n: capabilities[n])
    monkeypatch.setattr(cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_86", "sm_90"])
    monkeypatch.setattr(cuda, "mem_get_info", lambda n: (20 * GIB + n, 24 * GIB))
    monkeypatch.setattr(cuda, "get_device_name", lambda n: f"card {n}")
    return capabilities


@pytest.mark.parametrize(
    ("capability", "key"), [((6, 1), "gpu_too_old"), ((7, 0), "gpu_too_old"), ((12, 0), "gpu_too_new")]
)
def test_a_card_without_kernels_is_refused_before_anything_is_downloaded(
    lent: dict[int, tuple[int, int]], capability: tuple[int, int], key: str
) -> None:
    lent[0] = capability
    with pytest.raises(BadSetting) as refused:
        find_device("cuda")
    assert refused.value.message.key == key
    assert "card 0" in sentence(refused.value.message)
    device = find_device()
    assert device.type == "cpu"
    assert device.hindrance is not None
    assert device.hindrance.key == key


def test_a_card_without_kernels_is_left_out_where_there_is_another(lent: dict[int, tuple[int, int]]) -> None:
    lent.update({0: (6, 1), 1: (8, 6), 2: (7, 5)})
    found = find_device()
    assert [(each.index, each.fused) for each in found.all] == [(2, False), (1, True)]
    assert [place.fused for place in found.place.all] == [False, True]
