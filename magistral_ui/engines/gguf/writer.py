"""Writes a GGUF file from metadata and numpy arrays, or zeros; it knows no model."""

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from magistral_ui.models.gguf_header import DEFAULT_ALIGNMENT, MAGIC
from magistral_ui.models.gguf_types import BF16, BLOCKS, F32, TYPE_NUMBERS

VERSION = 3
CONTROL, NORMAL = 3, 1
"""Types of tokens in a vocabulary."""
Value = str | bool | int | float | Sequence[str] | Sequence[int] | Sequence[float]
_TYPES = {np.dtype(np.uint16): BF16, np.dtype(np.float32): F32}
"""How an array's values are stored; numpy has no bfloat16, so its 16 bits stand for it."""
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class Zeros:
    """A tensor of zeros: a hole in the file, which takes no space on most disks."""

    shape: tuple[int, ...]
    """As the file has it: the length of a row comes first."""
    type: str
    """ggml's name of the tensor's type."""

    @property
    def nbytes(self) -> int:
        block, size = BLOCKS[TYPE_NUMBERS[self.type]]
        return prod(self.shape) // block * size


def write_gguf(
    path: Path, metadata: Mapping[str, Value], tensors: Mapping[str, np.ndarray] | Mapping[str, Zeros]
) -> None:
    """Whole numbers become uint32, in lists int32, and fractions float32; an array of uint16 holds bfloat16."""
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    parts += [_text(key) + _value(value) for key, value in metadata.items()]
    offset = 0
    for name, tensor in tensors.items():
        shape, kind = _stored_as(tensor)
        parts.append(_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset))
        offset += tensor.nbytes + _padding(tensor.nbytes)
    header = b"".join(parts)
    with path.open("wb") as out:
        out.write(header + bytes(_padding(len(header))))
        for tensor in tensors.values():
            if isinstance(tensor, Zeros):
                out.seek(tensor.nbytes + _padding(tensor.nbytes), os.SEEK_CUR)
            else:
                out.write(np.ascontiguousarray(tensor).tobytes() + bytes(_padding(tensor.nbytes)))
        out.truncate()


def _stored_as(tensor: np.ndarray | Zeros) -> tuple[tuple[int, ...], int]:
    """The shape and the number of the type in the file."""
    if isinstance(tensor, Zeros):
        return tensor.shape, TYPE_NUMBERS[tensor.type]
    return tensor.shape[::-1], _TYPES[tensor.dtype]


def _padding(length: int) -> int:
    return -length % DEFAULT_ALIGNMENT


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Value) -> bytes:
    if isinstance(value, str | bool | int | float):
        kind, data = _scalar(value, "I")
        return struct.pack("<I", kind) + data
    scalars = [_scalar(each, "i") for each in value]
    return struct.pack("<IIQ", _ARRAY, scalars[0][0], len(scalars)) + b"".join(data for _, data in scalars)


def _scalar(value: str | bool | int | float, whole: str) -> tuple[int, bytes]:
    """GGUF's number for the kind of value, and its bytes; `whole` is how whole numbers are packed."""
    if isinstance(value, str):
        return _STRING, _text(value)
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return (4 if whole == "I" else 5), struct.pack(f"<{whole}", value)
    return 6, struct.pack("<f", value)
