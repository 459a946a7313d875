"""Puts the page together: what is where, and which event calls which function; the functions are in chat.py and api.py."""

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr

from magistral_ui.engines.base import Engine, Ready
from magistral_ui.errors import MagistralUIError, Message
from magistral_ui.i18n.texts import sentence_for_client, text
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.api.chat_endpoint import ChatBlocks, add_api
from magistral_ui.ui.chat import Chat
from magistral_ui.ui.components import (
    PAGE_EVENT,
    context_meter,
    from_tab,
    heading,
    language_choice,
    model_state,
    more_turns,
    turns,
    with_event_data,
)
from magistral_ui.ui.context_meter import first_meter
from magistral_ui.ui.history_panel import build_history_panel, connect_history
from magistral_ui.ui.image_events import ImageEvents
from magistral_ui.ui.labels import label
from magistral_ui.ui.launch import close, launch, launch_options
from magistral_ui.ui.limits_panel import build_limits_panel
from magistral_ui.ui.model_panel import model_value, polling
from magistral_ui.ui.sampling_panel import SettingsPanel, build_settings_panel, panel_value

__all__ = ["build_page", "close", "launch", "launch_options"]

log = logging.getLogger(__name__)

MODEL_POLL_SECONDS = 0.5
"""Seconds between two looks at a model that is loading."""
UNOPENED = '() => { window.magistralUnopened = true; dispatchEvent(new Event("unopened")); }'
"""Tells the page's script that no conversation came; nothing can be sent before."""


def build_page(engine: Engine, visitors: Visitors, *, login: bool = False, hugging_face: bool = False) -> ChatBlocks:
    """The page over `engine`, ready for `launch`; `login` tells whether visitors came in by one.

    With `hugging_face_login`, Gradio serves the addresses of its login by Hugging Face.
    """
    chat = Chat(engine, visitors)
    with ChatBlocks(
        visitors.limits, title=text("page_title"), delete_cache=(3600, 3600), analytics_enabled=False
    ) as demo:
        # The key and the secret are fixed, so that a restart of the server does not lose whose conversation it is.
        visitor = gr.BrowserState({}, storage_key="magistral-ui-place", secret="magistral-ui")
        with gr.Row(elem_id="topbar"):
            gr.Button(label("page_history"), elem_id="history-toggle", size="sm")
            gr.HTML(_brand(), apply_default_css=False, padding=False, elem_id="brand")
            new_chat = gr.Button(label("page_new_chat"), elem_id="new-chat", size="sm")
            gr.Button(label("page_settings"), elem_id="settings-toggle", size="sm")
        with gr.Column(elem_id="history"):
            shelf = build_history_panel()
        with gr.Column(elem_id="conversation"):
            said, more = turns(), more_turns()
            with gr.Column(elem_id="composer"):
                gr.HTML('<div id="model-banner"></div>', apply_default_css=False, padding=False)
                box = _composer()
                meter = context_meter(first_meter(visitors.limits))
        with gr.Column(elem_id="settings"):
            gr.Button(label("page_close"), elem_id="settings-close", size="sm")
            panel = build_settings_panel(engine)
            heading(label("model_heading"))
            model = model_state(model_value(engine))
            language_choice()
            build_limits_panel(visitors.limits, login)
            if hugging_face:
                gr.LoginButton(visible=False)  # Gradio looks for it; the door shows a link of its own
        _connect(chat, demo, visitor, said, more, box, panel, new_chat)
        connect_history(chat, shelf, visitor, said, box)
        _weigh(chat, visitor, box, panel, meter)
        _follow_model(chat, demo, visitor, said, model, box, panel)
        add_api(engine, visitors, demo.calls)
    for function in demo.fns.values():
        function.fn = with_alerts(function.fn)
    page: ChatBlocks = demo
    page.queue(api_open=False)  # not bounded here: queued_calls.py does that by visitor and address
    return page


def with_alerts(act: Any) -> Any:
    """`act`, of whose refusals the page tells the sentence where `act` itself does not."""
    if not inspect.isroutine(act) or inspect.isasyncgenfunction(act):
        return act  # they tell it themselves

    @contextmanager
    def telling() -> Iterator[None]:
        try:
            yield
        except MagistralUIError as error:
            raise gr.Error(sentence_for_client(error.message), print_exception=False) from error
        except Exception as error:  # Gradio would write all that was sent into the log
            log.exception("an event of the page failed")
            raise gr.Error(sentence_for_client(Message("unexpected")), print_exception=False) from error

    @functools.wraps(act)
    def called(*values: Any) -> Any:
        with telling():
            return act(*values)

    @functools.wraps(act)
    async def awaited(*values: Any) -> Any:
        with telling():
            return await act(*values)

    return awaited if inspect.iscoroutinefunction(act) else called


def _brand() -> str:
    return f'<h1>{text("page_title")}</h1><span id="model-name"></span>'


