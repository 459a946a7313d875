"""Builds the body of a completion request: messages, images and parameters in the shape that the server accepts."""

import base64
import threading
from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from typing import Any

from cachetools import LRUCache, cachedmethod

from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.prompt import AssistantTurn, Prompt, Resume, SystemPart, UserTurn, user_parts
from magistral_ui.chat.sampling import PARAMETERS, SamplingParams
from magistral_ui.client import NO_CLIENT, serving
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.remote.dialects import TEMPLATE_FIELDS, Dialect, effort_fields
from magistral_ui.engines.remote.server_profile import ServerProfile, chose_max_tokens
from magistral_ui.errors import ParameterRefused
from magistral_ui.models.image_grid import PIXTRAL, ImageGrid

MessageJson = dict[str, Any]
Marks = tuple[str, str]
MAX_SERVER_SEED = 2**32 - 1
"""Servers' seeds have 32 bits; to llama.cpp, the largest one means no seed."""
MIN_JPEG_PIXELS = 640 * 480
"""Pixels from which photos are sent as JPEG, since PNG would be many times larger."""
CACHE_BYTES = 64 * 2**20
"""Bytes of data URLs to cache, so that a conversation's images are not encoded again for every turn."""


def body_of(
    request: GenerationRequest,
    profile: ServerProfile,
    url_of: Callable[[ImageFile, ImageGrid | None], str],
    resume: Resume | None,
    max_tokens: int,
) -> dict[str, Any]:
    """The complete body, with only fields that the server knows, since some servers refuse any others."""
    dialect, prompt = profile.dialect, request.prompt
    body: dict[str, Any] = {"model": profile.model, **dialect.always}
    prompt = replace(prompt, resume=resume)
    body |= effort_fields(prompt, dialect)
    urls = {image.digest: url_of(image, profile.image_grid) for image in prompt.images}
    body["messages"] = messages_of(prompt, dialect, profile.card.reasoning_marks, lambda image: urls[image.digest])
    if resume is not None:
        body |= resumed_fields(resume, dialect)
    if dialect.stream_options:
        body["stream_options"] = dict(dialect.stream_options)
    for name, field in dialect.fields.items():
        value = getattr(request.params, name)
        if value is not None:
            body[field] = value
    if "max_tokens" in dialect.fields:
        body.pop(dialect.fields["max_tokens"])
        if sends_max_tokens(request.params, profile):
            body[dialect.fields["max_tokens"]] = max(1, min(max_tokens, profile.max_output_tokens or max_tokens))
    if (seed := request.params.seed) is not None and "seed" in dialect.fields:
        body[dialect.fields["seed"]] = seed % MAX_SERVER_SEED
    return body


def sends_max_tokens(params: SamplingParams, profile: ServerProfile) -> bool:
    chose = chose_max_tokens(params, profile.card.sampling, profile.info.context_length)
    return profile.dialect.sends_default_max_tokens or profile.needs_max_tokens or chose


def from_tokens(body: dict[str, Any], tokens: list[int]) -> dict[str, Any]:
    """The same request as a text completion of `tokens`, which returns the marks as text."""
    chat = ("messages", "continue_final_message", "add_generation_prompt", *TEMPLATE_FIELDS)
    plain = {name: value for name, value in body.items() if name not in chat}
    return {**plain, "prompt": tokens, "skip_special_tokens": False}


def refuse_unsupported(params: SamplingParams, dialect: Dialect, server: str) -> None:
    """Raise ParameterRefused for a parameter that was set but that this server does not support."""
    for name, reason in dialect.missing().items():
        if name not in PARAMETERS or name == "seed":  # every reply has a seed, whether or not the server uses it
            continue
        if name == "reasoning_budget" and params.reasoning_budget == 0:
            reason = dialect.missing().get("without_reasoning", "")
        if reason and getattr(params, name) != PARAMETERS[name].default:
            raise ParameterRefused("parameter_not_supported", name=name, server=server, reason=reason)


def messages_of(
    prompt: Prompt, dialect: Dialect, marks: Marks, url_of: Callable[[ImageFile], str]
) -> list[MessageJson]:
    """All messages, system prompt first; consecutive user turns are merged, since some templates refuse several."""
    messages = system_messages(prompt.system, dialect, marks)
    if not messages and prompt.effort == "none" and dialect.prompts_reasoning and dialect.system == "text":
        # Without a system message, some templates add a prompt that shows how to reason.
        messages = [{"role": "system", "content": ""}]
    users: list[UserTurn] = []
    for turn in prompt.turns:
        if isinstance(turn, UserTurn):
            users.append(turn)
        elif assistant := assistant_message(turn, dialect, marks):
            messages += [user_message(users, url_of), assistant]
            users = []
    if users:
        messages.append(user_message(users, url_of))
    if prompt.resume is not None:
        messages.append(resumed_message(prompt.resume, dialect, marks))
    return messages


