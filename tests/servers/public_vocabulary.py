"""Mistral's public vocabulary as GGUF files have it, computed and packed once for all the files that a test run writes."""

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import mistral_common

from magistral_ui.models.folder import DEMO_FOLDER
from magistral_ui.models.gguf_vocabulary import merges_of, spelled

PUBLIC = Path(mistral_common.__file__).parent / "data" / "tekken_240911.json"
SPECIAL = 1_000
LONG = 1_000
"""Values of a list that is kept once it is packed."""


def add_vocabulary(out: gguf.GGUFWriter, size: int) -> None:
    """The first `size` tokens: the demo model's special ones, those that fill their place, and the public ones of text."""
    special = special_names()
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("tekken")
    out.add_token_list(_names(size))
    out.add_token_types(_types(size))
    out.add_token_merges(_merges(size))
    out.add_bos_token_id(special.index("<s>"))
    out.add_eos_token_id(special.index("</s>"))
    out.add_unk_token_id(special.index("<unk>"))
    out.add_pad_token_id(special.index("<pad>"))
    out.add_add_bos_token(True)
    out.add_add_eos_token(False)


@cache
def special_names() -> tuple[str, ...]:
    demo = json.loads((DEMO_FOLDER / "tekken.json").read_text(encoding="utf-8"))
    special = [each["token_str"] for each in demo["special_tokens"][:64]]
    return (*special, *(f"<SPECIAL_{n}>" for n in range(len(special), SPECIAL)))


@cache
def _texts(size: int) -> list[bytes]:
    vocabulary = json.loads(PUBLIC.read_text(encoding="utf-8"))["vocab"][: size - SPECIAL]
    return [base64.b64decode(each["token_bytes"]) for each in vocabulary]


@cache
def _names(size: int) -> list[str]:
    return [*special_names(), *map(spelled, _texts(size))]


@cache
def _types(size: int) -> list[int]:
    return [*[gguf.TokenType.CONTROL] * SPECIAL, *[gguf.TokenType.NORMAL] * (size - SPECIAL)]


@cache
def _merges(size: int) -> list[str]:
    return merges_of(_texts(size))


class Writer(gguf.GGUFWriter):
    """Packs the same long list once, which takes most of the time of writing a small model."""

    packed: dict[tuple[int, bool], tuple[Any, bytes]] = {}  # noqa: RUF012

    def _pack_val(
        self, val: Any, vtype: gguf.GGUFValueType, add_vtype: bool, sub_type: gguf.GGUFValueType | None = None
    ) -> bytes:
        if not isinstance(val, list) or len(val) < LONG:
            return super()._pack_val(val, vtype, add_vtype, sub_type)
        key = id(val), add_vtype
        if key not in self.packed:  # the list is kept, so that no other one gets its id
            self.packed[key] = val, super()._pack_val(val, vtype, add_vtype, sub_type)
        return self.packed[key][1]
