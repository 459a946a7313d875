"""GGUF files that cannot run, made of the demo model's: damaged ones, hostile ones, and those that hold something else."""

import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from magistral_ui.engines.gguf.demo_file import Parts, mmproj_parts, model_parts
from magistral_ui.engines.gguf.writer import write_gguf
from magistral_ui.models.gguf_vocabulary import BYTES

MARK = "[THINK]"
TENSORS, FIELDS = 8, 16
"""Where in a file the two counts are."""
SKIPPED = "tokenizer.ggml.merges"


@cache
def demo_parts() -> Parts:
    return model_parts()


def write_demo(
    path: Path, metadata: dict[str, Any] | None = None, tensors: dict[str, np.ndarray] | None = None
) -> Path:
    """The demo model with other metadata or tensors; what is None is left out."""
    known, arrays = demo_parts()
    told = {key: value for key, value in {**known, **(metadata or {})}.items() if value is not None}
    write_gguf(path, told, arrays if tensors is None else tensors)
    return path


def write_split(folder: Path, count: int, stem: str = "demo") -> list[Path]:
    """The demo model over `count` files, as llama.cpp's own tool splits it."""
    metadata, tensors = demo_parts()
    names = list(tensors)
    files = []
    for number in range(count):
        part = {"split.no": number, "split.count": count, "split.tensors.count": len(names)}
        chosen = {name: tensors[name] for name in names[number::count]}
        file = folder / f"{stem}-{number + 1:05}-of-{count:05}.gguf"
        write_gguf(file, {**metadata, **part} if number == 0 else part, chosen)
        files.append(file)
    return files


@cache
def demo_bytes() -> bytes:
    """The demo model's file, without the merges, which only make it longer."""
    with tempfile.TemporaryDirectory() as folder:
        return write_demo(Path(folder) / "demo.gguf", {SKIPPED: None}).read_bytes()


def patched(after: bytes, skip: int, format: str, *values: Any) -> Callable[[Path], None]:
    """The demo's file with `values` packed `skip` bytes after the first place that has `after`."""

    def write(path: Path) -> None:
        data = bytearray(demo_bytes())
        struct.pack_into(format, data, data.index(after) + len(after) + skip, *values)
        path.write_bytes(data)

    return write


def rewritten(**metadata: Any) -> Callable[[Path], None]:
    """The demo's file with other metadata; `__` stands for a dot."""
    told = {key.replace("__", "."): value for key, value in metadata.items()}
    return lambda path: path.write_bytes(write_demo(path, {SKIPPED: None, **told}).read_bytes())


def cut(begin: int | None, end: int | None) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(demo_bytes()[begin:end]) and None


