"""Finds the device on which llama.cpp would run a model, by asking a child process; it loads nothing."""

import platform
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import psutil

from magistral_ui.engines.gguf.child_process import ChildProcess
from magistral_ui.engines.gguf.failure_reasons import PACKAGE, ModelNames, reason_of
from magistral_ui.engines.weights.gpu_diagnosis import GraphicsCard, find_graphics_cards
from magistral_ui.errors import BadSetting, Message, ModelError
from magistral_ui.models.device_budget import DeviceBudget

BACKENDS = {"MTL": "Metal", "GPUOpenCL": "OpenCL"}
"""What llama.cpp calls the devices of a backend, where it is not the backend's name."""
PLACE_TYPES = {"CPU": "cpu", "CUDA": "cuda", "ROCm": "cuda", "Metal": "mps"}
"""What the memory plan calls a backend's devices; `gpu` for all others."""
WANTED = {"cuda": ("CUDA", "ROCm"), "mps": ("Metal",)}
"""The backends that a value of --device stands for, as torch names them."""
INDEX_URL = "https://xorbitsai.github.io/xllamacpp/whl"
NVIDIA_WHEEL, AMD_WHEEL, ANY_WHEEL = "cu128", "rocm-7.2.4", "vulkan"
MIN_CUDA = 12
"""The major CUDA version that a driver must support for NVIDIA_WHEEL."""
DRM = Path("/sys/class/drm")
INTEL, AMD = "0x8086", "0x1002"
"""PCI vendor IDs."""
MIN_VIDEO_MEMORY = 3 * 2**30
"""Bytes of memory of its own from which on an AMD card is worth a notice; those inside processors have less."""
ON_BOARD = "0000:00:"
"""How the PCI addresses of what is inside the processor begin, such as Intel's integrated graphics."""
ASK_TIMEOUT = 90.0
"""Seconds for a child to list the devices; drivers may have to wake them, and the machine may be busy."""
FAILURE_TIMEOUT = 10.0
"""Seconds for the end of a child that could not."""


@dataclass(frozen=True, slots=True)
class LlamaDevice:
    """A device that llama.cpp can use; `free` and `total` are bytes."""

    kind: Literal["cpu", "gpu"]
    backend: str
    """`CPU`, `Metal`, `CUDA`, `ROCm`, `Vulkan`, `SYCL` or another of llama.cpp's names."""
    name: str
    free: int
    total: int
    others: tuple["LlamaDevice", ...] = ()
    """The machine's other graphics cards with the same backend."""
    index: int = 0
    """llama.cpp's number of a graphics card."""
    short_name: str = ""
    """llama.cpp's own name of it, as CUDA0."""
    hindrance: Message | None = field(default=None, compare=False)
    """Why a graphics card that is present is not used, with the remedy."""

    @property
    def place(self) -> DeviceBudget:
        """As the memory plan counts it; `type` is `cpu`, `cuda` (also ROCm), `mps` (Metal) or `gpu` (all others)."""
        others = tuple(each.place for each in self.others)
        host = psutil.virtual_memory().available if self.kind == "gpu" else 0
        return DeviceBudget(
            PLACE_TYPES.get(self.backend, "gpu"), self.free, self.total, others, host=host, index=self.index
        )


@dataclass(frozen=True, slots=True)
class Listing:
    """What the installed library reports."""

    devices: tuple[LlamaDevice, ...]
    """Its graphics cards; integrated ones only where there is no other."""
    backends: frozenset[str] = frozenset()
    """Backends that are built in, as far as the library tells, with or without a device."""


def find_llama_device(wanted: str = "auto", ask: Callable[[], Listing] | None = None) -> LlamaDevice:
    """The device for `--device wanted`: the graphics cards of the installed wheel's backend, or the processor.

    Raises BadSetting if `wanted` is not here, and ModelError if the library cannot be used. Which devices there are is asked
    once, free memory at each call.
    """
    listing = ask() if ask else _listing()
    cards = [each for each in listing.devices if wanted in ("auto", "gpu") or each.backend in WANTED.get(wanted, ())]
    if cards and wanted != "cpu":
        same = sorted((each for each in cards if each.backend == cards[0].backend), key=lambda each: -each.free)
        return replace(same[0], others=tuple(same[1:]))
    hindrance = None if wanted == "cpu" or listing.devices else hindrance_of(installed_cards(), listing.backends)
    if wanted not in ("auto", "cpu"):
        if hindrance is not None and wanted != "mps":
            raise BadSetting(hindrance.key, **hindrance.values)
        raise BadSetting("device_not_here", name="--device", value=wanted)
    memory = psutil.virtual_memory()
    return LlamaDevice("cpu", "CPU", "CPU", memory.available, memory.total, hindrance=hindrance)


