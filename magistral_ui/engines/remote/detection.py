"""Asks a server what it is, which model it has, and how that model's prompts must be shaped; it starts nothing.

Which facts were asked is in the functions' names; what a server says nothing about is taken from the dialect's own value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from magistral_ui.engines.base import ModelInfo
from magistral_ui.engines.remote.certificates import NotSecure, speaks_tls, was_hung_up
from magistral_ui.engines.remote.dialects import (
    DIALECTS,
    LLAMA_CPP,
    LM_STUDIO,
    MISTRAL,
    TRANSFORMERS,
    UNKNOWN,
    VLLM,
    Dialect,
)
from magistral_ui.engines.remote.profile import Profile
from magistral_ui.engines.remote.served_models import card_for, choose, served_models
from magistral_ui.engines.remote.server import Server, Told
from magistral_ui.errors import ServerUnusable

PROBE_SYSTEM = ("system", "thought", "prompt")
MARK = "[THINK]"


class StillLoading(Exception):
    """The server is there, and its model is not ready yet."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator said about the server; None leaves it to the server."""

    model: str | None = None
    dialect: str | None = None
    context_length: int | None = None


async def detect(server: Server, wish: Wish) -> Profile:
    """The server's profile. Raises StillLoading, or ServerUnusable with a sentence that says what to do."""
    models = await list_models(server)
    dialect = DIALECTS[wish.dialect] if wish.dialect else await which_dialect(server, models)
    facts = await facts_of(server, dialect)
    served = choose(served_models(models, facts), wish.model, dialect, server.address.host)
    dialect, thinks = await shaped(server, dialect, served.name)
    card = card_for(served, thinks)
    if dialect is MISTRAL and "magistral" in served.name:  # these think by themselves, and refuse to be asked to
        dialect = replace(dialect, always={})
    context = min(served.context_length or card.context_length, wish.context_length or card.context_length)
    card = replace(card, context_length=context, vision=card.vision if served.vision is None else served.vision)
    info = ModelInfo(
        name=card.name,
        source=served.name,
        precision=served.precision,
        device=_named(dialect, facts),
        context_length=context,
        chosen_because="model_on_a_server",
        engine=dialect.key,
        missing=dialect.missing(),
    )
    return Profile(dialect, card, served.name, info)


async def list_models(server: Server) -> Mapping[str, Any]:
    """What `/v1/models` says."""
    host = server.address.host
    try:
        told = await server.ask("models")
    except NotSecure as error:
        raise ServerUnusable(error.key, server=host) from error
    except (ConnectionError, TimeoutError) as error:
        hidden = server.address.base_url.startswith("http:") and was_hung_up(error) and await speaks_tls(server.address)
        raise ServerUnusable("remote_needs_tls" if hidden else "remote_unreachable", server=host) from error
    if told.status in (401, 403):
        raise ServerUnusable("remote_key_refused", server=host)
    if told.status in (425, 429, 502, 503, 504):
        raise StillLoading
    if told.status == 400 and server.address.base_url.startswith("http:") and await speaks_tls(server.address):
        raise ServerUnusable("remote_needs_tls", server=host)  # some say so in words of their own
    if not told.fine or not isinstance(told.value, dict) or not isinstance(told.value.get("data") or [], list):
        raise ServerUnusable("remote_not_compatible", server=host, status=told.status)
    return told.value


async def which_dialect(server: Server, models: Mapping[str, Any]) -> Dialect:
    """The kind of server, by what only that kind says."""
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
    if _is(await _asked(server, "/props"), "total_slots"):
        return LLAMA_CPP
    if _is(await _asked(server, "/api/v0/models"), "data"):
        return LM_STUDIO
    paths = await _asked(server, "/openapi.json")
    if _is(paths, "paths") and "/load_model" in paths.value["paths"]:
        return TRANSFORMERS
    return UNKNOWN


