"""Reads the header of a GGUF file: its metadata and the names, shapes and types of its tensors; never the weights.

What llama.cpp would refuse (ggml/src/gguf.cpp) is refused here too. Long arrays and texts that are never used, such as the
merges of a vocabulary, are skipped. No length in a file makes this take much memory or time.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from magistral_ui.models.gguf_types import BLOCKS

MAGIC = b"GGUF"
VERSIONS = (2, 3)
"""They differ only in that files of version 3 may be big-endian, which llama.cpp refuses on a little-endian machine."""
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4
MAX_TENSOR_NAME = 63
"""Bytes of a tensor's name, as in ggml."""
MAX_ELEMENTS = 2**63 - 1
MAX_HEADER_BYTES = 2**25
"""A vocabulary of 131,072 tokens makes a header of 7.5 MiB, one of 262,144 tokens twice that."""
MAX_FIELDS = MAX_TENSORS = 2**16
MAX_STRINGS = 2**20
"""Strings in all arrays of a header together."""
MAX_KEPT_ENTRIES = 1_024
MAX_KEPT_TEXT = 2**16
"""Longer arrays and texts (bytes) are skipped, except for the tokens."""
TOKENS = "tokenizer.ggml.tokens"
ALIGNMENT = "general.alignment"
READ_BLOCK = 2**22

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_UINT32, _STRING, _ARRAY = 4, 8, 9
_U64 = struct.Struct("<Q")


class GGUFDamaged(ValueError):
    """What was read is not a GGUF header that llama.cpp could use."""


class GGUFCutOff(GGUFDamaged):
    """The header goes beyond the bytes at hand: a file that was cut off, or too short a prefix of one."""


