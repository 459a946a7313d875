"""Lays out the page in Gradio Blocks; its own script, assets/main.js, does the rest through actions.py."""

from dataclasses import asdict

import gradio as gr

from magistral_ui.engines.base import Engine
from magistral_ui.i18n.languages import offered
from magistral_ui.i18n.texts import text
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.api.chat_endpoint import ChatBlocks, add_api
from magistral_ui.ui.context_meter import first_meter
from magistral_ui.ui.panels import build_limits_panel, component, heading, label, page_script
from magistral_ui.ui.rendering import model_value
from magistral_ui.ui.sampling_panel import build_settings_panel


def build_page(engine: Engine, visitors: Visitors, *, login: bool = False, hugging_face: bool = False) -> ChatBlocks:
    """The page over `engine`; `login`: visitors have to sign in; `hugging_face`: Gradio serves the routes of that login."""
    with ChatBlocks(
        visitors.limits, title=text("page_title"), delete_cache=(3600, 3600), analytics_enabled=False
    ) as demo:
        # The key and the secret are fixed, so that visitors find their conversations again after a restart of the server.
        place = gr.BrowserState({}, storage_key="magistral-ui-place", secret="magistral-ui")
        brand = f'<h1>{text("page_title")}</h1><span id="model-name"></span>'
        with gr.Row(elem_id="topbar"):
            gr.Button(label("page_history"), elem_id="history-toggle", size="sm")
            gr.HTML(brand, apply_default_css=False, padding=False, elem_id="brand")
            new_chat = gr.Button(label("page_new_chat"), elem_id="new-chat", size="sm")
            gr.Button(label("page_settings"), elem_id="settings-toggle", size="sm")
        with gr.Column(elem_id="history"):
            gr.Button(label("page_close"), elem_id="history-close", size="sm")
            component("history-list")
        with gr.Column(elem_id="conversation"):
            turns = component("turns", triggers=("updates", "content"))
            with gr.Column(elem_id="composer"):
                gr.HTML('<div id="model-banner"></div>', apply_default_css=False, padding=False)
                box = _composer()
                component("meter", first_meter(visitors.limits))
        with gr.Column(elem_id="settings"):
            gr.Button(label("page_close"), elem_id="settings-close", size="sm")
            build_settings_panel(engine)
            heading(label("model_heading"))
            component("model", model_value(engine))
            component("models")
            component("language", {"languages": [asdict(each) for each in offered().values()]})
            build_limits_panel(visitors.limits, login)
            if hugging_face:
                gr.LoginButton(visible=False)  # Gradio looks for it; the login page has a link of its own
        _connect(demo, place, turns, box, new_chat)
        add_api(engine, visitors, demo.calls)
    page: ChatBlocks = demo
    page.api_open = False  # only through the queue, which web/queued_calls.py bounds, by visitor and address
    return page


def _composer() -> gr.MultimodalTextbox:
    return gr.MultimodalTextbox(
        file_types=None,  # the page checks the content, not the name: see assets/file_kinds.js
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
    demo: gr.Blocks, place: gr.BrowserState, turns: gr.HTML, box: gr.MultimodalTextbox, new_chat: gr.Button
) -> None:
    """Join Gradio's own components to the page's script, in both directions; no listener here calls the server.

    The composer is enabled together with the conversation, never before: what is sent needs somewhere to go.
    """
    demo.load(None, place, None, js=page_script("open(place)", "place"))
    box.submit(None, box, None, js=page_script("say(message)", "message"))
    box.stop(None, None, None, js=page_script("stop()"))
    new_chat.click(None, None, None, js=page_script("newChat()"))
    turns.content(None, box, None, js=page_script("composed(message)", "message"))
    turns.updates(None, None, [place, box], js=page_script("gradioUpdates()"))
