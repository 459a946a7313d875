"""The models that a server lists, which of them is asked for, and which model card suits it; it asks nothing."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.remote.dialects import Dialect
from magistral_ui.errors import ServerUnusable
from magistral_ui.models.cards import MAGISTRAL_1_0, MAGISTRAL_1_1, MAGISTRAL_1_2, ModelCard, find_card

SHOWN = 12
"""Names of models in a sentence."""


@dataclass(frozen=True, slots=True)
class Served:
    """One model of a server; None and empty where the server does not say."""

    name: str
    context_length: int | None = None
    vision: bool | None = None
    precision: str = ""
    chats: bool = True


def served_models(models: Mapping[str, Any], facts: Mapping[str, Any]) -> list[Served]:
    """All models of `/v1/models`, with what the server's own pages tell beside it."""
    listed = [each for each in models.get("data") or () if isinstance(each, dict) and each.get("id")]
    beside = {each.get("id"): each for each in facts.get("data") or () if isinstance(each, dict)}
    return [_served({**each, **beside.get(each["id"], {})}, facts) for each in listed]


def _served(listed: Mapping[str, Any], facts: Mapping[str, Any]) -> Served:
    meta = listed.get("meta") if isinstance(listed.get("meta"), dict) else {}
    generation = facts.get("default_generation_settings")
    can = listed.get("capabilities")
    lengths = (
        generation.get("n_ctx") if isinstance(generation, dict) else None,
        meta.get("n_ctx") if isinstance(meta, dict) else None,
        listed.get("loaded_context_length"),
        listed.get("max_model_len"),
        listed.get("max_context_length"),
    )
    return Served(
        name=str(listed["id"]),
        context_length=next((n for n in lengths if isinstance(n, int) and n > 0), None),
        vision=_sees(listed, facts),
        precision=str(listed.get("quantization") or facts.get("model_ftype") or ""),
        chats=listed.get("type") != "embeddings"
        and not (isinstance(can, dict) and can.get("completion_chat") is False),
    )


def _sees(listed: Mapping[str, Any], facts: Mapping[str, Any]) -> bool | None:
    modalities = facts.get("modalities")
    if isinstance(modalities, dict) and isinstance(modalities.get("vision"), bool):
        return bool(modalities["vision"])
    can = listed.get("capabilities")
    if isinstance(can, dict) and isinstance(can.get("vision"), bool):
        return bool(can["vision"])
    if listed.get("type") in ("vlm", "llm"):  # LM Studio's own words
        return bool(listed["type"] == "vlm")
    return None


def choose(served: Sequence[Served], wish: str | None, dialect: Dialect, host: str) -> Served:
    """The model that was wished for, or the one that there is; ServerUnusable where that is not clear."""
    talking = [each for each in served if each.chats]
    names = ", ".join(each.name for each in talking[:SHOWN]) + (", …" if len(talking) > SHOWN else "")
    if wish:
        known = next((each for each in served if each.name.casefold() == wish.casefold()), None)
        if known is None and dialect.lists_all_models and served:
            raise ServerUnusable("remote_model_unknown", server=host, detail=wish, models=names)
        only = served[0] if len(served) == 1 and not dialect.lists_all_models else None
        return known or (replace(only, name=wish) if only else Served(wish))
    magistral = [each for each in talking if "magistral" in each.name.casefold()]
    found = talking if len(talking) == 1 else magistral
    if len(found) != 1:
        raise ServerUnusable("remote_model_not_chosen" if talking else "remote_no_model", server=host, models=names)
    return found[0]


GENERAL = replace(
    MAGISTRAL_1_2,
    key="remote",
    repository=None,
    sampling=SamplingParams(temperature=0.7, top_p=0.95, max_tokens=40_960),
    system_prompt_file="",
    description_key="model_on_a_server_unknown",
)
"""A model of which nothing is known: no system prompt of ours, since another model's would only confuse it."""
RELEASES = ((re.compile(r"2506|1\.0"), MAGISTRAL_1_0), (re.compile(r"2507|1\.1"), MAGISTRAL_1_1))


def card_for(served: Served, thinks: bool) -> ModelCard:
    """The card of the model by its name, or by whether its template has thinking marks."""
    plain = PurePosixPath(served.name.replace("\\", "/")).name
    name = plain.casefold()
    known = find_card(served.name) or find_card(plain)
    if known is None and "magistral" in name and "medium" not in name and "latest" not in name:
        known = next((card for pattern, card in RELEASES if pattern.search(name)), MAGISTRAL_1_2)
    if known is not None:
        return known
    if thinks or ("ministral" in name and "reasoning" in name):
        return replace(MAGISTRAL_1_2, key="remote", name=plain, description_key="model_on_a_server_unknown")
    return replace(GENERAL, name=plain)
