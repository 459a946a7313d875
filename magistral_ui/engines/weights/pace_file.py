"""Remembers how many tokens per second models write on this machine, in a small file beside the quantized copies; runs nothing.

Whatever is wrong with that file, it is as if nothing were known.
"""

import json
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from magistral_ui.engines.weights.quantized_cache import copies_folder
from magistral_ui.models.ladder import Pace
from magistral_ui.models.memory import PRECISIONS
from magistral_ui.models.shape import ModelShape

VERSION = 1
TORCH_PRECISIONS = ("float32", *PRECISIONS)
"""All others are llama.cpp's, which has more than are listed anywhere: IQ4_XS, UD-Q4_K_XL."""
OLD_SHARE = 0.7
"""Weight of what was known in a new measurement, so that one unusual reply changes little."""


class NamedDevice(Protocol):
    """torch's device, or llama.cpp's."""

    @property
    def name(self) -> str:
        """As its driver calls it."""


@dataclass(frozen=True, slots=True)
class _Known:
    """Tokens per second by key."""

    estimated: dict[str, float]
    measured: dict[str, float]


def known_pace(device: NamedDevice) -> Pace:
    """The paces on `device` that are known at this moment: measured if the model ran here, or else estimated."""
    known = _read()

    def pace(shape: ModelShape, precision: str) -> tuple[float | None, bool]:
        key = _key(shape, precision, device)
        return (known.measured[key], True) if key in known.measured else (known.estimated.get(key), False)

    return pace


def measured_pace(shape: ModelShape, precision: str, device: NamedDevice) -> float | None:
    """Tokens per second of replies that a model of this shape wrote here; None if there were none."""
    return _read().measured.get(_key(shape, precision, device))


def record_pace(shape: ModelShape, precision: str, device: NamedDevice, tokens_per_second: float) -> None:
    """Remember the pace of a reply. `precision` is one of torch's, or a quantization of llama.cpp's."""
    known, key = _read(), _key(shape, precision, device)
    old = known.measured.get(key, tokens_per_second)
    known.measured[key] = round(OLD_SHARE * old + (1 - OLD_SHARE) * tokens_per_second, 3)
    _write(known)


def known_estimate(shape: ModelShape, precision: str, device: NamedDevice) -> float | None:
    """The estimate that was kept; None if there is none."""
    return _read().estimated.get(_key(shape, precision, device))


def keep_estimate(shape: ModelShape, precision: str, device: NamedDevice, tokens_per_second: float) -> None:
    keep_estimates(shape, {precision: tokens_per_second}, device)


def keep_estimates(shape: ModelShape, paces: Mapping[str, float], device: NamedDevice) -> None:
    """Remember tokens per second by precision."""
    known = _read()
    known.estimated.update((_key(shape, precision, device), pace) for precision, pace in paces.items())
    _write(known)


def _key(shape: ModelShape, precision: str, device: NamedDevice) -> str:
    sizes = (
        shape.hidden,
        shape.intermediate,
        shape.layers,
        shape.heads,
        shape.kv_heads,
        shape.head_dim,
        shape.vocabulary,
    )
    model = "x".join(map(str, sizes))
    return f"{model} {precision} {device.name} {_runtime(precision)}"


def _runtime(precision: str) -> str:
    """What runs a model in `precision`: with another version, or other threads, it is another pace."""
    if precision not in TORCH_PRECISIONS:
        return _llama_cpp()
    import torch  # only where it is installed anyway

    return f"{torch.__version__} {torch.get_num_threads()}"


@cache
def _llama_cpp() -> str:
    """Read once: it takes milliseconds, and each reply's pace is recorded."""
    try:
        return f"llama.cpp {version('xllamacpp')}"
    except PackageNotFoundError:
        return "llama.cpp"


def _file() -> Path:
    return copies_folder().with_name("pace.json")


def _read() -> _Known:
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
        if found["version"] == VERSION:
            return _Known(_paces(found["estimated"]), _paces(found["measured"]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        pass
    return _Known({}, {})


def _paces(found: dict[str, Any]) -> dict[str, float]:
    return {key: float(pace) for key, pace in found.items() if isinstance(pace, int | float) and 0 < pace < 1e6}


def _write(known: _Known) -> None:
    """Replace the file as a whole; if that fails, nothing is remembered."""
    file = _file()
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f"{file.name}.{os.getpid()}-{threading.get_ident()}.partial")
        unfinished.write_text(json.dumps({"version": VERSION, **asdict(known)}, indent=1), encoding="utf-8")
        unfinished.replace(file)
