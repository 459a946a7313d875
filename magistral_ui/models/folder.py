"""Tells from a few small reads whether a folder holds a model that can run here; it loads and downloads nothing."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from magistral_ui.errors import ModelFilesBroken, ModelNotFound, NotAMistralModel
from magistral_ui.models.cards import DEMO, MAGISTRAL_1_0, MAGISTRAL_1_1, MAGISTRAL_1_2, ModelCard, find_card
from magistral_ui.models.shape import ModelShape, read_shape

DEMO_FOLDER = Path(__file__).parent / "demo"
MODEL_TYPES = ("mistral3", "mistral")
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """What a folder of weights says of itself."""

    folder: Path
    model_type: str
    vision: bool
    weights: tuple[Path, ...]
    """All safetensors files, in the order of their names; present and whole."""
    tensors: dict[str, int]
    """Bytes of each tensor on disk, by its name there."""
    shape: ModelShape
    quantization: dict[str, Any] | None
    """How the weights were quantized before they were saved, as config.json has it."""
    card: ModelCard
    """Facts from the folder; sampling and system prompt, where the folder has none, from the Magistral nearest to it."""

    @property
    def bytes(self) -> int:
        """Size of all weights on disk."""
        return sum(file.stat().st_size for file in self.weights)


def check_name(model: str) -> None:
    """Refuse at once what can be known to be wrong: an unknown bare name, or a folder that `inspect_folder` refuses.

    A repository (`owner/name`) is taken on trust; whether it exists shows when it is loaded.
    """
    if find_card(model) or (is_repository(model) and not Path(model).exists()):
        return
    inspect_folder(Path(model))


def is_repository(model: str) -> bool:
    """Whether `model` could be `owner/name` on the Hugging Face Hub."""
    return _REPOSITORY.fullmatch(model) is not None


def inspect_folder(path: Path) -> FolderFacts:
    """What `path` holds. Raises ModelNotFound, NotAMistralModel or ModelFilesBroken."""
    folder = path.expanduser()
    if not folder.exists():
        raise ModelNotFound(model=str(path))
    config = _read_config(folder)
    model_type = str(config.get("model_type"))
    if model_type not in MODEL_TYPES:
        raise NotAMistralModel(model=str(path), found=model_type)
    special = _special_tokens(folder)
    weights, tensors = _weights(folder)
    vision = model_type == "mistral3"
    has_head = any(name.endswith("lm_head.weight") for name in tensors)
    try:
        shape = read_shape(config, has_head)
    except (LookupError, TypeError, AttributeError) as error:
        raise ModelFilesBroken(model=str(folder), file="config.json") from error
    card = _card(folder, config, vision, special)
    return FolderFacts(folder, model_type, vision, weights, tensors, shape, config.get("quantization_config"), card)


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise NotAMistralModel("not_a_model_folder", model=str(folder))
    return _read_json(folder, "config.json")


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        read = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFilesBroken(model=str(folder), file=name) from error
    if not isinstance(read, dict):
        raise ModelFilesBroken(model=str(folder), file=name)
    return read


def _special_tokens(folder: Path) -> set[str]:
    tekken = _read_json(folder, "tekken.json")
    try:
        if tekken["vocab"] and tekken["config"]["pattern"]:
            return {each["token_str"] for each in tekken.get("special_tokens") or ()}
    except (LookupError, TypeError, AttributeError):
        pass
    raise ModelFilesBroken(model=str(folder), file="tekken.json")


def _weights(folder: Path) -> tuple[tuple[Path, ...], dict[str, int]]:
    """All weight files, each seen to be there with all its bytes, and their tensors' sizes."""
    names = {SINGLE}
    if not (folder / SINGLE).exists() and (folder / INDEX).exists():
        weight_map = _read_json(folder, INDEX).get("weight_map")
        names = set(weight_map.values()) if isinstance(weight_map, dict) else set()
    if not names:
        raise ModelFilesBroken(model=str(folder), file=INDEX)
    files = tuple(folder / name for name in sorted(names))
    tensors: dict[str, int] = {}
    for file in files:
        found = _tensors(file)
        if found is None:
            raise ModelFilesBroken(model=str(folder), file=file.name)
        tensors |= found
    return files, tensors


def _tensors(file: Path) -> dict[str, int] | None:
    """Each tensor's bytes in a safetensors file (8 bytes of length, the header as JSON, the tensors).

    None where the file is not as long as its header says.
    """
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            size = file.stat().st_size
            if not 2 <= length <= size - 8:
                return None
            header = json.loads(opened.read(length))
            spans = {name: tensor["data_offsets"] for name, tensor in header.items() if name != "__metadata__"}
            sizes = {name: end - begin for name, (begin, end) in spans.items()}
            whole = size == 8 + length + max((end for _, end in spans.values()), default=0)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return sizes if whole else None


def _card(folder: Path, config: dict[str, Any], vision: bool, special: set[str]) -> ModelCard:
    if folder.resolve() == DEMO_FOLDER.resolve():
        return DEMO
    nearest = MAGISTRAL_1_2 if vision else MAGISTRAL_1_1
    if "[THINK]" not in special:
        nearest = MAGISTRAL_1_0
    text_config = config.get("text_config") or config
    length = int(text_config.get("max_position_embeddings") or nearest.context_length)
    own_prompt = folder / "SYSTEM_PROMPT.txt"
    name = folder.resolve().name
    return replace(
        nearest,
        key=name,
        name=name,
        repository=None,
        vision=vision,
        context_length=length,
        recommended_length=min(length, nearest.recommended_length),
        system_prompt_file=str(own_prompt.resolve()) if own_prompt.is_file() else nearest.system_prompt_file,
    )
