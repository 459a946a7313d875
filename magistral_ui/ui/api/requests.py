"""Turns a program's request into a question for a session, and follows its reply; it does not know about HTTP or MCP."""

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder, is_in_or_equal

from magistral_ui.chat.conversation import AssistantMessage, ChatMessage, Conversation, UserMessage
from magistral_ui.chat.events import Failed, Finished, Json, Usage, notices_value, usage_value
from magistral_ui.chat.images import ImageFile, read_image, read_images
from magistral_ui.chat.prompt import PromptChoices
from magistral_ui.chat.reply import Reply
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.client import NO_CLIENT, Client
from magistral_ui.engines.base import Engine, Loading
from magistral_ui.engines.generation import RunningReply
from magistral_ui.errors import BadInput, MagistralUIError, TooManyImages
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.live_view import LiveView, watch
from magistral_ui.sessions.session import Session
from magistral_ui.sessions.upload_cache import check_seen, read_files
from magistral_ui.ui.api.models import AssistantMessageIn, ChatRequest, Files, GrowingReply, ToolRequest, UserMessageIn
from magistral_ui.web.client_address import client_of

MESSAGES_WORTH_OF_IMAGES = 10
"""How many times the images of one message a whole request may contain."""
LOAD_TIMEOUT = 60.0
LOAD_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Question:
    """A validated question, except for what the session checks itself."""

    text: str
    images: Sequence[ImageFile]
    params: SamplingParams
    choices: PromptChoices
    earlier: Conversation = field(default_factory=Conversation)

    def ask(self, session: Session) -> RunningReply:
        if self.earlier.messages:
            session.load(self.earlier, {}, None)
        return session.say(self.text, self.images, self.params, self.choices)


def read_chat(engine: Engine, limits: Limits, request: ChatRequest) -> Question:
    """The question in a request to /chat. It decodes images, so do not call it in an event loop. Raises BadInput."""
    params = engine.card.sampling.changed(request.parameters)
    message = request.message
    limits.check_message(message.text, message.files)
    limits.check_message(request.instructions, ())
    _check_history(request, limits)
    earlier = _conversation(request.history, lambda files: _seen(engine, _uploads(files, limits)))
    choices = PromptChoices(instructions=request.instructions, keep_reasoning=request.keep_reasoning)
    return Question(message.text, _seen(engine, _uploads(message.files, limits)), params, choices, earlier)


def read_tool(engine: Engine, limits: Limits, request: ToolRequest) -> Question:
    """The question in a call of the MCP tool; otherwise like `read_chat`."""
    params = engine.card.sampling.changed(request.parameters)
    limits.check_message(request.question, request.pictures)
    limits.check_message(request.instructions, ())
    shown = read_images(enumerate(request.pictures, 1), lambda sent: _image(sent[1], sent[0], limits))
    return Question(request.question, _seen(engine, shown), params, PromptChoices(instructions=request.instructions))


def _conversation(
    turns: Sequence[UserMessageIn | AssistantMessageIn], images: Callable[[Files], Sequence[ImageFile]]
) -> Conversation:
    """The conversation in a history, built in one go: adding turn after turn would copy it each time."""
    messages: dict[int, ChatMessage] = {}
    for id, turn in enumerate(turns, 1):
        if isinstance(turn, UserMessageIn):
            messages[id] = UserMessage(id, id - 1 or None, turn.text, tuple(images(turn.files)))
        else:
            messages[id] = AssistantMessage(id, id - 1, Reply(reasoning=turn.reasoning, answer=turn.answer))
    return Conversation(messages, {message.parent: id for id, message in messages.items()}, len(messages))


def _check_history(request: ChatRequest, limits: Limits) -> None:
    """Check the size of the whole request before decoding any of its images."""
    turns = request.history
    if len(turns) >= limits.messages:
        raise BadInput("program_history_long", count=len(turns), limit=limits.messages - 1)
    for turn in turns:
        if isinstance(turn, UserMessageIn):
            limits.check_message(turn.text, turn.files)
    length = sum(len(turn.content) for turn in turns)
    if length > limits.conversation_length:
        raise BadInput("program_history_text", count=length, limit=limits.conversation_length)
    if request.image_count > MESSAGES_WORTH_OF_IMAGES * limits.pictures:
        raise TooManyImages(count=request.image_count, limit=MESSAGES_WORTH_OF_IMAGES * limits.pictures)


def _seen(engine: Engine, images: list[ImageFile]) -> list[ImageFile]:
    check_seen(engine.card, images)
    return images


def _uploads(files: Files, limits: Limits) -> list[ImageFile]:
    return read_files([_uploaded(file) for file in files], limits)


def _uploaded(file: object) -> str:
    """The path of an upload. Only Gradio's own upload folder is read, whatever path a client sends."""
    path = file.get("path") if isinstance(file, dict) else None
    if not isinstance(path, str) or not _is_upload(path):
        raise BadInput("program_file")
    return path


def _is_upload(path: str) -> bool:
    if "\0" in path or len(path) > 1_000:  # no system allows such names
        return False
    return is_in_or_equal(path, get_upload_folder()) and Path(path).is_file()


def _image(sent: str, number: int, limits: Limits) -> ImageFile:
    """An image from a data URL or base64; its name is its number."""
    _, comma, data = sent.partition(",") if sent.startswith("data:") else ("", ",", sent)
    try:
        decoded = base64.b64decode("".join(data.split()), validate=True)
    except (ValueError, binascii.Error) as error:
        raise BadInput("program_pictures") from error
    if not comma or not decoded:
        raise BadInput("program_pictures")
    return read_image(decoded, str(number), max_bytes=limits.picture_bytes, max_pixels=limits.picture_pixels)


def client_of_request(request: Any) -> Client:
    inner = request.request if isinstance(request, gr.Request) else request  # Gradio passes its own type
    return client_of(inner.scope) if inner is not None else NO_CLIENT


async def wait_for_model(engine: Engine) -> AsyncIterator[None]:
    """Wait while the model is loading, so that programs can ask as soon as the page is served."""
    for _ in range(round(LOAD_TIMEOUT / LOAD_POLL_SECONDS)):
        if not isinstance(engine.status(), Loading):
            return
        yield
        await asyncio.sleep(LOAD_POLL_SECONDS)


async def follow_reply(running: RunningReply) -> AsyncGenerator[LiveView, None]:
    """The reply as it grows. Raises what makes it fail."""
    async for view in watch(running.generation):
        if isinstance(view.draft.last, Failed):
            raise MagistralUIError(view.draft.last.key, **view.draft.last.values)
        yield view


def reply_value(view: LiveView, running: RunningReply, reasoning: str, answer: str) -> Json:
    """The reply so far; `finish_reason` is null until it ends."""
    last = view.draft.last
    counts = Usage(reasoning_tokens=view.usage.reasoning_tokens, answer_tokens=view.usage.answer_tokens)
    value = {
        "reasoning": reasoning,
        "answer": answer,
        "finish_reason": last.why if isinstance(last, Finished) else None,
        "usage": usage_value(last.usage if last else counts),
        "seed": running.params.seed,
        "notices": notices_value(view.draft.notices),
        "model": running.model,
    }
    return GrowingReply.model_validate(value).model_dump()


def whole_value(view: LiveView, running: RunningReply, session: Session) -> Json:
    last = session.conversation.last()
    reply = last.reply if isinstance(last, AssistantMessage) else None
    return reply_value(view, running, reply.reasoning if reply else "", reply.answer if reply else "")
