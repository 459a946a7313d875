"""The endpoint /chat for programs: one question, with what was said before it, and its reply as it grows; nothing is kept."""

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

from magistral_ui.engines.base import Engine
from magistral_ui.errors import MagistralUIError
from magistral_ui.sessions.running import Running
from magistral_ui.sessions.session import Session
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.answering import caller_behind, loading, reply_value, written
from magistral_ui.ui.asking import Question, pictures_in, read_chat, read_parameters
from magistral_ui.ui.i18n import sentence, sentence_of, told_to_caller
from magistral_ui.ui.rendering import Json
from magistral_ui.ui.schemas import chat_description, chat_input, growing_reply

log = logging.getLogger(__name__)
NAME = "chat"
CALL = "/call/"
"""In the address of Gradio's plain interface, which carries the whole reply in every update."""
CALL_RATE = 20_000
"""Characters a second that the plain interface carries at most, so that a long reply costs no more than its length."""
Ask = Callable[[Callable[[], Running]], Awaitable[Running]]


class Page(gr.Blocks):
    """A page that hands on to the endpoint what programs send as it is.

    Gradio would look for files in it first: it fetches addresses, fails without a sentence where a path is not an upload's,
    and holds on to what was sent.
    """

    async def preprocess_data(
        self, block_fn: BlockFunction, inputs: list[Any], state: Any, explicit_call: bool = False
    ) -> list[Any]:
        """The values for a function of the page; for the endpoint, with None for those that were left out at the end."""
        if block_fn.api_name != NAME:
            try:
                return list(await super().preprocess_data(block_fn, inputs, state, explicit_call))
            except Exception as error:  # Gradio would write all that was sent into the log
                log.info("an event is not as the page sends it", exc_info=error)
                raise gr.Error(told_to_caller("request_forged"), print_exception=False) from None
        missing = len(block_fn.inputs) - len(inputs)
        return [*inputs, *[None] * missing][: len(block_fn.inputs)]


def add_api(engine: Engine, visitors: Visitors) -> None:
    """Add the endpoint to the page that is being built."""

    async def chat(
        message: Any,
        parameters: Any = None,
        history: Any = None,
        instructions: Any = None,
        keep_reasoning: Any = True,
        request: gr.Request | None = None,
    ) -> AsyncIterator[Json]:
        caller = caller_behind(request)
        guest = visitors.guest(caller)
        read = partial(read_chat, engine, visitors.limits, message, parameters, history, instructions, keep_reasoning)
        rate = CALL_RATE if request is not None and CALL in str(request.url) else None
        try:
            read_parameters(engine.card.sampling, parameters)  # what is wrong is said at once
            pictures = pictures_in(message, history)

            async def ask(begin: Callable[[], Running]) -> Running:
                return (
                    await visitors.pictures.run(caller, pictures, begin) if pictures else await asyncio.to_thread(begin)
                )

            async with aclosing(answer(engine, read, guest, rate, ask)) as replies:
                async for each in replies:
                    yield each
        except MagistralUIError as error:
            raise gr.Error(sentence_of(error), print_exception=False) from error
        except Exception as error:  # Gradio would write all that was sent into the log
            log.exception("a call failed")
            raise gr.Error(sentence("unexpected"), print_exception=False) from error
        finally:
            guest.close()  # whoever leaves before the end stops the reply, since nobody else could ever read it

    names = ("message", "parameters", "history", "instructions")
    inputs = [Api(None, chat_input(name), name) for name in names]
    inputs.append(Api(True, chat_input("keep_reasoning"), "keep_reasoning"))
    gr.Button(visible=False).click(
        chat,
        inputs,
        Api(None, growing_reply(), "reply"),
        api_name=NAME,
        api_description=chat_description(),
        postprocess=False,
        concurrency_limit=None,
        show_progress="hidden",
    )


async def answer(
    engine: Engine,
    read: Callable[[], Question],
    guest: Session,
    rate: float | None = None,
    ask: Ask = asyncio.to_thread,
) -> AsyncGenerator[Json, None]:
    """The reply to what `read` gives, as it grows, with at most `rate` characters a second; `ask` finds a thread to begin it in.

    Raises MagistralUIError.
    """
    async for _ in loading(engine):
        pass
    running = await ask(lambda: read().ask(guest))
    thought = said = ""
    due = 0.0
    async for view in written(running):
        if view.start == 0:  # what came so far comes once more where its reasoning was taken for the answer
            thought = said = ""
        thought, said = thought + view.reasoning, said + view.answer
        if view.draft.last is None and time.monotonic() < due:
            continue
        if rate is not None:
            due = time.monotonic() + (len(thought) + len(said)) / rate
        yield reply_value(view, running, thought, said)