async def facts_of(server: Server, dialect: Dialect) -> Mapping[str, Any]:
    """What the server tells beside the list of models: llama.cpp's properties, LM Studio's own list, vLLM's version."""
    path = {"llama.cpp": "/props", "lm-studio": "/api/v0/models", "vllm": "/version"}.get(dialect.key)
    told = await _asked(server, path) if path else Told(404)
    return told.value if told.fine and isinstance(told.value, dict) else {}


async def shaped(server: Server, dialect: Dialect, model: str) -> tuple[Dialect, bool]:
    """The dialect with the shapes that this server's template really renders, and whether the model has thinking marks."""
    if dialect.key == "llama.cpp":
        return await _shaped_by_template(server, dialect)
    if dialect.key == "vllm":
        return await _shaped_by_tokens(server, dialect, model)
    return dialect, False


async def _shaped_by_template(server: Server, dialect: Dialect) -> tuple[Dialect, bool]:
    """llama.cpp shows a prompt without running it: templates differ in what they do to earlier reasoning."""
    user = {"role": "user", "content": "question"}
    fields = {"role": "assistant", "content": "answer", "reasoning_content": "thought"}
    marked = {"role": "assistant", "content": "[THINK]thought[/THINK]answer"}
    kept = "[THINK]thought[/THINK]answer"
    if kept in await _rendered(server, [user, fields, user]):
        history = dialect.history
    elif kept in await _rendered(server, [user, marked, user]):
        history = "inline"
    else:
        history = "left_out"
    template = await _asked(server, "/props")
    thinks = _is(template, "chat_template") and MARK in str(template.value["chat_template"])
    dialect = replace(dialect, history=history)
    opened = await _rendered(server, [user, {**fields, "content": ""}], "reasoning_content")
    if history != "reasoning_content" or not opened.endswith("[THINK]thought"):
        dialect = replace(dialect, resume=None)
    return dialect, thinks


async def _rendered(server: Server, messages: Sequence[Mapping[str, Any]], resume: str | None = None) -> str:
    body: dict[str, Any] = {"messages": list(messages)}
    if resume:
        body |= {"continue_final_message": resume, "add_generation_prompt": False}
    told = await _asked(server, "/apply-template", body)
    return str(told.value["prompt"]) if _is(told, "prompt") else ""


async def _shaped_by_tokens(server: Server, dialect: Dialect, model: str) -> tuple[Dialect, bool]:
    """vLLM shows a prompt's tokens: with Mistral's tokenizer only chunks become marks, with another one only text does."""
    begin, thought, end = PROBE_SYSTEM
    user = {"role": "user", "content": "question"}
    chunks = [{"type": "text", "text": begin}, {"type": "thinking", "thinking": thought}, {"type": "text", "text": end}]
    if await _has_mark(server, model, [{"role": "system", "content": chunks}, user]):
        return dialect, True
    text = {"role": "system", "content": f"{begin}[THINK]{thought}[/THINK]{end}"}
    marked = await _has_mark(server, model, [text, user])
    return replace(dialect, system="text"), marked


async def _has_mark(server: Server, model: str, messages: Sequence[Mapping[str, Any]]) -> bool:
    body = {"model": model, "messages": list(messages), "return_token_strs": True}
    told = await _asked(server, "/tokenize", body)
    strings = told.value.get("token_strs") if told.fine and isinstance(told.value, dict) else None
    return isinstance(strings, list) and MARK in strings


async def _asked(server: Server, path: str, body: dict[str, Any] | None = None) -> Told:
    """The answer to one of many questions: a server that does not understand it has answered it."""
    try:
        return await server.ask(path, body)
    except (ConnectionError, TimeoutError):
        return Told(0)


def _is(told: Told, key: str) -> bool:
    return told.fine and isinstance(told.value, dict) and key in told.value


def _named(dialect: Dialect, facts: Mapping[str, Any]) -> str:
    """The kind of server with its version where it says one."""
    version = facts.get("version") or facts.get("build_info") or ""
    return f"{dialect.name} {version}".strip() if isinstance(version, str) else dialect.name
