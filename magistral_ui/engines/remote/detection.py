"""Detects what kind of server answers, which model it has, and which shape that model's prompts need; it starts nothing.

What a server does not say is taken from its dialect.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlencode

from magistral_ui.engines.base import ModelInfo
from magistral_ui.engines.remote.dialects import (
    DIALECTS,
    LLAMA_CPP,
    LM_STUDIO,
    MISTRAL,
    TRANSFORMERS,
    UNKNOWN,
    VLLM,
    Dialect,
    with_effort,
    without_mark,
)
from magistral_ui.engines.remote.http_client import ServerClient
from magistral_ui.engines.remote.image_grid_probe import image_grid
from magistral_ui.engines.remote.request_errors import InsecureConnection, closed_without_answer, speaks_tls
from magistral_ui.engines.remote.served_models import ServedModel, card_for, choose_model, named_or_only, served_models
from magistral_ui.engines.remote.server_profile import ServerProfile
from magistral_ui.engines.remote.sse import json_object
from magistral_ui.errors import ServerUnusable
from magistral_ui.models.cards import ModelCard

PROBE_SYSTEM = ("system", "thought", "prompt")
THINK_MARK = "[THINK]"
MODEL_LOAD_TIMEOUT = 900.0
"""Seconds for a router to load a model."""
IDENTITY_FIELDS = (
    "modalities",
    "chat_template",
    "model_path",
    "model_alias",
    "model_ftype",
    "build_info",
    "version",
    "model_id",
)
"""Fields of a server's own endpoints that identify a model."""


class StillLoading(Exception):
    """The server is up, but its model is not ready yet."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What the operator specified about the server; None means to detect it."""

    model: str | None = None
    dialect: str | None = None
    context_length: int | None = None


async def detect(server: ServerClient, options: ServerOptions) -> ServerProfile:
    """The server's profile. Raises StillLoading or ServerUnusable."""
    models = await list_models(server)
    dialect = DIALECTS[options.dialect] if options.dialect else await detect_dialect(server, models)
    if dialect is LLAMA_CPP and any(each.state for each in served_models(models, {})):
        dialect = replace(dialect, lists_all_models=True)  # a router accepts only the names of its own models
    path, facts = await server_facts(server, dialect)
    served = choose_model(served_models(models, facts), options.model, dialect, server.address.host)
    if served.state in ("loading", "downloading"):
        raise StillLoading
    loaded = served.state not in ("unloaded", "failed")
    if dialect.key == "llama.cpp":
        facts = await properties(server, served.name)
        served = _with_facts(served, models, facts)
        loaded = loaded or "chat_template" in facts
    dialect, has_think_marks = await probe_template(server, dialect, served.name, facts) if loaded else (dialect, False)
    card = card_for(served, has_think_marks)
    if dialect is MISTRAL and "magistral" in served.name:  # these reason anyway, and reject the parameter
        dialect = replace(dialect, effort="", without_reasoning={"prompt_mode": None})
    dialect = with_effort(dialect, served.name, facts, card, has_think_marks=has_think_marks)
    card = replace(card, takes_effort=bool(dialect.effort))
    if dialect.history == "inline" and not has_think_marks and card.key == "remote":
        dialect = replace(dialect, history="left_out")  # only Mistral's models understand the marks
    if not dialect.resumes_reasoning and card.key != "remote":
        dialect = replace(dialect, resume=None)  # every reply of these models has reasoning
    context = _context_length(served, card, options)
    if "samplers" in dialect.always:
        # The penalty should cover the whole context. -1 used to mean that, but is now refused; the length always works.
        last_n = max(context, served.context_length or 0)
        dialect = replace(dialect, always={**dialect.always, "repeat_last_n": last_n})
    card = replace(card, context_length=context, vision=card.vision if served.vision is None else served.vision)
    grid, counts_images = await image_grid(server, dialect, card, served.name, loaded=loaded)
    info = ModelInfo(
        name=card.name,
        source=served.listed or served.name,
        precision=served.precision,
        device=_name_and_version(dialect, facts),
        context_length=context,
        chosen_because="model_on_a_server",
        engine=dialect.key,
        missing=dialect.missing(),
    )
    return ServerProfile(
        dialect,
        card,
        served.name,
        info,
        context_known=bool(served.context_length or options.context_length),
        max_output_tokens=served.max_output_tokens,
        loaded=loaded,
        template_known=loaded or dialect.key != "llama.cpp",
        image_grid=grid,
        counts_images=counts_images,
        facts_path=path,
        fingerprint=fingerprint_of(models, facts, served.name),
    )


def keep_known_template(profile: ServerProfile, before: ServerProfile | None) -> ServerProfile:
    """`profile`, or the previous one if a router has merely unloaded the same model."""
    if profile.loaded or before is None or not before.template_known or before.model != profile.model:
        return profile
    return replace(before, loaded=False, fingerprint=profile.fingerprint)


