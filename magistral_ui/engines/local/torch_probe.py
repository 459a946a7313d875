"""Says, for the doctor, which device torch would use and what it finds there; it loads no model.

torch is imported late: what the system knows of its graphics cards is told first, even if torch cannot be imported.
"""

import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from magistral_ui.engines.weights.gpu_diagnosis import find_graphics_cards
from magistral_ui.errors import BadSetting

if TYPE_CHECKING:
    from magistral_ui.engines.weights.devices import Device

COMPILERS = ("cc", "gcc", "clang", "cl")
TRITON = ("triton", "triton-windows", "pytorch-triton-rocm")


def torch_facts(device: str = "auto") -> Iterator[dict[str, Any]]:
    """Facts of torch's device for `--device device`."""
    yield {"stage": "graphics cards"}
    present = find_graphics_cards()
    yield {"present": [each.name for each in present], "driver": next((each.driver for each in present), "")}
    yield {"stage": "torch"}
    import torch

    yield {"version": torch.__version__, "cuda": str(torch.version.cuda or torch.version.hip or "")}
    yield {"threads": torch.get_num_threads()}
    yield {"stage": "bitsandbytes"}
    from magistral_ui.engines.weights.devices import find_device, good_precisions

    yield {"stage": "device"}
    try:
        found = find_device(device)
        hindrance = found.hindrance
    except BadSetting as error:
        found, hindrance = find_device("cpu"), error.message
    if hindrance is not None:
        yield {"hindrance": [hindrance.key, dict(hindrance.values)]}
    yield {"type": found.type, "fused": found.fused, "precisions": good_precisions(found)}
    if found.type != "cpu":
        yield {"cards": [_card(each) for each in found.all]}
    yield {"stage": "kernels"}
    yield from _kernels(found)


def _card(device: "Device") -> dict[str, Any]:
    return {"name": device.name, "free": device.free, "total": device.total, "capability": device.capability}


def _kernels(device: "Device") -> Iterator[dict[str, Any]]:
    from magistral_ui.engines.weights.quantization import has_fast_nf4

    yield {"triton": _triton(), "compiler": next(filter(shutil.which, COMPILERS), "")}
    if device.type == "cpu":
        yield {"fast_nf4": has_fast_nf4()}


def _triton() -> str:
    for name in TRITON:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""
