"""Reads the header of a GGUF file: its metadata and the names, shapes and types of its tensors; never the weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO


class GGUFDamaged(ValueError):
    """What was read is not a GGUF header that llama.cpp could use."""


class GGUFCutOff(GGUFDamaged):
    """The header goes beyond the bytes at hand: a file that was cut off, or too short a prefix of one."""


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """Where a tensor is, and how it is stored."""

    name: str
    shape: tuple[int, ...]
    """As the file has it: the length of a row comes first."""
    type: int
    """ggml's number for the tensor's type."""
    offset: int
    """From the header's `data_start`."""
    bytes: int


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """All that stands before the weights."""

    metadata: Mapping[str, Any]
    tensors: tuple[GGUFTensor, ...]
    data_start: int

    @property
    def data_end(self) -> int:
        """Bytes that the file must have at least."""
        return self.data_start + max((tensor.offset + tensor.bytes for tensor in self.tensors), default=0)


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF files do; False if it cannot be read."""
    raise NotImplementedError


def read_header(opened: BinaryIO) -> GGUFHeader:
    """The header at the beginning of `opened`. Raises GGUFCutOff if it ends too early, GGUFDamaged otherwise."""
    raise NotImplementedError
