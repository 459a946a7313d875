"""A program's reply while it is being written, whichever door it came through; it does not know the doors."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import gradio as gr

from magistral_ui.chat.conversation import AssistantMessage
from magistral_ui.chat.events import Failed, Finished, Usage
from magistral_ui.chat.json_values import Json, notices_value, usage_value
from magistral_ui.client import NO_CLIENT, Client
from magistral_ui.engines.base import Engine, Loading
from magistral_ui.errors import MagistralUIError
from magistral_ui.sessions.history.reply_state import RunningReply
from magistral_ui.sessions.live_view import LiveView, watch
from magistral_ui.sessions.session import Session
from magistral_ui.web.client_address import client_of

LOAD_TIMEOUT = 60.0
"""Seconds for which a request waits for a model that is being loaded."""
LOAD_POLL_SECONDS = 0.1


def client_of_request(request: Any) -> Client:
    """Who asks, as the doors have found out: all that one caller asks counts as one party."""
    inner = request.request if isinstance(request, gr.Request) else request  # Gradio hands over its own
    return client_of(inner.scope) if inner is not None else NO_CLIENT


async def wait_for_model(engine: Engine) -> AsyncIterator[None]:
    """Wait while the model is loading, so that a program may ask as soon as the page is up."""
    for _ in range(round(LOAD_TIMEOUT / LOAD_POLL_SECONDS)):
        if not isinstance(engine.status(), Loading):
            return
        yield
        await asyncio.sleep(LOAD_POLL_SECONDS)


async def follow_reply(running: RunningReply) -> AsyncGenerator[LiveView, None]:
    """The reply as it grows; a failure in the middle is raised."""
    async for view in watch(running.generation):
        if isinstance(view.draft.last, Failed):
            raise MagistralUIError(view.draft.last.key, **view.draft.last.values)
        yield view


def reply_value(view: LiveView, running: RunningReply, reasoning: str, answer: str) -> Json:
    """The reply as far as it goes; `finish_reason` is null until its end."""
    last = view.draft.last
    counts = Usage(reasoning_tokens=view.usage.reasoning_tokens, answer_tokens=view.usage.answer_tokens)
    return {
        "reasoning": reasoning,
        "answer": answer,
        "finish_reason": last.why if isinstance(last, Finished) else None,
        "usage": usage_value(last.usage if last else counts),
        "seed": running.params.seed,
        "notices": notices_value(view.draft.notices),
        "model": running.model,
    }


def whole_value(view: LiveView, running: RunningReply, session: Session) -> Json:
    """The reply when it has ended."""
    last = session.conversation.last()
    reply = last.reply if isinstance(last, AssistantMessage) else None
    return reply_value(view, running, reply.reasoning if reply else "", reply.answer if reply else "")
