"""The Space's card, README.md: its front matter for one kind of hardware, and whether the Hub would take it; it uploads nothing.

The rules are those of https://huggingface.co/docs/hub/spaces-config-reference and https://huggingface.co/docs/hub/spaces-oauth.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from huggingface_hub import SpaceCard, SpaceHardware

from magistral_ui.models.cards import MAGISTRAL_1_2, find_card
from space.hardware import find_hardware

SHARDS = 10
"""Files that the weights of Magistral Small 1.2 lie in."""
PRELOADED = (
    "config.json",
    "generation_config.json",
    "SYSTEM_PROMPT.txt",
    "tekken.json",
    "model.safetensors.index.json",
    *(f"model-{n:05}-of-{SHARDS:05}.safetensors" for n in range(1, SHARDS + 1)),
)
"""Of the repository of Magistral Small 1.2; the rest is the same weights in another format."""

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
"""Characters at most; the Hub says so of the description only."""


def front_of(card: str) -> Front:
    """The front matter of a card, as the Hub's own client reads it."""
    return dict(SpaceCard(card).data.to_dict())  # type: ignore[no-untyped-call]


def card_for(card: str, flavor: str, environment: Mapping[str, str]) -> str:
    """The card for a Space on the hardware `flavor` that gets the variables in `environment`.

    Where Magistral Small 1.2 runs, its files are brought when the Space is built.
    """
    found, hardware = SpaceCard(card), find_hardware(flavor)
    found.data["suggested_hardware"] = flavor
    if hardware is not None and hardware.plan is not None and _is_magistral(environment):
        repository, revision = (
            MAGISTRAL_1_2.repository,
            environment.get("MAGISTRAL_UI_REVISION") or MAGISTRAL_1_2.revision,
        )
        found.data["models"] = [repository]
        found.data["preload_from_hub"] = [f"{repository} {','.join(PRELOADED)} {revision}"]
    return str(found)


def _is_magistral(environment: Mapping[str, str]) -> bool:
    if environment.get("MAGISTRAL_UI_BASE_URL"):
        return False
    wanted = environment.get("MAGISTRAL_UI_MODEL")
    return not wanted or find_card(wanted) is MAGISTRAL_1_2


def problems_of(front: Mapping[str, Any]) -> list[str]:
    """The fields that the Hub would refuse or ignore, each as `name: value`."""
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


def _truth(value: Any) -> bool:
    return isinstance(value, bool)


def _number(low: int, high: int) -> Check:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _list_of(each: Check) -> Check:
    return lambda value: isinstance(value, list) and bool(value) and all(map(each, value))


def _emoji(value: Any) -> bool:
    """One picture: no letters, digits or signs of a keyboard."""
    return isinstance(value, str) and 0 < len(value) <= 8 and all(ord(sign) > 0x2000 for sign in value)


def _headers(value: Any) -> bool:
    return isinstance(value, dict) and all(name.lower() in HEADERS for name in value)


REPOSITORY = r"[\w.-]{1,96}(/[\w.-]{1,96})?"
REQUIRED = ("title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "app_file")
FIELDS: dict[str, Check] = {
    "title": _text(TITLE),
    "emoji": _emoji,
    "colorFrom": _one_of(*COLORS),
    "colorTo": _one_of(*COLORS),
    "sdk": _one_of("gradio"),  # the only kind of Space that this app is
    "sdk_version": _matches(r"\d+\.\d+\.\d+"),
    "python_version": _matches(r"3\.\d+(\.\d+)?"),
    "app_file": _matches(r"[\w./-]+\.py"),
    "base_path": _matches(r"/\S*"),
    "fullWidth": _truth,
    "header": _one_of("mini", "default"),
    "short_description": _text(DESCRIPTION),
    "license": _matches(r"[a-z0-9.-]+"),
    "thumbnail": _matches(r"https://\S+"),
    "pinned": _truth,
    "models": _list_of(_matches(REPOSITORY)),
    "datasets": _list_of(_matches(REPOSITORY)),
    "tags": _list_of(_text(TITLE)),
    "suggested_hardware": _one_of(*(each.value for each in SpaceHardware)),
    "suggested_storage": _one_of("small", "medium", "large"),
    "custom_headers": _headers,
    "disable_embedding": _truth,
    "startup_duration_timeout": _matches(r"\d+(\.\d+)?[smh]"),
    "preload_from_hub": _list_of(_matches(REPOSITORY + r"( [\w./-]+(,[\w./-]+)*( [0-9a-f]{40})?)?")),
    "hf_oauth": _truth,
    "hf_oauth_expiration_minutes": _number(1, 43_200),
    "hf_oauth_scopes": _list_of(_one_of(*SCOPES)),
    "hf_oauth_authorized_org": lambda value: _matches(REPOSITORY)(value) or _list_of(_matches(REPOSITORY))(value),
}
"""By field: whether a value is one that the documentation names."""
