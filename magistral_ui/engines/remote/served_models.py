"""Reads the models that a server lists, and chooses one of them and its model card; it sends nothing."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.remote.dialects import Dialect
from magistral_ui.engines.remote.sse import json_object
from magistral_ui.errors import ServerUnusable
from magistral_ui.models.cards import (
    MAGISTRAL_1_0,
    MAGISTRAL_1_1,
    MAGISTRAL_1_2,
    MINISTRAL_3_3B,
    MINISTRAL_3_8B,
    MINISTRAL_3_14B,
    ModelCard,
    find_card,
    without_claims,
)

MAX_NAMES_SHOWN = 12
"""Model names to list in an error message."""


CONTEXT_FIELDS = (
    *("loaded_context_length", "n_ctx", "max_model_len", "context_length", "max_context_length", "context_window"),
    *(
        "context_size",
        "max_input_tokens",
        "max_total_tokens",
        "max_seq_len",
        "max_sequence_length",
        "max_prompt_tokens",
    ),
    *(
        "contextLength",
        "contextWindow",
        "input_token_limit",
        "inputTokenLimit",
        "true_max_context_length",
        "n_ctx_train",
    ),
)
"""Fields in which servers and gateways report a context length; that of the loaded model comes first."""
OUTPUT_FIELDS = ("max_completion_tokens", "max_output_tokens", "output_token_limit", "outputTokenLimit")
"""The same for the longest reply."""
NESTED_OBJECTS = (
    "meta",
    "metadata",
    "limits",
    "top_provider",
    "model_info",
    "capabilities",
    "details",
    "config",
    "parameters",
)
"""Objects inside a model's entry that may contain these fields."""
MIN_CONTEXT = 16
CTX_SIZE = re.compile(r"^(?:-c|-ctx|--ctx-size)$")
IMAGE_MODALITIES = frozenset({"image", "images", "vision", "multimodal"})


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model of a server; None or empty if the server does not say."""

    name: str
    context_length: int | None = None
    vision: bool | None = None
    precision: str = ""
    chats: bool = True
    max_output_tokens: int | None = None
    """Tokens of the longest reply that it may write."""
    aliases: tuple[str, ...] = ()
    state: str = ""
    """On a server with several models: `loaded`, `loading`, `unloaded`, `sleeping` or `failed`."""
    listed: str = ""
    """Its name in the server's list, if requests use another one."""
    identity: str = ""
    """What distinguishes files of the same name."""


def served_models(models: Mapping[str, Any], facts: Mapping[str, Any]) -> list[ServedModel]:
    """All models of `/v1/models`, with what the server's other pages say about them."""
    listed = [each for each in models.get("data") or () if isinstance(each, dict) and each.get("id")]
    beside: dict[Any, Mapping[str, Any]] = {}
    more = facts.get("data")
    for each in more if isinstance(more, list) else ():
        if isinstance(each, dict):
            beside.setdefault(each.get("id") or each.get("model_name"), each)
    return [_served({**each, **beside.get(each["id"], {}), "id": each["id"]}, facts) for each in listed]


def _served(listed: Mapping[str, Any], facts: Mapping[str, Any]) -> ServedModel:
    loaded = json_object(facts.get("default_generation_settings")).get("n_ctx")
    can, aliases, meta = json_object(listed.get("capabilities")), listed.get("aliases"), json_object(listed.get("meta"))
    return ServedModel(
        name=str(listed["id"]),
        context_length=_tokens(loaded)
        or _first(listed, CONTEXT_FIELDS)
        or _context_of_providers(listed)
        or _context_of_arguments(listed),
        vision=_supports_images(listed, facts),
        precision=str(listed.get("quantization") or facts.get("model_ftype") or ""),
        chats=listed.get("type") not in ("embeddings", "embedding", "rerank", "image", "audio", "moderation")
        and can.get("completion_chat") is not False,
        max_output_tokens=_first(listed, OUTPUT_FIELDS),
        aliases=tuple(each for each in aliases if isinstance(each, str)) if isinstance(aliases, list) else (),
        state=_state(listed),
        identity=" ".join(str(meta[key]) for key in ("n_params", "size", "ftype") if key in meta),
    )


def _first(entry: Mapping[str, Any], names: Sequence[str]) -> int | None:
    """The first token count under these names, in the entry itself or an object inside it."""
    holders = [entry, *(inner for key in NESTED_OBJECTS if isinstance(inner := entry.get(key), dict))]
    return next((n for name in names for holder in holders if (n := _tokens(holder.get(name)))), None)


def _tokens(value: object) -> int | None:
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= MIN_CONTEXT else None


def _context_of_providers(listed: Mapping[str, Any]) -> int | None:
    """Hugging Face's router: any of several providers may answer, so the shortest context counts."""
    providers = listed.get("providers")
    known = [_first(json_object(each), CONTEXT_FIELDS) for each in providers] if isinstance(providers, list) else []
    return min(filter(None, known), default=None)


def _context_of_arguments(listed: Mapping[str, Any]) -> int | None:
    """llama.cpp's router: the command line that a model is, or will be, started with."""
    arguments = json_object(listed.get("status")).get("args")
    for name, value in pairwise(arguments) if isinstance(arguments, list) else ():
        if isinstance(name, str) and CTX_SIZE.match(name):
            return _tokens(value)
    return None