def _raw(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


def _with_field(field: bytes) -> Callable[[Path], None]:
    """The demo's file with one more field in front; what follows is not aligned any more."""

    def write(path: Path) -> None:
        data = demo_bytes()
        (count,) = struct.unpack_from("<Q", data, FIELDS)
        path.write_bytes(data[:FIELDS] + struct.pack("<Q", count + 1) + field + data[FIELDS + 8 :])

    return write


def _key(name: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name


def _other_tensors(change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> Callable[[Path], None]:
    return lambda path: write_demo(path, {SKIPPED: None}, change(dict(demo_parts()[1]))) and None


def _other_tokens(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        tokens: Any = demo_parts()[0]["tokenizer.ggml.tokens"]
        write_demo(path, {SKIPPED: None, "tokenizer.ggml.tokens": change(list(tokens))})

    return write


FIRST = b"token_embd.weight"
"""The name of a tensor, which is followed by its number of dimensions, these, its type and its offset."""

DAMAGED: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (_raw(b""), "gguf_not_gguf"),
    "noise": (_raw(bytes(range(256)) * 400), "gguf_not_gguf"),
    "a Git LFS pointer": (
        _raw(b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n"),
        "gguf_not_gguf",
    ),
    "four bytes": (_raw(b"GGUF"), "gguf_cut_off"),
    "cut in the header": (cut(None, 5_000), "gguf_cut_off"),
    "cut in half": (cut(None, 2_000_000), "gguf_cut_off"),
    "cut at the end": (cut(None, -1_000), "gguf_cut_off"),
    "version 1": (patched(b"GGUF", 0, "<I", 1), "gguf_version"),
    "version 4": (patched(b"GGUF", 0, "<I", 4), "gguf_version"),
    "big-endian": (patched(b"GGUF", 0, ">IQQ", 3, 38, 20), "gguf_version"),
    "too many tensors": (patched(b"GGUF", 4, "<Q", 2**40), "gguf_damaged"),
    "too many fields": (patched(b"GGUF", 12, "<Q", 2**40), "gguf_damaged"),
    "all lengths at their limit": (patched(b"GGUF", 4, "<QQQ", 2**64 - 1, 2**64 - 1, 2**64 - 1), "gguf_damaged"),
    "a hostile array": (patched(b"tokenizer.ggml.tokens", 8, "<Q", 2**50), "gguf_damaged"),
    "a hostile array of numbers": (patched(b"tokenizer.ggml.token_type", 8, "<Q", 2**61), "gguf_damaged"),
    "a hostile text": (patched(b"general.architecture", 4, "<Q", 2**62), "gguf_damaged"),
    "arrays in an array": (patched(b"tokenizer.ggml.tokens", 4, "<I", 9), "gguf_damaged"),
    "an unknown kind of value": (patched(b"llama.block_count", 0, "<I", 99), "gguf_damaged"),
    "alignment 0": (rewritten(general__alignment=0), "gguf_damaged"),
    "alignment 24": (rewritten(general__alignment=24), "gguf_damaged"),
    "an alignment in words": (rewritten(general__alignment="32"), "gguf_damaged"),
    "a key twice": (_with_field(_key(b"llama.block_count") + struct.pack("<II", 4, 4)), "gguf_damaged"),
    "an empty key": (_with_field(_key(b"") + struct.pack("<II", 4, 4)), "gguf_damaged"),
    "a tensor twice": (patched(b"blk.0.attn_q.weight", -19, "19s", b"blk.0.attn_k.weight"), "gguf_damaged"),
    "five dimensions": (patched(FIRST, 0, "<I", 5), "gguf_damaged"),
    "a size that overflows": (patched(FIRST, 4, "<QQ", 2**62, 2**62), "gguf_damaged"),
    "a type that never was": (patched(FIRST, 20, "<I", 99), "gguf_damaged"),
    "a type that is no more": (patched(FIRST, 20, "<I", 4), "gguf_damaged"),
    "rows that are no whole blocks": (patched(FIRST, 20, "<I", 12), "gguf_damaged"),
    "tensors that overlap": (patched(b"output_norm.weight", 16, "<Q", 0), "gguf_damaged"),
    "a tensor outside": (patched(FIRST, 24, "<Q", 2**63), "gguf_damaged"),
    "a tensor missing": (
        _other_tensors(lambda all: {name: each for name, each in all.items() if name != "blk.0.attn_q.weight"}),
        "gguf_damaged",
    ),
    "a layer too many": (
        _other_tensors(lambda all: {**all, "blk.9.attn_q.weight": all["blk.0.attn_q.weight"]}),
        "gguf_damaged",
    ),
    "no heads": (rewritten(llama__attention__head_count=0), "gguf_damaged"),
    "seven heads": (rewritten(llama__attention__head_count=7), "gguf_damaged"),
    "another width": (rewritten(llama__embedding_length=128), "gguf_damaged"),
    "two billion layers": (rewritten(llama__block_count=2**31 - 1), "gguf_damaged"),
    "no context": (rewritten(llama__context_length=None), "gguf_damaged"),
    "a width in words": (rewritten(llama__embedding_length="wide"), "gguf_damaged"),
    "no architecture": (rewritten(general__architecture=None), "gguf_damaged"),
    "an architecture that is a number": (rewritten(general__architecture=7), "gguf_damaged"),
    "parts without end": (rewritten(split__count=2**31), "gguf_damaged"),
    "a part of itself": (rewritten(split__count="2"), "gguf_damaged"),
    "heads for each layer": (rewritten(llama__attention__head_count=[6] * 4), "gguf_damaged"),
    "keys for each layer": (rewritten(llama__attention__head_count_kv=[2] * 4), "gguf_damaged"),
    "no keys": (rewritten(llama__attention__head_count_kv=0), "gguf_damaged"),
    "other keys": (rewritten(llama__attention__head_count_kv=3), "gguf_damaged"),
    "longer values": (rewritten(llama__attention__value_length=64), "gguf_damaged"),
    "layers that are no whole number": (rewritten(llama__block_count=2.0), "gguf_damaged"),
    "a context of nothing": (rewritten(llama__context_length=0), "gguf_damaged"),
    "a window in words": (rewritten(llama__attention__sliding_window="wide"), "gguf_damaged"),
    "an unknown rotation": (rewritten(llama__rope__scaling__type="swirl"), "gguf_damaged"),
    "a rotation that is a number": (rewritten(llama__rope__scaling__type=4), "gguf_damaged"),
    "a rotation without a base": (rewritten(llama__rope__freq_base=0.0), "gguf_damaged"),
    "a rotation that is not a number": (rewritten(llama__rope__freq_base=float("nan")), "gguf_damaged"),
    "no epsilon": (rewritten(llama__attention__layer_norm_rms_epsilon=None), "gguf_damaged"),
    "an epsilon in words": (rewritten(llama__attention__layer_norm_rms_epsilon="small"), "gguf_damaged"),
    "an epsilon below zero": (rewritten(llama__attention__layer_norm_rms_epsilon=-1.0), "gguf_damaged"),
    "an epsilon that is not a number": (
        rewritten(llama__attention__layer_norm_rms_epsilon=float("nan")),
        "gguf_damaged",
    ),
    "fewer tokens than rows": (_other_tokens(lambda all: all[:-5]), "gguf_damaged"),
    "more tokens than rows": (_other_tokens(lambda all: [*all, "more"]), "gguf_damaged"),
    "an embedding in one dimension": (
        _other_tensors(lambda all: {**all, "token_embd.weight": all["token_embd.weight"].reshape(-1)}),
        "gguf_damaged",
    ),
}
"""What is damaged or hostile, how it is written, and the key of its sentence."""

OTHERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "another architecture": (rewritten(general__architecture="qwen3"), "not_a_mistral_model"),
    "an architecture with an odd name": (rewritten(general__architecture="\x1b[31m\n" * 100), "not_a_mistral_model"),
    "experts": (rewritten(llama__expert_count=8), "not_a_mistral_model"),
    "another tokenizer": (rewritten(tokenizer__ggml__pre="llama-bpe"), "gguf_other_tokenizer"),
    "another kind of tokenizer": (rewritten(tokenizer__ggml__model="llama"), "gguf_other_tokenizer"),
    "an adapter": (rewritten(general__type="adapter"), "gguf_adapter"),
    "a control vector": (rewritten(general__architecture="controlvector"), "gguf_adapter"),
    "an importance matrix": (rewritten(general__type="imatrix", general__architecture=None), "gguf_imatrix"),
    "a projector": (lambda path: write_gguf(path, *mmproj_parts()), "gguf_projector"),
    "a vocabulary alone": (_other_tensors(lambda _: {}), "gguf_without_weights"),
    "a vocabulary alone, split into one": (
        lambda path: write_demo(path, {SKIPPED: None, "split.count": 1}, {}) and None,
        "gguf_without_weights",
    ),
    "no vocabulary": (rewritten(tokenizer__ggml__tokens=None), "gguf_vocabulary"),
    "a vocabulary without bytes": (_other_tokens(lambda all: [f"t{n}" for n in range(len(all))]), "gguf_vocabulary"),
    "bytes in another order": (
        _other_tokens(lambda all: [{BYTES[3]: BYTES[4], BYTES[4]: BYTES[3]}.get(each, each) for each in all]),
        "gguf_vocabulary",
    ),
    "tokens that are numbers": (rewritten(tokenizer__ggml__tokens=[1, 2, 3]), "gguf_vocabulary"),
    "tekken's splitting of another vocabulary": (rewritten(tokenizer__ggml__model="llama"), "gguf_other_tokenizer"),
    "a splitting that is a number": (rewritten(tokenizer__ggml__pre=3), "gguf_other_tokenizer"),
    "no splitting": (rewritten(tokenizer__ggml__pre=None), "gguf_other_tokenizer"),
    "[THINK] without its end": (
        _other_tokens(lambda all: [each.replace("[/THINK]", "[/THINX]") for each in all]),
        "gguf_vocabulary",
    ),
    "[/THINK] without its beginning": (
        _other_tokens(lambda all: [each.replace("[THINK]", "[THINX]") for each in all]),
        "gguf_vocabulary",
    ),
    "another beginning": (rewritten(tokenizer__ggml__bos_token_id=7), "gguf_vocabulary"),
    "another end": (rewritten(tokenizer__ggml__eos_token_id=35), "gguf_vocabulary"),
    "an end beyond the vocabulary": (rewritten(tokenizer__ggml__eos_token_id=2**31 - 1), "gguf_vocabulary"),
    "an embedding model": (rewritten(general__architecture="bert"), "not_a_mistral_model"),
    "experts in words": (rewritten(llama__expert_count="8"), "not_a_mistral_model"),
}
"""What is whole, but no model that runs here."""
