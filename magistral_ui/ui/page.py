"""Puts the page together: what is where, and which event calls which function; the functions are in chat.py and api.py."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from magistral_ui.engines.base import Engine
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.api import add_api
from magistral_ui.ui.chat import Chat
from magistral_ui.ui.drawn import heading, live_turn, model_state, turns
from magistral_ui.ui.i18n import text
from magistral_ui.ui.labels import label
from magistral_ui.ui.model_panel import model_value, polling
from magistral_ui.ui.sampling_panel import SamplingPanel, build_sampling_panel, values_of
from magistral_ui.ui.serving import close, launch, launch_options

__all__ = ["build_page", "close", "launch", "launch_options"]

POLL = 0.5
"""Seconds between two looks at a model that is loading."""
MAX_WAITING = 64
"""Events that may wait in Gradio's queue; the engine has a queue of its own."""
AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
WATCHING: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"}


def build_page(engine: Engine, visitors: Visitors) -> gr.Blocks:
    """The page over `engine`, ready for `launch`."""
    chat = Chat(engine, visitors)
    with gr.Blocks(title=text("page_title"), delete_cache=(3600, 3600), analytics_enabled=False) as demo:
        # The key and the secret are fixed, so that a restart of the server does not lose whose conversation it is.
        visitor = gr.BrowserState("", storage_key="magistral-ui-visitor", secret="magistral-ui")
        with gr.Row(elem_id="topbar"):
            gr.HTML(_brand(), apply_default_css=False, padding=False, elem_id="brand")
            new_chat = gr.Button(label("page_new_chat"), elem_id="new-chat", size="sm")
            gr.Button(label("page_settings"), elem_id="settings-toggle", size="sm")
        with gr.Column(elem_id="conversation"):
            said, live = turns(), live_turn()
            with gr.Column(elem_id="composer"):
                gr.HTML('<div id="model-banner"></div>', apply_default_css=False, padding=False)
                box = _composer()
        with gr.Column(elem_id="settings"):
            gr.Button(label("page_close"), elem_id="settings-close", size="sm")
            panel = build_sampling_panel(engine)
            heading(label("model_heading"))
            model = model_state(model_value(engine))
        _connect(chat, demo, visitor, said, live, box, panel, new_chat)
        _follow_model(chat, demo, visitor, said, model, box, panel)
        add_api(engine, visitors)
    page: gr.Blocks = demo
    page.queue(api_open=False, max_size=MAX_WAITING)
    return page


def _brand() -> str:
    return f'<h1>{text("page_title")}</h1><span id="model-name"></span>'


def _composer() -> gr.MultimodalTextbox:
    return gr.MultimodalTextbox(
        file_types=["image"],
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
    live: gr.HTML,
    box: gr.MultimodalTextbox,
    panel: SamplingPanel,
    new_chat: gr.Button,
) -> None:
    """A turn is three steps: begin it at once, watch it as long as it takes, show it as finished."""
    state = [visitor, said, box]

    def turn(begin: Callable[..., Any]) -> None:
        begun = begin()
        begun.then(chat.view, visitor, live, **WATCHING).then(chat.commit, visitor, [said, box], **AT_ONCE)

    def about(act: Callable[..., Any]) -> Callable[..., Any]:
        def called(event: gr.EventData, visitor: object, *settings: Any) -> Any:
            return act(event._data or {}, visitor, *settings)

        return called

    def asked(listen: Callable[..., Any], act: Callable[..., Any]) -> None:
        turn(lambda: listen(about(act), [visitor, *panel.inputs], state, **AT_ONCE))

    turn(lambda: demo.load(chat.attach, visitor, state, **AT_ONCE))
    turn(lambda: box.submit(chat.say, [box, visitor, *panel.inputs], state, **AT_ONCE))
    asked(said.example, chat.example)
    asked(said.regenerate, chat.regenerate)
    asked(said.resume, chat.resume)
    asked(said.answer_again, chat.answer_again)
    asked(said.edit_message, chat.edit_message)
    said.choose_branch(about(chat.choose_branch), visitor, state, **AT_ONCE)
    box.stop(chat.stop, visitor, None, **AT_ONCE)
    said.answer_now(chat.answer_now, visitor, None, **AT_ONCE)
    new_chat.click(chat.new_chat, visitor, [said, box], **AT_ONCE)


def _follow_model(
    chat: Chat,
    demo: gr.Blocks,
    visitor: gr.BrowserState,
    said: gr.HTML,
    model: gr.HTML,
    box: gr.MultimodalTextbox,
    panel: SamplingPanel,
) -> None:
    """While the model is loading the page asks how far it is; when it is ready the composer opens, and the page rests."""
    engine, built_for = chat.engine, chat.engine.card.key
    timer = gr.Timer(POLL)

    def poll() -> tuple[Any, gr.Timer]:
        return model_value(engine), polling(engine)

    def retry() -> tuple[Any, gr.Timer]:
        engine.retry()
        return poll()

    def ready(visitor: object) -> tuple[Any, ...]:
        # Which model it is may have become known only now, and with it what suits it.
        same = engine.card.key == built_for
        values = [gr.skip()] * len(panel.controls) if same else values_of(engine.card.sampling)
        return *chat.commit(visitor), *values

    demo.load(poll, None, [model, timer], **AT_ONCE)
    timer.tick(poll, None, [model, timer], **AT_ONCE)
    model.retry(retry, None, [model, timer], **AT_ONCE)
    model.ready(ready, visitor, [said, box, *panel.controls], **AT_ONCE)