def system_messages(parts: tuple[SystemPart, ...], dialect: Dialect, marks: Marks) -> list[MessageJson]:
    """The system prompt in the dialect's shape; no message if it is empty."""
    if not parts:
        return []
    if dialect.system == "chunks" and any(part.reasoning for part in parts):
        content: Any = [_thinking(part.text) if part.reasoning else _text(part.text) for part in parts]
    elif dialect.system == "plain":
        content = "".join(part.text for part in parts)
    else:
        content = "".join(f"{marks[0]}{part.text}{marks[1]}" if part.reasoning else part.text for part in parts)
    return [{"role": "system", "content": content}]


def user_message(turns: list[UserTurn], url_of: Callable[[ImageFile], str]) -> MessageJson:
    """One message for one or several turns, in the order that every engine uses."""
    parts: list[MessageJson] = [
        _text(part) if isinstance(part, str) else {"type": "image_url", "image_url": {"url": url_of(part)}}
        for part in user_parts(turns)
    ]
    if len(parts) == 1 and parts[0]["type"] == "text":
        return {"role": "user", "content": parts[0]["text"]}
    return {"role": "user", "content": parts or ""}


def assistant_message(turn: AssistantTurn, dialect: Dialect, marks: Marks) -> MessageJson | None:
    """An earlier reply; None if there is nothing left of it to send, since servers refuse an empty message."""
    message: MessageJson = {"role": "assistant", "content": turn.answer}
    if turn.reasoning and dialect.history == "reasoning_content":
        message["reasoning_content"] = turn.reasoning
    elif turn.reasoning and dialect.history == "nested":
        message["content"] = _nested(turn.reasoning, turn.answer, closed=True)
    elif turn.reasoning and dialect.history == "inline":
        message["content"] = f"{marks[0]}{turn.reasoning}{marks[1]}{turn.answer}"
    elif not turn.answer.strip():
        return None
    return message


def resumed_message(resume: Resume, dialect: Dialect, marks: Marks) -> MessageJson:
    message: MessageJson = {"role": "assistant", "content": resume.answer}
    if dialect.resume == "prefix":
        reasoned = resume.reasoning is not None
        content = _nested(resume.reasoning or "", resume.answer, closed=resume.closed) if reasoned else resume.answer
        return {**message, "content": content, "prefix": True}
    if resume.reasoning is None:
        return message
    if dialect.resume == "named" and dialect.history == "reasoning_content":
        return {**message, "reasoning_content": resume.reasoning}
    if dialect.resume != "named" and dialect.system == "chunks":
        chunks = [_thinking(resume.reasoning, closed=resume.closed)]
        return {**message, "content": [*chunks, _text(resume.answer)] if resume.answer else chunks}
    closing = marks[1] if resume.closed else ""
    return {**message, "content": f"{marks[0]}{resume.reasoning}{closing}{resume.answer}"}


def resumed_fields(resume: Resume, dialect: Dialect) -> dict[str, object]:
    """The fields that make the server continue the last message instead of answering it."""
    if dialect.resume == "prefix":
        return {}
    named = "reasoning_content" if resume.reasoning is not None and not resume.closed else "content"
    in_field = dialect.resume == "named" and dialect.history == "reasoning_content"
    return {"continue_final_message": named if in_field else True, "add_generation_prompt": False}


def _text(text: str) -> MessageJson:
    return {"type": "text", "text": text}


def _thinking(text: str, *, closed: bool = True) -> MessageJson:
    return {"type": "thinking", "thinking": text, "closed": closed}


def _nested(reasoning: str, answer: str, *, closed: bool) -> list[MessageJson]:
    """The content in the shape of Mistral's API, in which the thinking is a list of text parts."""
    thinking = {"type": "thinking", "thinking": [_text(reasoning)], "closed": closed}
    return [thinking, _text(answer)] if answer else [thinking]


class ImageUrls:
    """Data URLs by the image's content; thread-safe."""

    def __init__(self) -> None:
        self._urls: LRUCache[tuple[str, ImageGrid | None], str] = LRUCache(CACHE_BYTES, len)
        self._lock = threading.Lock()

    @cachedmethod(attrgetter("_urls"), key=lambda _, image, grid: (image.digest, grid), lock=attrgetter("_lock"))
    def __call__(self, image: ImageFile, grid: ImageGrid | None) -> str:
        """The data URL of `image`; the first call for a large photo takes tens of milliseconds."""
        with serving(NO_CLIENT):  # the visitor's turn and rate limit were settled before the reply began
            return data_url(image, grid)


def data_url(image: ImageFile, grid: ImageGrid | None) -> str:
    """`image` re-encoded as a data URL, so that no EXIF data, animation or unusual format reaches the server.

    With a `grid`, it has exactly the size to which the model would scale it, so that the server need not: it does it otherwise.
    """
    if grid is None:
        data, _, kind = image.rewritten(
            longest=PIXTRAL.longest, shortest=2 * PIXTRAL.unit, format="PNG", photo=MIN_JPEG_PIXELS, quality=92
        )
    else:
        size = image.width, image.height
        data, kind = image.fitted(grid.pixels(*size), enlarged=grid.enlarged(*size), photo=MIN_JPEG_PIXELS)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode('ascii')}"