async def current_fingerprint(server: ServerClient, profile: ServerProfile) -> str:
    """The current value of `profile.fingerprint`; if it differs, the server has changed."""
    models = await list_models(server)
    if profile.dialect.key == "llama.cpp":
        return fingerprint_of(models, await properties(server, profile.model), profile.model)
    return fingerprint_of(models, await _facts(server, profile.facts_path), profile.model)


def fingerprint_of(models: Mapping[str, Any], facts: Mapping[str, Any], name: str) -> str:
    """A digest of the relevant part of what a server says: its models' names, and all details of the one in use.

    It excludes what changes constantly, such as the time, and the state of a router's other models.
    """
    served = served_models(models, facts)
    own = named_or_only(served, name)
    identity = {key: facts.get(key) for key in IDENTITY_FIELDS}
    identity["n_ctx"] = json_object(facts.get("default_generation_settings")).get("n_ctx")
    seen = repr((sorted(each.name for each in served), own, sorted(identity.items())))
    return hashlib.sha256(seen.encode("utf-8", "replace")).hexdigest()


def _with_facts(served: ServedModel, models: Mapping[str, Any], facts: Mapping[str, Any]) -> ServedModel:
    """`served` with what the model's own endpoint says, under the requested name."""
    found = named_or_only(served_models(models, facts), served.name)
    return replace(found, name=served.name, listed=served.listed) if found else served


def _context_length(served: ServedModel, card: ModelCard, options: ServerOptions) -> int:
    """The context length: what the server says, limited by the operator's choice or by a known model's maximum."""
    allowed = options.context_length or (
        card.context_length if card.key != "remote" or not served.context_length else None
    )
    served_length = served.context_length or card.context_length
    return min(served_length, allowed or served_length)


async def list_models(server: ServerClient) -> Mapping[str, Any]:
    host = server.address.host
    try:
        response = await server.ask("models")
    except InsecureConnection as error:
        raise ServerUnusable(error.message.key, server=host) from error
    except (ConnectionError, TimeoutError) as error:
        hidden = (
            server.address.base_url.startswith("http:")
            and closed_without_answer(error)
            and await speaks_tls(server.address)
        )
        raise ServerUnusable("remote_needs_tls" if hidden else "remote_unreachable", server=host) from error
    if response.status in (401, 403):
        raise ServerUnusable("remote_key_refused", server=host)
    if response.status in (425, 429, 503):
        raise StillLoading
    if response.status >= 500:
        key = "remote_gateway" if response.status in (502, 504) else "remote_failing"
        raise ServerUnusable(
            key, server=host, status=response.status, detail=response.detail or f"HTTP {response.status}"
        )
    if 300 <= response.status < 400:
        raise ServerUnusable("remote_redirects", server=host, detail=response.location)
    if response.status == 400 and server.address.base_url.startswith("http:") and await speaks_tls(server.address):
        raise ServerUnusable("remote_needs_tls", server=host)  # some servers say so in their own words
    value = {"data": response.value} if isinstance(response.value, list) else response.value  # a bare list: Together
    if not response.ok or not isinstance(value, dict) or not isinstance(value.get("data") or [], list):
        raise ServerUnusable("remote_not_compatible", server=host, status=response.status)
    return value


async def detect_dialect(server: ServerClient, models: Mapping[str, Any]) -> Dialect:
    """The kind of server, recognized by what only that kind answers."""
    listed = [each for each in models.get("data") or () if isinstance(each, dict)]
    owners = {str(each.get("owned_by", "")).lower() for each in listed}
    if "llamacpp" in owners:
        return LLAMA_CPP
    if "vllm" in owners:
        return VLLM
    if server.address.host.endswith("mistral.ai") or any(
        "capabilities" in each and "aliases" in each for each in listed
    ):
        return MISTRAL
    if {"total_slots", "default_generation_settings"} & (await server.try_ask("/props")).fields.keys():
        return LLAMA_CPP
    if "data" in (await server.try_ask("/api/v0/models")).fields:
        return LM_STUDIO
    if "/load_model" in (await server.try_ask("/openapi.json")).fields.get("paths", ()):
        return TRANSFORMERS
    return UNKNOWN


async def server_facts(server: ServerClient, dialect: Dialect) -> tuple[str, Mapping[str, Any]]:
    """The path of the endpoint that describes all models of the server, and its answer; both empty if there is none."""
    paths: tuple[str, ...] = {"lm-studio": ("/api/v0/models",), "vllm": ("/version",)}.get(dialect.key, ())
    if dialect.key == "unknown":
        paths = ("model/info", "/info")  # LiteLLM's, and that of text-generation-inference
    for path in paths:
        if facts := await _facts(server, path):
            return path, facts
    return "", {}


async def _facts(server: ServerClient, path: str) -> Mapping[str, Any]:
    facts = (await server.try_ask(path)).fields if path else {}
    if path == "/info" and "max_total_tokens" in facts:
        return {**facts, "data": [{**facts, "id": facts.get("model_id")}]}
    return facts


