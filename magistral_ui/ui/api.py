"""The programmatic door: the named endpoint /chat, one question in a fresh conversation, its reply as it grows."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder, is_in_or_equal

from magistral_ui.chat.events import Failed, Finished, Usage
from magistral_ui.chat.pictures import Picture
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import Engine, Loading
from magistral_ui.errors import BadInput, MagistralUIError, PictureRefused
from magistral_ui.sessions.session import Running, Session
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.chat import read_files
from magistral_ui.ui.i18n import sentence, sentence_of
from magistral_ui.ui.live import LiveView, watch
from magistral_ui.ui.rendering import Json, notices_value, usage_value

PATIENCE = 60.0
"""Seconds for which a request waits for a model that is being loaded."""
LOOK = 0.1


def add_api(engine: Engine, visitors: Visitors) -> None:
    """Add the endpoint to the page that is being built."""

    async def chat(message: Any, parameters: Any = None, request: gr.Request | None = None) -> AsyncIterator[Json]:
        guest = visitors.guest(party=_address(request))
        try:
            async for reply in answer(engine, visitors, message, parameters, guest):
                yield reply
        finally:
            guest.close()

    # Components only give the endpoint its two inputs and its output: the page does not show them.
    message = gr.JSON(visible=False, label="message")
    parameters = gr.JSON(visible=False, label="parameters")
    reply = gr.JSON(visible=False, label="reply")
    gr.Button(visible=False).click(
        chat, [message, parameters], reply, api_name="chat", concurrency_limit=None, show_progress="hidden"
    )


async def answer(
    engine: Engine, visitors: Visitors, message: object, parameters: object, guest: Session
) -> AsyncIterator[Json]:
    """The reply to `message` as it grows; gr.Error with a sentence for anything that cannot be used.

    The caller closes `guest`: whoever leaves before the end stops the reply, since nobody else could ever read it.
    """
    try:
        read_parameters(engine.card.sampling, parameters)  # what is wrong is said at once
        await _loaded(engine)
        running = await asyncio.to_thread(begin, engine, visitors, message, parameters, guest)
    except MagistralUIError as error:
        raise _refusal(sentence_of(error)) from error
    async for view in watch(running.generation, window=None):
        if isinstance(view.draft.last, Failed):
            raise _refusal(sentence(view.draft.last.key, **view.draft.last.values))
        yield reply_value(view, running)


def _address(request: gr.Request | None) -> str:
    client = request.client if request is not None else None
    return str(client.host) if client is not None else ""


def begin(engine: Engine, visitors: Visitors, message: object, parameters: object, guest: Session) -> Running:
    """Read the request and begin its reply; pictures are decoded here, so not in the event loop."""
    params = read_parameters(engine.card.sampling, parameters)
    text, pictures = read_message(message, visitors)
    if pictures and not engine.card.vision:
        raise PictureRefused("picture_not_supported", name=pictures[0].name)
    return guest.say(text, pictures, params)


async def _loaded(engine: Engine) -> None:
    """Wait while the model is loading, so that a program may ask as soon as the page is up."""
    for _ in range(round(PATIENCE / LOOK)):
        if not isinstance(engine.status(), Loading):
            return
        await asyncio.sleep(LOOK)


def read_message(message: object, visitors: Visitors) -> tuple[str, list[Picture]]:
    """Text and pictures of `{"text": …, "files": […]}`, or of a bare text; BadInput for anything else."""
    if isinstance(message, str):
        return message, []
    if not isinstance(message, dict) or not set(message) <= {"text", "files"}:
        raise BadInput("bad_message")
    text, files = message.get("text") or "", message.get("files") or []
    if not isinstance(text, str) or not isinstance(files, list):
        raise BadInput("bad_message")
    return text, read_files([_uploaded(file) for file in files], visitors.limits)


def read_parameters(defaults: SamplingParams, parameters: object) -> SamplingParams:
    """`defaults` with the given parameters laid over them; BadInput for anything but names and numbers."""
    if parameters is None:
        return defaults
    if not isinstance(parameters, dict):
        raise BadInput("bad_parameters")
    return defaults.changed(parameters)


def reply_value(view: LiveView, running: Running) -> Json:
    """The reply as far as it goes; `finish_reason` is null until its end."""
    last = view.draft.last
    usage = last.usage if last else Usage(0, 0, view.draft.reasoning_tokens, view.draft.answer_tokens)
    return {
        "reasoning": view.reasoning,
        "answer": view.answer,
        "finish_reason": last.why if isinstance(last, Finished) else None,
        "usage": usage_value(usage),
        "seed": running.params.seed,
        "notices": notices_value(view.draft.notices),
        "model": running.model,
    }


def _uploaded(file: object) -> str:
    """The path of an upload. Only Gradio's own upload folder is read, whatever path a client writes."""
    path = file.get("path") if isinstance(file, dict) else None
    if not isinstance(path, str) or not is_in_or_equal(path, get_upload_folder()) or not Path(path).is_file():
        raise BadInput("bad_message")
    return path


def _refusal(told: str) -> gr.Error:
    return gr.Error(told, print_exception=False)