class GGUFVersionUnknown(GGUFDamaged):
    """A version of the format that llama.cpp no longer reads or does not read yet, or big-endian."""


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
    """Without long arrays and texts, except for the tokens."""
    tensors: tuple[GGUFTensor, ...]
    data_start: int

    @property
    def data_end(self) -> int:
        """Bytes that the file must have at least."""
        return self.data_start + max((tensor.offset + tensor.bytes for tensor in self.tensors), default=0)


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF files do; False if it cannot be read."""
    try:
        if not path.is_file():  # a pipe would block
            return False
        with path.open("rb") as opened:
            return opened.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):
        return False


def read_header(opened: BinaryIO) -> GGUFHeader:
    """The header at the beginning of `opened`. Raises GGUFCutOff if it ends too early, GGUFDamaged otherwise."""
    header = _Bytes(opened)
    if header.take(len(MAGIC)) != MAGIC:
        _refuse("not a GGUF file")
    version, tensors, fields = header.number("I"), header.number("Q"), header.number("Q")
    if version not in VERSIONS:
        raise GGUFVersionUnknown(f"version {version}")
    if tensors > MAX_TENSORS or fields > MAX_FIELDS:
        _refuse(f"{tensors} tensors, {fields} fields")
    metadata = _read_metadata(header, fields)
    alignment = metadata.get(ALIGNMENT, DEFAULT_ALIGNMENT)
    if alignment < 1 or alignment & (alignment - 1):
        _refuse(f"alignment {alignment}")
    read = _read_tensors(header, tensors, alignment)
    return GGUFHeader(metadata, read, _padded(header.position, alignment) if read else header.position)


def _refuse(reason: str) -> NoReturn:
    raise GGUFDamaged(reason)


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


class _Bytes:
    """The first MAX_HEADER_BYTES of a file, read as far as they are asked for."""

    def __init__(self, opened: BinaryIO) -> None:
        self.position = 0
        self._opened = opened
        self._data = bytearray()
        self._strings = 0

    def _require(self, end: int) -> None:
        """Have the bytes up to `end` read."""
        if end > MAX_HEADER_BYTES:
            _refuse("header too long")
        while end > len(self._data):
            block = self._opened.read(READ_BLOCK)
            if not block:
                raise GGUFCutOff(f"ends after {len(self._data)} bytes")
            self._data += block

    def skip(self, count: int) -> None:
        self._require(self.position + count)
        self.position += count

    def take(self, count: int) -> bytearray:
        self.skip(count)
        return self._data[self.position - count : self.position]

    def number(self, kind: str) -> Any:
        return struct.unpack("<" + kind, self.take(struct.calcsize("<" + kind)))[0]

    def numbers(self, kind: str, count: int) -> list[Any]:
        return list(struct.unpack(f"<{count}{kind}", self.take(count * struct.calcsize("<" + kind))))

    def text(self) -> str | None:
        """None if it is too long to be of interest."""
        length = self.number("Q")
        if length > MAX_KEPT_TEXT:
            self.skip(length)
            return None
        return self.take(length).decode("utf-8", "replace")

    def strings(self, count: int, *, keep: bool) -> list[str]:
        """The next `count` strings, or none of them; a vocabulary has half a million, so this loop is written out."""
        self._strings += count
        if self._strings > MAX_STRINGS:
            _refuse(f"{self._strings} strings")
        data, position, have = self._data, self.position, len(self._data)
        kept: list[str] = []
        for _ in range(count):
            if position + 8 > have:
                self._require(position + 8)
                have = len(data)
            end = position + 8 + _U64.unpack_from(data, position)[0]
            if end > have:
                self._require(end)
                have = len(data)
            if keep:
                kept.append(data[position + 8 : end].decode("utf-8", "replace"))
            position = end
        self.position = position
        return kept


def _read_metadata(header: _Bytes, fields: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    keys: set[str] = set()
    for _ in range(fields):
        key, kind = header.text(), header.number("I")
        if not key or key in keys:
            _refuse(f"key {key!r:.80}")
        keys.add(key)
        if key == ALIGNMENT and kind != _UINT32:
            _refuse(f"alignment of kind {kind}")
        value = _read_array(header, key) if kind == _ARRAY else _read_value(header, kind)
        if value is not None:
            metadata[key] = value
    return metadata


def _read_value(header: _Bytes, kind: int) -> Any:
    if kind == _STRING:
        return header.text()
    if kind not in _NUMBERS:
        _refuse(f"kind {kind}")
    return header.number(_NUMBERS[kind])


def _read_array(header: _Bytes, key: str) -> list[Any] | None:
    """None if it is too long to be of interest."""
    kind, count = header.number("I"), header.number("Q")
    keep = count <= MAX_KEPT_ENTRIES or key == TOKENS
    if kind == _STRING:
        strings = header.strings(count, keep=keep)
        return strings if keep else None
    if kind not in _NUMBERS:
        _refuse(f"array of kind {kind}")  # llama.cpp takes no arrays of arrays
    if keep:
        return header.numbers(_NUMBERS[kind], count)
    header.skip(count * struct.calcsize("<" + _NUMBERS[kind]))
    return None


def _read_tensors(header: _Bytes, count: int, alignment: int) -> tuple[GGUFTensor, ...]:
    """The tensors, each of which must begin where the one before ends."""
    tensors: dict[str, GGUFTensor] = {}
    expected = 0
    for _ in range(count):
        name = header.text()
        if name is None or len(name.encode()) > MAX_TENSOR_NAME or name in tensors:
            _refuse(f"tensor {name!r:.80}")
        dimensions = header.number("I")
        if dimensions > MAX_DIMENSIONS:
            _refuse(f"{dimensions} dimensions")
        shape = tuple(header.numbers("Q", dimensions))
        kind, offset = header.number("I"), header.number("Q")
        block, size = BLOCKS.get(kind, (0, 0))
        row = shape[0] if shape else 1
        if not block or row % block or prod(shape) > MAX_ELEMENTS:
            _refuse(f"{name}: {shape} of type {kind}")
        tensor = GGUFTensor(name, shape, kind, offset, prod(shape) // block * size)
        if offset != expected:
            _refuse(f"{name}: at {offset} instead of {expected}")
        expected = _padded(offset + tensor.bytes, alignment)
        tensors[name] = tensor
    return tuple(tensors.values())