async def properties(server: ServerClient, model: str) -> Mapping[str, Any]:
    """llama.cpp's properties of one model, requested so that a router does not load it."""
    return (await server.try_ask(f"/props?{urlencode({'model': model, 'autoload': 'false'}, quote_via=quote)}")).fields


async def load_model(server: ServerClient, model: str) -> None:
    """Make a router load a model, and wait for it; a failure is reported when the model is used."""
    with suppress(ConnectionError, TimeoutError):
        await server.ask(f"/props?{urlencode({'model': model}, quote_via=quote)}", timeout=MODEL_LOAD_TIMEOUT)


async def probe_template(
    server: ServerClient, dialect: Dialect, model: str, facts: Mapping[str, Any]
) -> tuple[Dialect, bool]:
    """The dialect with the shapes that this server's chat template really renders, and whether the model has think marks."""
    if dialect.key == "llama.cpp":
        return await _probe_llama_cpp(server, dialect, model, THINK_MARK in str(facts.get("chat_template")))
    if dialect.key == "vllm":
        return await _probe_vllm(server, dialect, model)
    return dialect, False


async def _probe_llama_cpp(
    server: ServerClient, dialect: Dialect, model: str, has_think_marks: bool
) -> tuple[Dialect, bool]:
    """llama.cpp: render prompts without running them, since templates differ in what they do with earlier reasoning."""
    user = {"role": "user", "content": "question"}
    fields = {"role": "assistant", "content": "answer", "reasoning_content": "thought"}
    plain = {"role": "assistant", "content": "answer"}
    kept = re.compile(re.escape("[THINK]thought[/THINK]answer") if has_think_marks else r"thought\b(?s:.*)\banswer")
    marked = {"role": "assistant", "content": "[THINK]thought[/THINK]answer"}

    async def render(*messages: Mapping[str, Any], resume: str | None = None) -> str:
        return await _apply_template(server, model, messages, resume)

    if kept.search(await render(user, fields, user)):
        dialect = replace(dialect, history="reasoning_content")
    elif "[THINK]thought[/THINK]answer" in await render(user, marked, user):
        # A template passes any text through; whether the model understands it is decided later.
        dialect = replace(dialect, history="inline")
    else:
        dialect = replace(dialect, history="left_out")
    if not (await render(user, plain, resume="content")).endswith("answer"):
        return replace(dialect, resume=None), has_think_marks
    opened = await render(user, {**fields, "content": ""}, resume="reasoning_content")
    closed = await render(user, fields, resume="content")
    reasoned = opened.endswith("thought") and bool(kept.search(closed)) and closed.endswith("answer")
    return replace(dialect, resumes_reasoning=reasoned and dialect.history == "reasoning_content"), has_think_marks


async def _apply_template(
    server: ServerClient, model: str, messages: Sequence[Mapping[str, Any]], resume: str | None = None
) -> str:
    body: dict[str, Any] = {"model": model, "messages": list(messages)}
    if resume:
        body |= {"continue_final_message": resume, "add_generation_prompt": False}
    return str((await server.try_ask("/apply-template", body)).fields.get("prompt", ""))


async def _probe_vllm(server: ServerClient, dialect: Dialect, model: str) -> tuple[Dialect, bool]:
    """vLLM: look at a prompt's tokens. With Mistral's tokenizer, only chunks become marks; with others, only text does."""
    begin, thought, end = PROBE_SYSTEM
    user = {"role": "user", "content": "question"}
    chunks = [{"type": "text", "text": begin}, {"type": "thinking", "thinking": thought}, {"type": "text", "text": end}]
    mark = await _mark_id(server, model, [{"role": "system", "content": chunks}, user])
    if mark is not None:
        return without_mark(dialect, mark), True
    text = {"role": "system", "content": f"{begin}[THINK]{thought}[/THINK]{end}"}
    mark = await _mark_id(server, model, [text, user])
    dialect = replace(dialect, system="text")
    return (dialect, False) if mark is None else (without_mark(dialect, mark), True)


async def _mark_id(server: ServerClient, model: str, messages: Sequence[Mapping[str, Any]]) -> int | None:
    """The token that opens reasoning in a prompt, or None."""
    body = {"model": model, "messages": list(messages), "return_token_strs": True}
    fields = (await server.try_ask("/tokenize", body)).fields
    tokens, strings = fields.get("tokens"), fields.get("token_strs")
    if not isinstance(tokens, list) or not isinstance(strings, list):
        return None
    return next((token for token, text in zip(tokens, strings, strict=False) if text == THINK_MARK), None)


def _name_and_version(dialect: Dialect, facts: Mapping[str, Any]) -> str:
    """The kind of server, with its version where known."""
    version = facts.get("version") or facts.get("build_info") or ""
    return f"{dialect.name} {version}".strip() if isinstance(version, str) else dialect.name
