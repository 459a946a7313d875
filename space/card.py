"""The Space's card, README.md: its front matter for one kind of hardware, and what the Hub would reject; it uploads nothing.

The rules are those of https://huggingface.co/docs/hub/spaces-config-reference and https://huggingface.co/docs/hub/spaces-oauth.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import SpaceCard, SpaceHardware

from magistral_ui.models.cards import MAGISTRAL_1_2, ModelCard, find_card
from magistral_ui.models.folder import AUTO
from space.hardware import Hardware, find_hardware

SHARDS = 10
PRELOADED = (
    "config.json",
    "generation_config.json",
    "SYSTEM_PROMPT.txt",
    "tekken.json",
    "model.safetensors.index.json",
    *(f"model-{n:05}-of-{SHARDS:05}.safetensors" for n in range(1, SHARDS + 1)),
)
"""Files of Magistral Small 1.2's repository; the rest is the same weights in another format."""

MODEL_BEGIN, MODEL_END = "<!-- model: begin -->", "<!-- model: end -->"
GGUF_TEXT = Path(__file__).parent / "gguf.md"

Front = dict[str, Any]
Check = Callable[[Any], bool]

COLORS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
SCOPES = (
    "email",
    "read-billing",
    "read-repos",
    "gated-repos",
    "contribute-repos",
    "write-repos",
    "manage-repos",
    "inference-api",
    "jobs",
    "webhooks",
    "write-discussions",
)
HEADERS = ("cross-origin-embedder-policy", "cross-origin-opener-policy", "cross-origin-resource-policy")
TITLE, DESCRIPTION = 100, 60
"""Longest texts, in characters; the Hub documents the limit of the description only."""


def front_of(card: str) -> Front:
    return dict(SpaceCard(card).data.to_dict())  # type: ignore[no-untyped-call]


def card_for(card: str, flavor: str, environment: Mapping[str, str], *, gguf: bool = False) -> str:
    """The card for a Space on the hardware `flavor` with the variables in `environment`; `gguf`: it runs a GGUF file.

    If Magistral Small 1.2 runs there, its files are downloaded when the Space is built; another model when it starts.
    """
    found, hardware = SpaceCard(_with_gguf(card) if gguf else card), find_hardware(flavor)
    found.data["suggested_hardware"] = flavor
    if gguf:
        found.data["models"] = [environment["MAGISTRAL_UI_MODEL"].partition(":")[0]]
        return str(found)
    model = _card_on(hardware, environment)
    if model is not None and model.repository:
        found.data["models"] = [model.repository]
    if model is MAGISTRAL_1_2:
        revision = environment.get("MAGISTRAL_UI_REVISION") or MAGISTRAL_1_2.revision
        found.data["preload_from_hub"] = [f"{model.repository} {','.join(PRELOADED)} {revision}"]
    return str(found)


def _with_gguf(card: str) -> str:
    """The card with what it says about the model replaced."""
    before, _, rest = card.partition(MODEL_BEGIN)
    _, _, after = rest.partition(MODEL_END)
    return f"{before}{GGUF_TEXT.read_text(encoding='utf-8').strip()}{after}"


def _card_on(hardware: Hardware | None, environment: Mapping[str, str]) -> ModelCard | None:
    """The card of the model that will run on `hardware`; None if it is the demo model, on a server, or unknown."""
    if hardware is None or hardware.best is None or environment.get("MAGISTRAL_UI_BASE_URL"):
        return None
    wanted = environment.get("MAGISTRAL_UI_MODEL") or AUTO
    return hardware.best.card if wanted == AUTO else find_card(wanted)


def problems_of(front: Mapping[str, Any]) -> list[str]:
    """The fields that the Hub would reject or ignore, each as `name: value`."""
    found = [f"{name}: {front.get(name)!r}" for name in REQUIRED if name not in front]
    return found + [
        f"{name}: {value!r}" for name, value in front.items() if name not in FIELDS or not FIELDS[name](value)
    ]


def _one_of(*choices: str) -> Check:
    return lambda value: value in choices


def _matches(pattern: str) -> Check:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _text(longest: int) -> Check:
    return lambda value: isinstance(value, str) and 0 < len(value) <= longest and "\n" not in value


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _number(low: int, high: int) -> Check:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _list_of(each: Check) -> Check:
    return lambda value: isinstance(value, list) and bool(value) and all(map(each, value))


def _emoji(value: Any) -> bool:
    """An emoji: no letters, digits or ASCII characters."""
    return isinstance(value, str) and 0 < len(value) <= 8 and all(ord(character) > 0x2000 for character in value)


def _headers(value: Any) -> bool:
    return isinstance(value, dict) and all(name.lower() in HEADERS for name in value)


REPOSITORY = r"[\w.-]{1,96}(/[\w.-]{1,96})?"
REQUIRED = ("title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "app_file")
FIELDS: dict[str, Check] = {
    "title": _text(TITLE),
    "emoji": _emoji,
    "colorFrom": _one_of(*COLORS),
    "colorTo": _one_of(*COLORS),
    "sdk": _one_of("gradio"),  # this app is a Gradio Space
    "sdk_version": _matches(r"\d+\.\d+\.\d+"),
    "python_version": _matches(r"3\.\d+(\.\d+)?"),
    "app_file": _matches(r"[\w./-]+\.py"),
    "base_path": _matches(r"/\S*"),
    "fullWidth": _is_bool,
    "header": _one_of("mini", "default"),
    "short_description": _text(DESCRIPTION),
    "license": _matches(r"[a-z0-9.-]+"),
    "thumbnail": _matches(r"https://\S+"),
    "pinned": _is_bool,
    "models": _list_of(_matches(REPOSITORY)),
    "datasets": _list_of(_matches(REPOSITORY)),
    "tags": _list_of(_text(TITLE)),
    "suggested_hardware": _one_of(*(each.value for each in SpaceHardware)),
    "suggested_storage": _one_of("small", "medium", "large"),
    "custom_headers": _headers,
    "disable_embedding": _is_bool,
    "startup_duration_timeout": _matches(r"\d+(\.\d+)?[smh]"),
    "preload_from_hub": _list_of(_matches(REPOSITORY + r"( [\w./-]+(,[\w./-]+)*( [0-9a-f]{40})?)?")),
    "hf_oauth": _is_bool,
    "hf_oauth_expiration_minutes": _number(1, 43_200),
    "hf_oauth_scopes": _list_of(_one_of(*SCOPES)),
    "hf_oauth_authorized_org": lambda value: _matches(REPOSITORY)(value) or _list_of(_matches(REPOSITORY))(value),
}
"""For each field, whether a value is one that the documentation allows."""
