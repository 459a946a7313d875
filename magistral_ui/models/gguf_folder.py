"""Finds GGUF models in a folder, and the projector beside a model, by what the files hold."""

import re
from collections.abc import Iterator
from io import BytesIO
from itertools import takewhile
from pathlib import Path

from magistral_ui.errors import ModelError, ModelNotFound, NotAMistralModel, unreadable
from magistral_ui.models.gguf_file import MmprojFacts, header_of, inspect_gguf, is_projector, read_mmproj
from magistral_ui.models.gguf_header import GGUFDamaged, is_gguf, read_header
from magistral_ui.models.gguf_parts import is_later_part

MAX_FILES = 1_000
"""Entries of a folder that are looked at."""
MAX_MMPROJ_HEADER = 2**20
"""Bytes; a tower of 24 layers takes about 15,000."""
MAX_LISTED = 10
"""Files that an error lists."""
SUFFIX = ".gguf"
SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
"""One of which a folder of safetensors has; a config.json lies beside GGUF files too."""


def holds_gguf(folder: Path) -> bool:
    """Whether a folder holds GGUF files, and no model in safetensors; False if it cannot be read."""
    return has_gguf(folder) and not any((folder / name).exists() for name in (SINGLE_FILE, INDEX_FILE))


def has_gguf(folder: Path) -> bool:
    """Whether a folder holds GGUF files, whatever else it holds; False if it cannot be read."""
    try:
        return any(_files(folder))
    except (OSError, ValueError):  # no folder, or not even a path
        return False


def model_in(folder: Path, precision: str = "auto") -> Path:
    """The file (of several: the first) of the one model in `folder`, or of the one that is quantized as `precision`.

    Raises ModelNotFound, NotAMistralModel or ModelFilesBroken.
    """
    try:
        files = [file for file in _files(folder) if not is_later_part(file)]
    except OSError as error:
        raise unreadable(folder.name, folder.name, error) from error
    models = {file: is_quantized_as(file, precision) for file in files if _is_model(file)}
    fitting = [file for file, is_wanted in models.items() if is_wanted] or list(models)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(sorted(file.name for file in fitting)[:MAX_LISTED])
        raise NotAMistralModel("gguf_several", model=folder.name, names=names)
    if not files:
        raise ModelNotFound(model=str(folder))
    return files[0]  # whose error says what is wrong


def is_quantized_as(file: Path, precision: str) -> bool:
    """Whether a model's file is quantized as `precision`, by its header or its name; `auto` is any quantization."""
    if precision == "auto":
        return True
    if re.search(rf"(?<![^\W_]){re.escape(precision)}(?!\w)", file.name, re.IGNORECASE):
        return True
    try:
        return inspect_gguf(file)[0].quantization.casefold() == precision.casefold()
    except ModelError:
        return False


def mmproj_beside(model: Path, width: int, name: str) -> tuple[Path, MmprojFacts] | None:
    """The projector in the folder of `model` for a decoder of that `width`; of several, that of the same `name`.

    If still more than one is left, the one whose file is named most like the model's.
    """
    found = []
    try:
        files = [file for file in _files(model.parent) if file != model]
    except OSError:
        return None
    for file in files:
        try:
            mmproj = read_mmproj(file) if _is_mmproj(file) else None
        except ModelError:
            continue
        if mmproj is not None and mmproj.width == width:
            found.append((mmproj.name == name, _alike(file.name, model.name), file, mmproj))
    best = max(found, key=lambda each: each[:2], default=None)
    return best and best[2:]


def _alike(one: str, other: str) -> int:
    """Characters with which both begin."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _files(folder: Path) -> Iterator[Path]:
    """GGUF files, sorted by name."""
    entries = sorted(each for each, _ in zip(folder.iterdir(), range(MAX_FILES), strict=False))
    return (each for each in entries if is_gguf(each))


def _is_model(file: Path) -> bool:
    """Whether a file holds a decoder of whatever kind; what is damaged counts, so that its error is told."""
    try:
        header = header_of(file)
    except ModelError:
        return True
    return header.metadata.get("general.type") not in ("adapter", "imatrix") and not is_projector(header)


def _is_mmproj(file: Path) -> bool:
    """Reads no more than a projector's header can have: that of a model is far longer."""
    try:
        with file.open("rb") as opened:
            return is_projector(read_header(BytesIO(opened.read(MAX_MMPROJ_HEADER))))
    except (GGUFDamaged, OSError):
        return False
