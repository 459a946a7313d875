"""Rebuilds the tekken.json of a model from its GGUF file, which has the vocabulary; a lone file then needs nothing else.

What a GGUF file does not say is the same for all models of the family: the pattern that splits text, and the version, which is
v15 where the vocabulary has [MODEL_SETTINGS].
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from magistral_ui.engines.gguf.cache_folder import cached
from magistral_ui.errors import NotAMistralModel, unreadable
from magistral_ui.models.gguf_header import TOKENS, GGUFHeader
from magistral_ui.models.gguf_vocabulary import split_vocabulary, token_bytes
from magistral_ui.models.shape import VisionShape

FORMAT = 1
"""Raised whenever the same vocabulary gives another tekken.json."""
# The pattern of Mistral's public tekken vocabularies, as in models/demo/tekken.json.
PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Of the models with tokenizer v15, as mistral-common describes them: they take these two efforts.
MODEL_SETTINGS = {
    "reasoning_effort": {"type": "enum", "values": ["none", "high"], "accepts_none": True, "default": "none"}
}


def rebuild_tekken(header: GGUFHeader, vision: VisionShape | None, model: str) -> Path:
    """A tekken.json for the vocabulary in `header`, for images if there is a tower to see them; kept in the user's cache.

    `model` is how errors name it. Raises NotAMistralModel if mistral-common has no tokenizer of this kind.
    """
    tokens = header.metadata[TOKENS]
    image = _image(vision)
    told = json.dumps([FORMAT, image, tokens]).encode()
    name = f"tekken-{hashlib.sha256(told).hexdigest()[:32]}.json"

    def write(path: Path) -> None:
        path.write_text(json.dumps(_tekken(tokens, image)), encoding="utf-8")
        MistralTokenizer.from_file(str(path))  # refuses what lacks a mark

    try:
        return cached(name, write)
    except (AssertionError, LookupError, TypeError, ValueError) as error:
        raise NotAMistralModel("gguf_vocabulary", model=model) from error
    except OSError as error:
        raise unreadable(model, name, error) from error


def _image(vision: VisionShape | None) -> dict[str, int] | None:
    if vision is None:
        return None
    return {
        "image_patch_size": vision.patch,
        "max_image_size": vision.image,
        "spatial_merge_size": vision.merge,
    }


def _tekken(tokens: list[str], image: dict[str, int] | None) -> dict[str, Any]:
    marks, texts = split_vocabulary(tokens)
    vocabulary = [_entry(rank, token_bytes(text)) for rank, text in enumerate(texts)]
    settings = "[MODEL_SETTINGS]" in marks
    made: dict[str, Any] = {
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": len(texts),
            "default_vocab_size": len(tokens),
            "default_num_special_tokens": len(marks),
            "version": "v15" if settings else "v13",
        },
        "vocab": vocabulary,
        "special_tokens": [{"rank": n, "token_str": mark, "is_control": True} for n, mark in enumerate(marks)],
    }
    if image is not None:
        made["image"] = image
    if settings:
        made["model_settings_builder"] = MODEL_SETTINGS
    return made


def _entry(rank: int, token: bytes) -> dict[str, Any]:
    try:
        text: str | None = token.decode()
    except UnicodeDecodeError:
        text = None
    return {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": text}
