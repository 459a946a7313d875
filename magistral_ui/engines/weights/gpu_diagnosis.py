"""Finds the machine's GPUs without torch, and explains why torch cannot use them and how to fix it; it uses none itself.

Drivers and cards by CUDA version: NVIDIA's compatibility table, and the support matrix in PyTorch's RELEASE.md.
"""

import ctypes
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magistral_ui.errors import Message, Value

MIN_CAPABILITY = (7, 5)
"""The oldest cards (Turing) for which bitsandbytes has kernels and CUDA 13 still compiles."""
MIN_DRIVER = {11: 450, 12: 525, 13: 580}
"""Major driver version needed for each major CUDA version: any CUDA 12 runs on any driver for CUDA 12."""
OLD_CUDA, NEW_CUDA = "cu126", "cu130"
"""PyTorch builds for CUDA 12, which supports compute capability up to 9.0, and for CUDA 13."""
MAX_OLD_CUDA_CAPABILITY = (9, 0)
PYTORCH_INDEX_URL = "https://download.pytorch.org/whl"
NVIDIA, AMD = "0x10de", "0x1002"
"""PCI vendor IDs."""
PCI_GPU_CLASSES = ("0x03", "0x12")
"""PCI class prefixes of display controllers and processing accelerators."""
PROC = Path("/proc/driver/nvidia")
PCI = Path("/sys/bus/pci/devices")
SYSTEM = Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32"
SMI = (
    Path("/usr/lib/wsl/lib/nvidia-smi"),
    Path("/usr/bin/nvidia-smi"),
    SYSTEM / "nvidia-smi.exe",
    Path(os.environ.get("PROGRAMFILES", r"C:\Program Files")) / "NVIDIA Corporation" / "NVSMI" / "nvidia-smi.exe",
)
"""Where nvidia-smi is found when it is not on PATH."""
NVIDIA_SMI_TIMEOUT = 15
"""Seconds for nvidia-smi, which has to wake sleeping cards."""
HIDDEN_DEVICES = ("", "-1", "none", "void", "nodevfiles")
"""Values of CUDA_VISIBLE_DEVICES that hide all cards."""
_DRIVER = re.compile(r"\b(\d{3}\.\d+(?:\.\d+)?)\b")
_TOO_OLD = re.compile(r"too old \(found version (\d+)\)")


@dataclass(frozen=True, slots=True)
class GraphicsCard:
    """A graphics card as the system or its driver reports it."""

    name: str
    driver: str = ""
    """The driver's version; empty if there is no working driver."""
    cuda: int | None = None
    """The newest major CUDA version that the driver supports."""
    capability: tuple[int, int] | None = None
    nvidia: bool = True


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """What is known of the installed torch, to explain why it sees no GPU."""

    version: str
    """Without the local part after the plus sign."""
    cuda: str | None
    """The CUDA version it was built for; None for a CPU build."""
    error: str = ""
    """Torch's own message about why CUDA does not start."""


def find_graphics_cards() -> list[GraphicsCard]:
    nvidia = _from_smi() or _from_proc() or _from_windows() or _from_pci(NVIDIA, "NVIDIA")
    return [*nvidia, *_from_pci(AMD, "AMD"), *_amd_on_windows()]


