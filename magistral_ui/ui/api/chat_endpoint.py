"""The endpoint /chat for programs: a question with earlier turns, and its reply as it grows; nothing is stored."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

import gradio as gr
from gradio.block_function import BlockFunction
from gradio.components.api_component import Api

from magistral_ui.chat.events import Json
from magistral_ui.engines.base import Engine
from magistral_ui.engines.generation import RunningReply
from magistral_ui.errors import MagistralUIError, Message
from magistral_ui.i18n.texts import sentence
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.session import Session
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.api.models import ChatRequest, GrowingReply, chat_schema, description_of, read_request
from magistral_ui.ui.api.requests import (
    Question,
    client_of_request,
    follow_reply,
    read_chat,
    reply_value,
    wait_for_model,
)
from magistral_ui.web.queued_calls import QueuedCalls

log = logging.getLogger(__name__)
ENDPOINT = "chat"
CALL_PATH = "/call/"
"""Part of the path of Gradio's plain HTTP interface, which sends the whole reply with every update."""
MAX_CALL_CHARACTERS_PER_SECOND = 20_000
"""At most how many characters per second the plain interface sends: otherwise a reply would take quadratic time."""
Ask = Callable[[Callable[[], RunningReply]], Awaitable[RunningReply]]


class ChatBlocks(gr.Blocks):
    """A page that passes requests to the endpoint unchanged, and knows who reads the replies.

    Gradio would first look for files in them: it fetches URLs, fails without an explanation if a path is not an upload, and
    keeps what was sent.
    """

    def __init__(self, limits: Limits, **options: Any) -> None:
        super().__init__(**options)
        self.calls = QueuedCalls(lambda: self._queue, limits)

    def run_startup_events(self) -> None:
        """Start serving, with room in Gradio's queue for all calls that are allowed, so that none waits for another's reader."""
        self._queue.max_thread_count = self.calls.max_calls
        self._queue.pending_messages_per_session.max_size = self.calls.max_calls + 1
        super().run_startup_events()  # type: ignore[no-untyped-call]

    async def preprocess_data(
        self, block_fn: BlockFunction, inputs: list[Any], state: Any, explicit_call: bool = False
    ) -> list[Any]:
        """The arguments of an event; for the endpoint, None in place of those left out at the end."""
        if block_fn.api_name != ENDPOINT:
            return list(await super().preprocess_data(block_fn, inputs, state, explicit_call))
        missing = len(block_fn.inputs) - len(inputs)
        return [*inputs, *[None] * missing][: len(block_fn.inputs)]


def add_api(engine: Engine, visitors: Visitors, calls: QueuedCalls) -> None:
    """Add the endpoint to the page being built; `calls` knows whether somebody reads a reply."""

    async def chat(
        message: Any,
        parameters: Any = None,
        history: Any = None,
        instructions: Any = None,
        keep_reasoning: Any = True,
        request: gr.Request | None = None,
    ) -> AsyncIterator[Json]:
        session = str(request.session_hash) if request is not None else ""
        if session and not await calls.is_taken_up(session):
            return  # nobody reads the reply
        caller = client_of_request(request)
        guest = visitors.temporary_session(caller)
        rate = MAX_CALL_CHARACTERS_PER_SECOND if request is not None and CALL_PATH in str(request.url) else None
        try:
            arguments = (message, parameters, history, instructions, keep_reasoning)
            asked = read_request(ChatRequest, dict(zip(ChatRequest.model_fields, arguments, strict=True)))
            engine.card.sampling.changed(asked.parameters)  # refused before it waits for the model
            images = asked.image_count

            async def ask(begin: Callable[[], RunningReply]) -> RunningReply:
                return await visitors.images.run(caller, images, begin) if images else await asyncio.to_thread(begin)

            read = partial(read_chat, engine, visitors.limits, asked)
            is_read = partial(calls.is_read, session) if session else always
            async with aclosing(answer(engine, read, guest, rate, ask, is_read)) as replies:
                async for each in replies:
                    yield each
        except MagistralUIError as error:
            raise gr.Error(sentence(error.message), print_exception=False) from error
        except Exception as error:  # Gradio would log everything that was sent
            log.exception("a call failed")
            raise gr.Error(sentence(Message("unexpected")), print_exception=False) from error
        finally:
            guest.close()  # if the client disconnects, the reply stops, since nobody else could read it

    defaults = {"keep_reasoning": True}
    inputs = [Api(defaults.get(name), chat_schema(name), name) for name in ChatRequest.model_fields]
    gr.Button(visible=False).click(
        chat,
        inputs,
        Api(None, GrowingReply.model_json_schema(), "reply"),
        api_name=ENDPOINT,
        api_description=description_of(ChatRequest),
        postprocess=False,
        concurrency_limit=None,
        show_progress="hidden",
    )


def always() -> bool:
    return True


async def answer(
    engine: Engine,
    read: Callable[[], Question],
    session: Session,
    rate: float | None = None,
    ask: Ask = asyncio.to_thread,
    is_read: Callable[[], bool] = always,
) -> AsyncGenerator[Json, None]:
    """The reply to the question that `read` returns, as it grows, with at most `rate` characters per second.

    `ask` begins it in a thread. Ends when nobody reads it any more. Raises MagistralUIError.
    """
    async for _ in wait_for_model(engine):
        if not is_read():
            return
    running = await ask(lambda: read().ask(session))
    reasoning = answer = ""
    due = 0.0
    async for view in follow_reply(running):
        if not is_read():
            return
        if view.start == 0:  # the reply starts over if reasoning had been taken for the answer
            reasoning = answer = ""
        reasoning, answer = reasoning + view.reasoning, answer + view.answer
        if view.draft.last is None and time.monotonic() < due:
            continue
        if rate is not None:
            due = time.monotonic() + (len(reasoning) + len(answer)) / rate
        yield reply_value(view, running, reasoning, answer)