def _composer() -> gr.MultimodalTextbox:
    return gr.MultimodalTextbox(
        file_types=None,  # the page looks at what is in a file, not at its name: see assets/file_kinds.js
        file_count="multiple",
        sources=["upload"],
        label=label("page_message_label"),
        show_label=False,
        placeholder=str(label("page_placeholder")),
        lines=1,
        max_lines=12,
        max_plain_text_length=10_000_000,
        interactive=False,
        autofocus=False,
        elem_id="box",
    )


def _connect(
    chat: Chat,
    demo: gr.Blocks,
    visitor: gr.BrowserState,
    said: gr.HTML,
    more: gr.HTML,
    box: gr.MultimodalTextbox,
    panel: SettingsPanel,
    new_chat: gr.Button,
) -> None:
    """What begins a turn shows that it runs; the page's script then reads it (live_stream.py), and says when it has ended."""
    state = [visitor, said, box]

    def asked(listen: Callable[..., Any], act: Callable[..., Any]) -> None:
        listen(with_event_data(act), [visitor, *panel.inputs], state, **from_tab())

    for opens in (demo.load, said.attach):
        opens(chat.attach, visitor, state, **from_tab()).failure(None, js=UNOPENED, **PAGE_EVENT)
    box.submit(ImageEvents(chat).say, [box, visitor, *panel.inputs], state, **from_tab(1))
    # An answer that is on its way may be older than what has ended.
    said.ended(chat.commit, visitor, [said, box], trigger_mode="always_last", **from_tab())
    asked(said.example, chat.example)
    asked(said.regenerate, chat.regenerate)
    asked(said.resume, chat.resume)
    asked(said.answer_again, chat.answer_again)
    asked(said.edit_message, chat.edit_message)
    asked(said.rethink, chat.rethink)
    asked(said.answer, chat.answer)
    for listen, act in (
        (said.replay, chat.replay),
        (said.choose_branch, chat.choose_branch),
        (said.delete, chat.delete),
        (said.restore, chat.restore),
        (said.keep_reasoning, chat.keep_reasoning),
    ):
        listen(with_event_data(act), visitor, state, **from_tab())
    # A question of the conversation before may still be open.
    said.more(with_event_data(chat.more), visitor, more, trigger_mode="multiple", **from_tab())
    box.stop(chat.stop, visitor, None, **from_tab())
    said.answer_now(chat.answer_now, visitor, None, **from_tab())
    new_chat.click(chat.new_chat, visitor, state, **from_tab())


def _follow_model(
    chat: Chat,
    demo: gr.Blocks,
    visitor: gr.BrowserState,
    said: gr.HTML,
    model: gr.HTML,
    box: gr.MultimodalTextbox,
    panel: SettingsPanel,
) -> None:
    """While the model is loading or away the page asks how far it is; when it is ready the composer opens, and it rests.

    The composer comes with every answer that follows the conversation, so that it never stays shut behind a model that was away
    for a moment only. It opens with the conversation, never before: what is sent must have somewhere to go.
    """
    engine = chat.engine
    timer = gr.Timer(MODEL_POLL_SECONDS)

    def poll() -> tuple[Any, ...]:
        shut = gr.skip() if isinstance(engine.status(), Ready) else gr.update(interactive=False)
        return model_value(engine), polling(engine), shut

    def follow() -> tuple[Any, ...]:
        return model_value(engine), polling(engine), gr.update(interactive=isinstance(engine.status(), Ready))

    def retry() -> tuple[Any, ...]:
        engine.retry()
        return poll()

    def ready(visitor: object, *values: Any) -> tuple[Any, ...]:
        # Which model it is may have become known only now, and with it what suits it and what fits.
        return *chat.commit(visitor), panel_value(engine), chat.prompt(*values)

    state = [model, timer, box]
    demo.load(poll, None, state, **PAGE_EVENT)
    said.change(follow, None, state, **PAGE_EVENT)  # a server may have gone since, or come back
    timer.tick(poll, None, state, **PAGE_EVENT)
    model.look(poll, None, state, **PAGE_EVENT)
    model.retry(retry, None, state, **PAGE_EVENT)
    model.ready(ready, [visitor, *panel.inputs], [said, box, panel.parameters, panel.prompt], **from_tab())


def _weigh(
    chat: Chat, visitor: gr.BrowserState, box: gr.MultimodalTextbox, panel: SettingsPanel, meter: gr.HTML
) -> None:
    """What the page asks while someone writes: only the last question counts."""
    latest = {"trigger_mode": "always_last"}
    events = ImageEvents(chat)
    # Of several looks a later one would lose its number.
    meter.look(events.look, box, meter, **{**PAGE_EVENT, "trigger_mode": "multiple"})
    meter.weigh(events.weigh, [box, visitor, *panel.inputs], meter, **latest, **from_tab(1))
    panel.prompt.compose(chat.prompt, panel.inputs, panel.prompt, **latest, **PAGE_EVENT)