def why_unusable(cards: Iterable[GraphicsCard], torch: TorchBuild, visible: str | None) -> Message | None:
    """Why `torch` sees none of `cards`, and the remedy; None if there is no card that it could use.

    `visible` is the value of CUDA_VISIBLE_DEVICES.
    """
    found = list(cards)
    card = next((each for each in found if each.nvidia), None)
    old = _TOO_OLD.search(torch.error)
    if card is None and old is not None:
        card = GraphicsCard("NVIDIA")
    if card is None:
        return Message("gpu_not_nvidia", {"card": found[0].name}) if found else None
    if old is not None and not card.driver:
        card = GraphicsCard(card.name, f"CUDA {int(old[1]) // 1000}.{int(old[1]) % 1000 // 10}", int(old[1]) // 1000)
    if visible is not None and visible.strip().lower() in HIDDEN_DEVICES:
        return Message("gpu_hidden", {"card": card.name, "value": visible.strip()})
    capabilities = [each.capability for each in found if each.nvidia and each.capability]
    if capabilities and max(capabilities) < MIN_CAPABILITY:
        return too_old(card.name, max(capabilities))
    if not card.driver:
        return Message("gpu_driver_missing", {"card": card.name})
    command = install_command(card, torch.version)
    needed = int(torch.cuda.partition(".")[0]) if torch.cuda else max(MIN_DRIVER)
    if torch.cuda is None and command is not None:
        return Message("gpu_torch_without_cuda", {"card": card.name, "command": command})
    if card.cuda is not None and card.cuda < needed:
        least = MIN_DRIVER.get(needed, max(MIN_DRIVER.values()))
        values: dict[str, Value] = {"card": card.name, "driver": card.driver, "needed": least}
        if command is None:
            return Message("gpu_driver_old", values)
        return Message("gpu_driver_old_or_torch", values | {"command": command})
    if visible is not None:
        return Message("gpu_hidden", {"card": card.name, "value": visible.strip()})
    return not_started(card.name, torch.error)


def not_started(name: str, error: str) -> Message:
    return Message("gpu_not_started", {"card": name, "reason": _first_sentence(error)})


def too_old(name: str, capability: tuple[int, int]) -> Message:
    values = {"found": f"{capability[0]}.{capability[1]}", "needed": f"{MIN_CAPABILITY[0]}.{MIN_CAPABILITY[1]}"}
    return Message("gpu_too_old", {"card": name, **values})


def too_new(name: str, version: str) -> Message:
    return Message("gpu_too_new", {"card": name, "command": _command(version, NEW_CUDA)})


def runs_kernels_for(capability: tuple[int, int], built_for: Iterable[str]) -> bool:
    """Whether a GPU of `capability` runs what torch was `built_for` (`sm_86`, `compute_120`); True if that is unknown.

    Machine code (`sm_…`) runs on its own generation from its own minor version on, PTX (`compute_…`) on all later GPUs.
    """
    known = [(kind, divmod(int(number), 10)) for kind, number in re.findall(r"(sm|compute)_(\d+)", " ".join(built_for))]
    if not known:
        return True
    return any(
        step <= capability if kind == "compute" else step[0] == capability[0] and step <= capability
        for kind, step in known
    )


def install_command(card: GraphicsCard, version: str) -> str | None:
    """The command that installs a torch for `card` and its driver; None if only a newer driver helps."""
    if card.cuda is None or card.cuda >= 13:
        return _command(version, NEW_CUDA)
    young = card.capability is not None and card.capability > MAX_OLD_CUDA_CAPABILITY
    return _command(version, OLD_CUDA) if card.cuda == 12 and not young else None


def _command(version: str, build: str) -> str:
    """The version names its build, since pip takes any installed build of a version as satisfying it."""
    return f"pip install torch=={version}+{build} --index-url {PYTORCH_INDEX_URL}/{build}"


def cuda_of_driver(driver: str) -> int | None:
    """The newest major CUDA version that a driver of this version supports."""
    first = driver.partition(".")[0]
    if not first.isdigit():
        return None
    return max((cuda for cuda, least in MIN_DRIVER.items() if int(first) >= least), default=min(MIN_DRIVER) - 1)


def _from_smi() -> list[GraphicsCard]:
    """What nvidia-smi reports; older versions do not know the compute capability."""
    tool = shutil.which("nvidia-smi") or next((str(place) for place in SMI if place.is_file()), None)
    if tool is None:
        return []
    for fields in ("name,driver_version,compute_cap", "name,driver_version"):
        output = _run(tool, f"--query-gpu={fields}", "--format=csv,noheader")
        if found := [card for line in output.splitlines() if (card := _read_line(line))]:
            return found
    plain = re.search(r"Driver Version:\s*([\d.]+)", _run(tool))
    return [GraphicsCard("NVIDIA", plain[1], cuda_of_driver(plain[1]))] if plain else []


def _run(*command: str) -> str:
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=NVIDIA_SMI_TIMEOUT, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return ended.stdout if ended.returncode == 0 else ""


def _read_line(line: str) -> GraphicsCard | None:
    """`NVIDIA GeForce RTX 4090, 550.54.15, 8.9`, or without the last."""
    name, *rest = (part.strip() for part in line.split(","))
    if not name or not rest or not _DRIVER.fullmatch(rest[0]):
        return None
    capability = re.fullmatch(r"(\d+)\.(\d+)", rest[1]) if len(rest) > 1 else None
    step = (int(capability[1]), int(capability[2])) if capability else None
    return GraphicsCard(name, rest[0], cuda_of_driver(rest[0]), step)


def _from_proc() -> list[GraphicsCard]:
    """What the Linux driver reports in /proc, even in a container without its tools."""
    version = _DRIVER.search(_read(PROC / "version"))
    if version is None:
        return []
    names = [re.search(r"^Model:\s*(.+?)\s*$", _read(file), re.M) for file in sorted(PROC.glob("gpus/*/information"))]
    driver = version[1]
    found = [name[1] for name in names if name] or ["NVIDIA"]
    return [GraphicsCard(name, driver, cuda_of_driver(driver)) for name in found]


def _from_windows() -> list[GraphicsCard]:
    """What the driver's library reports on Windows, where nvidia-smi may be missing."""
    library = _nvcuda()
    version, count = ctypes.c_int(), ctypes.c_int()
    if library is None or library.cuDriverGetVersion(ctypes.byref(version)) or library.cuInit(0):
        return []
    if library.cuDeviceGetCount(ctypes.byref(count)):
        return []
    cards = []
    for index in range(count.value):
        name, major, minor = ctypes.create_string_buffer(256), ctypes.c_int(), ctypes.c_int()
        library.cuDeviceGetName(name, len(name), index)
        library.cuDeviceGetAttribute(ctypes.byref(major), 75, index)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
        library.cuDeviceGetAttribute(ctypes.byref(minor), 76, index)
        driver = f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
        step = (major.value, minor.value)
        cards.append(GraphicsCard(name.value.decode(errors="replace"), driver, version.value // 1000, step))
    return cards


def _nvcuda() -> Any:
    if platform.system() != "Windows":
        return None
    try:
        return ctypes.WinDLL("nvcuda.dll")  # type: ignore[attr-defined,unused-ignore]  # Windows only
    except OSError:
        return None


def _from_pci(maker: str, name: str) -> list[GraphicsCard]:
    """What Linux finds on the PCI bus, with or without a driver."""
    there = PCI.glob("*") if PCI.is_dir() else ()
    return [
        GraphicsCard(name, nvidia=maker == NVIDIA)
        for device in sorted(there)
        if _read(device / "vendor").strip() == maker and _read(device / "class").startswith(PCI_GPU_CLASSES)
    ]


def _amd_on_windows() -> list[GraphicsCard]:
    """AMD's Windows driver installs its HIP library."""
    there = platform.system() == "Windows" and any(SYSTEM.glob("amdhip64*.dll"))
    return [GraphicsCard("AMD", nvidia=False)] if there else []


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _first_sentence(message: str) -> str:
    first = (message.strip().splitlines() or ["?"])[0]  # the rest is about drivers and addresses
    return first.removeprefix("CUDA initialization: ")[:200].rstrip(" .")
