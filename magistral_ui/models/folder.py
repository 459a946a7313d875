"""Checks with a few small reads whether a folder holds a model that can run here; it loads and downloads nothing."""

import errno
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from magistral_ui.errors import ModelFilesBroken, ModelNotFound, NotAMistralModel, unreadable
from magistral_ui.models.cards import DEMO, MAGISTRAL_1_0, ModelCard, find_card, nearest_card, without_claims
from magistral_ui.models.gguf_file import MAX_PATH_LENGTH, inspect_gguf
from magistral_ui.models.gguf_folder import INDEX_FILE, SINGLE_FILE, SUFFIX, holds_gguf, model_in
from magistral_ui.models.gguf_header import is_gguf
from magistral_ui.models.gguf_names import split_name
from magistral_ui.models.shape import ModelShape, checked_size, read_shape

AUTO = "auto"
"""In place of a model's name: the best one that the machine runs."""
DEMO_FOLDER = Path(__file__).parent / "demo"
WITH_VISION = "mistral3"
"""The model type that wraps a decoder and a vision tower."""
DECODERS = ("mistral", "ministral3")
"""Decoders that run here, alone or inside mistral3; Mistral's others (mistral4, mistral_large4) are built differently."""
VISION = "pixtral"
MAX_HEADER_BYTES = 100_000_000
"""Bytes of a safetensors header: the format's own bound."""
MAX_TYPE_LENGTH = 100
"""Characters of a model type that an error repeats."""
MAX_NAME_LENGTH = 96
"""Characters of an owner's or a repository's name on the Hub."""
_REPOSITORY = re.compile(r"\w(?:[\w.-]*\w)?/\w(?:[\w.-]*\w)?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """What is known of a folder of weights."""

    folder: Path
    model_type: str
    vision: bool
    weights: tuple[Path, ...]
    """All safetensors files, sorted by name; present and complete."""
    tensors: dict[str, int]
    """Bytes of each tensor on disk, by name."""
    shapes: dict[str, tuple[int, ...]]
    shape: ModelShape
    quantization: dict[str, Any] | None
    """How the saved weights are quantized, from config.json."""
    card: ModelCard
    """Facts from the folder; sampling and system prompt, if it has none, from the nearest card."""

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.weights)


def check_name(model: str, precision: str = "auto") -> None:
    """Reject at once what is known to be wrong: an unknown bare name, or a file or folder that cannot be used.

    A repository (`owner/name`, or `owner/name:QUANT` of GGUF files) is accepted; whether it exists is known only when it is
    downloaded. Of several GGUF files in a folder, `precision` may choose.
    """
    path = Path(model).expanduser()
    if model == AUTO or find_card(model) or (is_repository(split_name(model)[0]) and not Path(model).exists()):
        return
    try:
        if holds_gguf(path):
            inspect_gguf(model_in(path, precision))
        elif is_gguf(path) or path.suffix.casefold() == SUFFIX:
            inspect_gguf(path)
        else:
            inspect_folder(Path(model))
    except ModelNotFound as error:
        raise ModelNotFound(model=model[:MAX_PATH_LENGTH]) from error  # as it was written: a path has no doubled slash


def is_repository(model: str) -> bool:
    """Whether `model` has the form `owner/name` of the Hugging Face Hub, whose client raises for any other."""
    if _REPOSITORY.fullmatch(model) is None or model.endswith(".git") or "--" in model or ".." in model:
        return False
    return all(len(part) <= MAX_NAME_LENGTH for part in model.split("/"))


def is_commit(revision: str | None) -> bool:
    """Whether `revision` is a full commit hash; a branch or a tag can move."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def decoder_of(config: dict[str, Any], model: str) -> str:
    """The decoder type in a config.json; NotAMistralModel if the decoder or the vision tower cannot run here."""
    outer = str(config.get("model_type"))[:MAX_TYPE_LENGTH]
    if outer in DECODERS:
        return outer
    if outer != WITH_VISION:
        raise NotAMistralModel(model=model, found=outer)
    parts = (("text_config", DECODERS), ("vision_config", (VISION,)))
    for name, known in parts:
        found = _type_of(config.get(name), known[0], model)
        if found not in known:
            raise NotAMistralModel(model=model, found=found)
    return _type_of(config.get("text_config"), DECODERS[0], model)


def _type_of(part: object, usual: str, model: str) -> str:
    """The model type of one part of a config.json; `usual` if it names none."""
    if not isinstance(part, dict | None):
        raise ModelFilesBroken(model=model, file="config.json")
    return str((part or {}).get("model_type") or usual)[:MAX_TYPE_LENGTH]


def inspect_folder(path: Path) -> FolderFacts:
    """Read the facts of folder `path`. Raises ModelNotFound, NotAMistralModel or ModelFilesBroken."""
    folder = path.expanduser()
    try:
        return _inspect(path, folder)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ModelNotFound(model=str(path)[:MAX_PATH_LENGTH]) from error
        raise unreadable(str(folder), folder.name, error) from error  # the folder itself is not readable


def _inspect(path: Path, folder: Path) -> FolderFacts:
    if not folder.exists():
        raise ModelNotFound(model=str(path))
    config = _read_config(folder)
    model_type, decoder = str(config.get("model_type")), decoder_of(config, str(path))
    special = _special_tokens(folder)
    weights, tensors, shapes = _weights(folder)
    vision = model_type == WITH_VISION
    has_head = any(name.endswith("lm_head.weight") for name in tensors)
    try:
        shape = read_shape(config, has_head)
        card = _card(folder, config, shape, decoder, special)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ModelFilesBroken(model=str(folder), file="config.json") from error
    return FolderFacts(
        folder, model_type, vision, weights, tensors, shapes, shape, config.get("quantization_config"), card
    )


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise NotAMistralModel("not_a_model_folder", model=str(folder))
    return read_json(folder, "config.json")


def read_json(folder: Path, name: str, model: str | None = None) -> dict[str, Any]:
    """The JSON object in a file of a `model`, which errors name (default: the folder). Raises ModelFilesBroken."""
    try:
        read = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(model or str(folder), name, error) from error
    if not isinstance(read, dict):
        raise ModelFilesBroken(model=model or str(folder), file=name)
    return read


def _special_tokens(folder: Path) -> set[str]:
    tekken = read_json(folder, "tekken.json")
    try:
        if tekken["vocab"] and tekken["config"]["pattern"]:
            return {each["token_str"] for each in tekken.get("special_tokens") or ()}
    except (LookupError, TypeError, AttributeError):
        pass
    raise ModelFilesBroken(model=str(folder), file="tekken.json")


def _weights(folder: Path) -> tuple[tuple[Path, ...], dict[str, int], dict[str, tuple[int, ...]]]:
    """All weight files, checked to be complete, with the sizes and shapes of their tensors."""
    names = {SINGLE_FILE}
    if not (folder / SINGLE_FILE).exists() and (folder / INDEX_FILE).exists():
        weight_map = read_json(folder, INDEX_FILE).get("weight_map")
        listed = list(weight_map.values()) if isinstance(weight_map, dict) else []
        names = {name if isinstance(name, str) else "" for name in listed}
    if not names or not all(_is_file_name(name) for name in names):
        raise ModelFilesBroken(model=str(folder), file=INDEX_FILE)
    files = tuple(folder / name for name in sorted(names))
    tensors: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            found = _tensors(file)
        except OSError as error:
            raise unreadable(str(folder), file.name, error) from error
        if found is None:
            raise ModelFilesBroken(model=str(folder), file=file.name)
        tensors |= {name: size for name, (size, _) in found.items()}
        shapes |= {name: shape for name, (_, shape) in found.items()}
    return files, tensors, shapes


def _is_file_name(name: str) -> bool:
    """Whether `name` stays within the folder: an index could lead anywhere on this computer."""
    return name not in ("", ".", "..") and not set(name) & {"/", "\\", ":", "\0"}


def _tensors(file: Path) -> dict[str, tuple[int, tuple[int, ...]]] | None:
    """Each tensor's bytes and shape in a safetensors file (8 bytes of length, the header as JSON, the tensors).

    None if the file is not as long as its header says.
    """
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            size = file.stat().st_size
            if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
                return None
            header = json.loads(opened.read(length))
            told = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
            spans = {name: tensor["data_offsets"] for name, tensor in told.items()}
            found = {name: (end - begin, tuple(told[name]["shape"])) for name, (begin, end) in spans.items()}
            whole = size == 8 + length + max((end for _, end in spans.values()), default=0)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return found if whole else None


def _card(folder: Path, config: dict[str, Any], shape: ModelShape, decoder: str, special: set[str]) -> ModelCard:
    if folder.resolve() == DEMO_FOLDER.resolve():
        return DEMO
    nearest = nearest_card(shape, decoder == "ministral3") if "[THINK]" in special else MAGISTRAL_1_0
    # Beyond its sliding window, if it has one, a model needs a kind of attention that we do not implement.
    window = (config.get("text_config") or config).get("sliding_window")
    length = min(shape.context_length, checked_size(window or shape.context_length))
    own_prompt = folder / "SYSTEM_PROMPT.txt"
    name = folder.resolve().name
    return replace(
        without_claims(nearest),
        key=name,
        name=name,
        shape=shape,
        vision=shape.vision is not None,
        context_length=length,
        recommended_length=min(length, nearest.recommended_length),
        system_prompt_file=str(own_prompt.resolve()) if own_prompt.is_file() else nearest.system_prompt_file,
        takes_effort="[MODEL_SETTINGS]" in special,
    )
