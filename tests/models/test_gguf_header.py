"""GGUF headers: read as llama.cpp reads them, and within bounds whatever a file says."""

import io
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path

import gguf
import pytest
from gguf.constants import GGML_QUANT_SIZES
from hypothesis import given
from hypothesis import strategies as st

from magistral_ui.models import gguf_header
from magistral_ui.models.gguf_header import (
    MAGIC,
    MAX_HEADER_BYTES,
    MAX_STRINGS,
    READ_BLOCK,
    TOKENS,
    GGUFCutOff,
    GGUFDamaged,
    is_gguf,
    read_header,
)
from magistral_ui.models.gguf_types import FILE_TYPES, TYPES
from tests.servers.broken_gguf import DAMAGED, demo_bytes, demo_parts, write_demo

MEMORY_LIMIT = 200_000_000


def test_it_says_what_the_format_s_own_library_says(tmp_path: Path) -> None:
    path = write_demo(tmp_path / "demo.gguf")
    with path.open("rb") as opened:
        header = read_header(opened)
    reader = gguf.GGUFReader(path)
    assert header.data_start == reader.data_offset
    for found, expected in zip(header.tensors, reader.tensors, strict=True):
        assert found.name == expected.name
        assert found.shape == tuple(expected.shape.tolist())
        assert found.type == expected.tensor_type
        assert header.data_start + found.offset == expected.data_offset
        assert found.bytes == expected.n_bytes
    for key, value in header.metadata.items():
        assert value == reader.fields[key].contents(), key
    assert header.data_end <= path.stat().st_size < header.data_end + 32


def test_long_arrays_and_texts_are_skipped(tmp_path: Path) -> None:
    path = write_demo(tmp_path / "demo.gguf", {"tokenizer.chat_template": "x" * 100_000, "general.name": "Demo"})
    with path.open("rb") as opened:
        metadata = read_header(opened).metadata
    assert {"tokenizer.ggml.merges", "tokenizer.ggml.token_type", "tokenizer.chat_template"}.isdisjoint(metadata)
    assert metadata[TOKENS] == demo_parts()[0][TOKENS]
    assert metadata["general.name"] == "Demo"


def test_types_and_quantizations_are_the_format_s() -> None:
    own = {kind: (block, size) for kind, (_, block, size) in TYPES.items()}
    for kind, sizes in GGML_QUANT_SIZES.items():
        assert TYPES[kind.value][0] == kind.name
        # The library counts two floats for a block of Q8_1, where llama.cpp has two halves; no file holds any.
        assert kind.name == "Q8_1" or own[kind.value] == sizes
    for kind in gguf.LlamaFileType:
        if kind.name != "GUESSED":
            assert FILE_TYPES[kind.value] == kind.name.split("_", 1)[1]


@pytest.mark.parametrize("fault", DAMAGED)
def test_what_is_damaged_in_itself_is_refused(tmp_path: Path, fault: str) -> None:
    """Or it is a header, though not that of a model; then `inspect_gguf` refuses it."""
    write, key = DAMAGED[fault]
    write(tmp_path / "x.gguf")
    with (tmp_path / "x.gguf").open("rb") as opened:
        try:
            header = read_header(opened)
        except GGUFDamaged:
            return
    assert key == "gguf_damaged" or header.data_end > (tmp_path / "x.gguf").stat().st_size


@given(length=st.integers(0, 60_000))
def test_every_prefix_is_cut_off(length: int) -> None:
    data = demo_bytes()
    header = read_header(io.BytesIO(data))
    with pytest.raises(GGUFCutOff):
        read_header(io.BytesIO(data[: length % (header.data_start - 64)]))


def test_the_header_alone_is_enough() -> None:
    data = demo_bytes()
    header = read_header(io.BytesIO(data))
    assert read_header(io.BytesIO(data[: header.data_start])) == header


class Counting(io.BytesIO):
    """A file that counts what is read of it."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


def test_only_the_header_is_read() -> None:
    opened = Counting(demo_bytes() + bytes(3 * READ_BLOCK))
    read_header(opened)
    assert opened.count == READ_BLOCK


def strings(length: int, count: int) -> bytes:
    """A header with one array of strings."""
    name = TOKENS.encode()
    start = MAGIC + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", len(name)) + name
    return start + struct.pack("<IIQ", 9, 8, count) + (struct.pack("<Q", length) + "é".encode() * (length // 2)) * count


@pytest.mark.parametrize(
    ("length", "count"), [(0, 2**20), (0, 2**16), (24, 2**16), (2**10, 2_000), (2**20, 40)], ids=str
)
def test_no_header_takes_much_memory(monkeypatch: pytest.MonkeyPatch, length: int, count: int) -> None:
    """With a sixteenth of the bounds, because counting memory is slow."""
    monkeypatch.setattr(gguf_header, "MAX_HEADER_BYTES", MAX_HEADER_BYTES // 16)
    monkeypatch.setattr(gguf_header, "MAX_STRINGS", MAX_STRINGS // 16)
    monkeypatch.setattr(gguf_header, "READ_BLOCK", READ_BLOCK // 16)
    opened = Counting(strings(length, count)[:-1])
    tracemalloc.start()
    try:
        with pytest.raises(GGUFDamaged):
            read_header(opened)
        assert tracemalloc.get_traced_memory()[1] < MEMORY_LIMIT / 16
    finally:
        tracemalloc.stop()
    assert opened.count <= (MAX_HEADER_BYTES + READ_BLOCK) // 16


def test_a_vocabulary_of_131_072_tokens_takes_little_memory() -> None:
    tracemalloc.start()
    try:
        header = read_header(io.BytesIO(strings(16, 131_072)))
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()
    assert len(header.metadata[TOKENS]) == 131_072


@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_header_or_damaged(data: bytes) -> None:
    for start in (b"", b"GGUF", b"GGUF" + struct.pack("<IQQ", 3, 1, 1)):
        with suppress(GGUFDamaged):
            read_header(io.BytesIO(start + data))


def test_a_file_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    model = write_demo(tmp_path / "no suffix")
    assert is_gguf(model)
    (tmp_path / "x.gguf").write_bytes(b"GGU")
    assert not is_gguf(tmp_path / "x.gguf")
    assert not is_gguf(tmp_path)
    assert not is_gguf(tmp_path / "missing.gguf")
    assert not is_gguf(Path("a" * 10_000))
    assert not is_gguf(Path("a\0b"))
