"""Files that llama.cpp cannot load: each ends the child, never the app, and has a sentence with its reason."""

import struct
from pathlib import Path

import pytest

from magistral_ui.errors import ModelError
from magistral_ui.i18n.texts import strings
from tests.engines.gguf.children import model, supervisor

TENSOR = "blk.1.ffn_gate.weight"
STRING = 8
"""GGUF's number for a value that is a string."""


def spelled(name: str) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode()


def valued(key: str, value: str) -> bytes:
    return spelled(key) + struct.pack("<I", STRING) + spelled(value)


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new, 1)


def with_number(data: bytes, key: str, value: int) -> bytes:
    """The 32-bit value of a metadata key changed."""
    place = data.index(spelled(key)) + len(spelled(key)) + 4
    return data[:place] + struct.pack("<I", value) + data[place + 4 :]


def with_tensor(data: bytes, field: str, value: int) -> bytes:
    """One field of a tensor's entry changed: `count` of dimensions, the first one's `size`, `type` or `offset`."""
    start = data.index(spelled(TENSOR)) + len(spelled(TENSOR))
    (count,) = struct.unpack_from("<I", data, start)
    place, kind = {
        "count": (start, "<I"),
        "size": (start + 4, "<Q"),
        "type": (start + 4 + 8 * count, "<I"),
        "offset": (start + 8 + 8 * count, "<Q"),
    }[field]
    return data[:place] + struct.pack(kind, value) + data[place + struct.calcsize(kind) :]


def broken() -> dict[str, tuple[bytes, str]]:
    """By name: the file, and the key of its sentence."""
    whole = model().read_bytes()
    damaged = {
        "empty": b"",
        "one byte": b"G",
        "only the magic": b"GGUF",
        "a text": b"hello world" * 1_000,
        "a web page": b"<!DOCTYPE html>" * 100,
        "zeros": bytes(100_000),
        "cut in half": whole[: len(whole) // 2],
        "cut in the header": whole[:20_000],
        "cut among the tensors' entries": whole[: whole.index(spelled(TENSOR)) + 10],
        "one byte short": whole[:-1],
        "too many tensors": whole[:8] + struct.pack("<Q", 2**60) + whole[16:],
        "too much metadata": whole[:16] + struct.pack("<Q", 2**60) + whole[24:],
        "of another byte order": whole[:4] + struct.pack(">I", 3) + whole[8:],
        "without a number of layers": replaced(whole, b"llama.block_count", b"llama.block_counx"),
        "with too few layers": with_number(whole, "llama.block_count", 1),
        "of another width": with_number(whole, "llama.embedding_length", 64),
        "without heads": with_number(whole, "llama.attention.head_count", 0),
        "with a tensor missing": replaced(whole, TENSOR.encode(), TENSOR.replace("gate", "gaxe").encode()),
        "with a tensor twice": replaced(whole, TENSOR.encode(), TENSOR.replace("1", "0").encode()),
        "with a tensor beyond its end": with_tensor(whole, "offset", 2**40),
        "with a tensor at an odd place": with_tensor(whole, "offset", 3),
        "with an immense tensor": with_tensor(whole, "size", 2**62),
        "with a tensor of nine dimensions": with_tensor(whole, "count", 9),
    }
    unsupported = {
        "of another architecture": replaced(
            whole, valued("general.architecture", "llama"), valued("general.architecture", "lxama")
        ),
        "with another tokenizer": replaced(
            whole, valued("tokenizer.ggml.model", "gpt2"), valued("tokenizer.ggml.model", "gptx")
        ),
        "with other splitting": replaced(whole, spelled("tekken"), spelled("tekkex")),
        "of a future version": whole[:4] + struct.pack("<I", 99) + whole[8:],
        "of the first version": whole[:4] + struct.pack("<I", 1) + whole[8:],
        "with a future type": with_tensor(whole, "type", 99),
        "with a removed type": with_tensor(whole, "type", 4),
    }
    others = {"with thousands of layers": (with_number(whole, "llama.block_count", 9_999), "gguf_damaged")}
    return (
        {name: (data, "model_files_broken") for name, data in damaged.items()}
        | {name: (data, "gguf_unsupported") for name, data in unsupported.items()}
        | others
    )


@pytest.mark.parametrize("name", broken())
def test_a_broken_file_has_a_sentence(tmp_path: Path, name: str) -> None:
    data, key = broken()[name]
    file = tmp_path / "broken.gguf"
    file.write_bytes(data)
    found = supervisor(file, model_name="Broken")
    with pytest.raises(ModelError) as failure:
        found.start()
    found.close()
    assert failure.value.message.key == key
    assert f"error_{key}" in strings()
    assert failure.value.message.values["model"] == "Broken"
    assert str(tmp_path) not in str(failure.value.message.values), "a visitor would read where files are"