def ask_child() -> Listing:
    """What a child process lists. Raises ModelError with the reason why it cannot."""
    names = ModelNames("llama.cpp", "", "", "CPU", 0)
    try:
        child = ChildProcess({"devices": True})
    except OSError as error:
        raise ModelError("gguf_ended", model=names.model, reason=error.strerror or str(error)) from error
    try:
        child.answered.wait(ASK_TIMEOUT)
        answer = child.answer
        if answer is None or "devices" not in answer:
            child.logged.wait(FAILURE_TIMEOUT)
            raise reason_of(names, child.tail(), child.returncode, answer)
    finally:
        child.end()
    return listing_of(answer)


def listing_of(answer: Mapping[str, Any]) -> Listing:
    """What child.py answered, as this module counts it."""
    found = {kind: [each for each in answer["devices"] if each["type"] == kind] for kind in ("GPU", "IGPU")}
    cards = [_device(each, index) for index, each in enumerate(found["GPU"] or found["IGPU"][:1])]
    backends = re.findall(r"(?:^|\| )(\w+) : ", str(answer.get("system", "")))
    return Listing(tuple(cards), frozenset(backends))


def hindrance_of(cards: Iterable[GraphicsCard], backends: frozenset[str]) -> Message | None:
    """Why llama.cpp lists none of `cards`, with the remedy; None if there is none that it could use."""
    card = next(iter(cards), None)
    if card is None:
        return None
    if card.nvidia and not card.driver:
        return Message("gpu_driver_missing", {"card": card.name})
    if found := sorted(backends & {"CUDA", "ROCm", "Vulkan", "SYCL"}):
        return Message("gguf_card_not_found", {"card": card.name, "backend": found[0]})
    return Message("gguf_card_unused", {"card": card.name, "command": install_command(wheel_for(card))})


def wheel_for(card: GraphicsCard) -> str:
    """The build of the library for a card."""
    if card.nvidia:
        return NVIDIA_WHEEL if (card.cuda or 0) >= MIN_CUDA else ANY_WHEEL
    return AMD_WHEEL if card.name.startswith("AMD") and platform.system() == "Linux" else ANY_WHEEL


def install_command(wheel: str) -> str:
    """The command that replaces the installed library by another build of the same version."""
    try:
        pinned = f"{PACKAGE}=={version(PACKAGE).partition('+')[0]}"
    except PackageNotFoundError:
        pinned = PACKAGE
    return f"pip install --force-reinstall --no-deps {pinned} --index-url {INDEX_URL}/{wheel}"


def installed_cards() -> list[GraphicsCard]:
    """The machine's graphics cards, without those inside a processor: a plain build is as fast as these."""
    found = find_graphics_cards()
    if platform.system() == "Windows":
        return found
    return [*(card for card in found if card.nvidia), *_from_drm(AMD, "AMD"), *_from_drm(INTEL, "Intel")]


@lru_cache(maxsize=1)
def _remembered() -> Listing:
    return ask_child()


def _listing() -> Listing:
    """The devices; the library is asked again only where a card's free memory may have changed."""
    asked_before = _remembered.cache_info().currsize
    known = _remembered()
    return ask_child() if known.devices and asked_before else known


def _device(said: Mapping[str, Any], index: int) -> LlamaDevice:
    name = str(said["name"])
    short = name.rstrip("0123456789")
    backend = BACKENDS.get(short, short)
    free, total = int(said["free"]), int(said["total"])
    return LlamaDevice("gpu", backend, str(said["description"]) or backend, free, total, (), index, name)


def _from_drm(vendor: str, name: str) -> list[GraphicsCard]:
    """Cards of a maker that have a driver on Linux."""
    found = []
    for device in sorted(DRM.glob("card[0-9]*/device")):
        if "-" in device.parent.name or _read(device / "vendor") != vendor:  # card0-HDMI-A-1 is a socket of card0
            continue
        memory = _read(device / "mem_info_vram_total")
        integrated = device.resolve().name.startswith(ON_BOARD) or (
            memory.isdecimal() and int(memory) < MIN_VIDEO_MEMORY
        )
        if not integrated:
            found.append(GraphicsCard(name, nvidia=False))
    return found


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
