"""The files over which a GGUF model is split: their names, and their headers as one; it opens none."""

import re
from collections.abc import Sequence
from pathlib import Path

from magistral_ui.errors import ModelFilesBroken
from magistral_ui.models.gguf_header import GGUFHeader, GGUFTensor

MAX_PARTS = 999
_PART = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


def parts_of(path: Path, header: GGUFHeader) -> tuple[Path, ...]:
    """All files of the model of which `path` is one: llama.cpp finds the others by their names, and so do we.

    Raises ModelFilesBroken if one is missing.
    """
    count = header.metadata.get("split.count") or 1
    if count == 1:
        return (path,)
    if not isinstance(count, int) or not 1 <= count <= MAX_PARTS:
        raise ModelFilesBroken("gguf_damaged", model=path.name, file=path.name)
    named = _PART.fullmatch(path.name)
    stem = named["stem"] if named and int(named["count"]) == count else path.stem
    files = tuple(path.with_name(f"{stem}-{part:05}-of-{count:05}.gguf") for part in range(1, count + 1))
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ModelFilesBroken("gguf_part_missing", model=path.name, file=missing[0])
    return files


def is_later_part(path: Path) -> bool:
    """Whether a file is by its name one of several, but not the first."""
    named = _PART.fullmatch(path.name)
    return named is not None and int(named["part"]) > 1


def joined(headers: Sequence[GGUFHeader]) -> GGUFHeader:
    """The header of the first file with the tensors of all; ValueError if the files do not belong together."""
    if len(headers) == 1:
        return headers[0]
    tensors: dict[str, GGUFTensor] = {}
    for number, header in enumerate(headers):
        told = header.metadata
        if (told.get("split.no"), told.get("split.count")) != (number, len(headers)):
            raise ValueError(f"part {number} says {told.get('split.no')} of {told.get('split.count')}")
        for tensor in header.tensors:
            if tensor.name in tensors:
                raise ValueError(f"{tensor.name} twice")
            tensors[tensor.name] = tensor
    first = headers[0]
    if first.metadata.get("split.tensors.count", len(tensors)) != len(tensors):
        raise ValueError(f"{len(tensors)} tensors")
    metadata = {key: value for key, value in first.metadata.items() if not key.startswith("split.")}
    return GGUFHeader(metadata, tuple(tensors.values()), first.data_start)