def _state(listed: Mapping[str, Any]) -> str:
    if isinstance(listed.get("state"), str):  # LM Studio
        return "unloaded" if listed["state"] == "not-loaded" else str(listed["state"])
    status = json_object(listed.get("status"))
    if status.get("failed") and status.get("value") == "unloaded":
        return "failed"
    return str(status.get("value") or "")


def _supports_images(listed: Mapping[str, Any], facts: Mapping[str, Any]) -> bool | None:
    supported = _flag((facts.get("modalities"), "vision"), (listed.get("capabilities"), "vision"))
    if supported is not None:
        return supported
    architecture, info = listed.get("architecture"), listed.get("model_info")
    modalities = (architecture if isinstance(architecture, dict) else listed).get("input_modalities")
    if isinstance(modalities, list):
        return bool(IMAGE_MODALITIES & {str(each) for each in modalities})
    supported = _flag((info, "supports_vision"), (listed, "supports_image_input"), (listed, "supports_vision"))
    if supported is None and listed.get("type") in ("vlm", "llm"):  # LM Studio
        return bool(listed["type"] == "vlm")
    return supported


def _flag(*places: tuple[Any, str]) -> bool | None:
    """The first of these fields that is a boolean."""
    supported = (json_object(holder).get(name) for holder, name in places)
    return next((each for each in supported if isinstance(each, bool)), None)


def named_or_only(served: Sequence[ServedModel], name: str) -> ServedModel | None:
    return next((each for each in served if each.name == name), served[0] if len(served) == 1 else None)


def choose_model(served: Sequence[ServedModel], requested: str | None, dialect: Dialect, host: str) -> ServedModel:
    """The requested model, or the only one. Raises ServerUnusable if that is ambiguous."""
    chat_models = [each for each in served if each.chats]
    names = ", ".join(each.name for each in chat_models[:MAX_NAMES_SHOWN])
    names += ", …" if len(chat_models) > MAX_NAMES_SHOWN else ""
    if requested:
        wanted = requested.casefold()
        known = next((each for each in served if each.name.casefold() == wanted), None)
        known = known or next((e for e in served if wanted in (alias.casefold() for alias in e.aliases)), None)
        if known is None and dialect.lists_all_models and served:
            raise ServerUnusable("remote_model_unknown", server=host, detail=requested, models=names)
        only = served[0] if len(served) == 1 and not dialect.lists_all_models else None
        listed = (
            only.name if only and dialect.key == "llama.cpp" else ""
        )  # llama.cpp accepts any name for a single model
        return known or (replace(only, name=requested, listed=listed) if only else ServedModel(requested))
    magistral = [each for each in chat_models if "magistral" in each.name.casefold()]
    found = chat_models if len(chat_models) == 1 else magistral
    if len(found) > 1:  # of several Magistral models, the one that is loaded
        found = [each for each in found if each.state in ("loaded", "sleeping")]
    if len(found) != 1:
        raise ServerUnusable("remote_model_not_chosen" if chat_models else "remote_no_model", server=host, models=names)
    return found[0]


GENERAL = replace(
    without_claims(MAGISTRAL_1_2),
    key="remote",
    sampling=SamplingParams(temperature=0.7, top_p=0.95, max_tokens=40_960),
    system_prompt_file="",
    description_key="model_on_a_server_unknown",
)
"""For an unknown model: it has no system prompt, since another model's would only confuse it."""
RELEASES = ((re.compile(r"2506|1\.0"), MAGISTRAL_1_0), (re.compile(r"2507|1\.1"), MAGISTRAL_1_1))
SIZES = tuple(
    (re.compile(rf"(?<![\d.]){size}b"), card)
    for size, card in ((14, MINISTRAL_3_14B), (8, MINISTRAL_3_8B), (3, MINISTRAL_3_3B))
)
"""Ministral 3 by its size in a name; only its reasoning models have cards."""


def card_for(served: ServedModel, has_think_marks: bool) -> ModelCard:
    """The model's card, by its name, or by whether its template has thinking marks."""
    plain = PurePosixPath(served.name.replace("\\", "/")).name
    name = plain.casefold()
    if "ministral" in name:
        return _ministral(served.name, plain, has_think_marks)
    known = find_card(served.name) or find_card(plain)
    if known is None and "magistral" in name and "medium" not in name and "latest" not in name:
        known = next((card for pattern, card in RELEASES if pattern.search(name)), MAGISTRAL_1_2)
    if known is not None:
        return known
    return _thinking(MAGISTRAL_1_2, plain) if has_think_marks else replace(GENERAL, name=plain)


def _ministral(served: str, plain: str, has_think_marks: bool) -> ModelCard:
    """Ministral comes with and without reasoning, under names that do not always say which."""
    name = plain.casefold()
    if not has_think_marks and "reasoning" not in name:
        return replace(GENERAL, name=plain)
    size = next((card for pattern, card in SIZES if pattern.search(name)), MAGISTRAL_1_2)
    return find_card(served) or find_card(plain) or _thinking(size, plain)


def _thinking(card: ModelCard, name: str) -> ModelCard:
    """`card` for a model of which nothing is known but its name and that it reasons."""
    return replace(without_claims(card), key="remote", name=name, description_key="model_on_a_server_unknown")
