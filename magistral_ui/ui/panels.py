"""Components that the page's own script draws, labels and headings, and the panel's section about the visitor's limits.

Gradio only carries their initial values, as JSON text. They are plain gr.HTML, no subclasses: Gradio writes a .pyi file beside
the source of every subclass when it is imported.
"""

import json
import re
from dataclasses import fields
from typing import Any

import gradio as gr
from gradio.i18n import I18nData

from magistral_ui.chat.events import Json
from magistral_ui.i18n.texts import for_pages
from magistral_ui.sessions.limits import Limits
from magistral_ui.ui.asset_files import ASSETS_URL

LABELLED = re.compile(r"page_\w+|\w+_heading")
"""The keys that `label` accepts: their texts are part of the page itself."""
IMPORT_MAIN = f'import(new URL("{ASSETS_URL}/main.js", document.baseURI))'
MOUNT_JS = """
%s.then((page) =>
  page.mount("%s", element, props.value, (name) => trigger(name)));
"""


def component(part: str, value: dict[str, Any] | None = None, *, triggers: tuple[str, ...] = ()) -> gr.HTML:
    """The component that `part` of assets/main.js draws; `triggers` are its own events, as methods of these names."""
    # Gradio finds a component's own events by their quoted names in the script.
    names = "".join(f'// "{name}"\n' for name in triggers)
    return gr.HTML(
        None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":")),
        html_template="<div></div>",
        js_on_load=names + MOUNT_JS % (IMPORT_MAIN, part),
        apply_default_css=False,
        elem_id=part,
    )


def page_script(call: str, *values: str) -> str:
    """A listener that runs in the browser only: `call`, exported by assets/main.js, with the values of its input components."""
    return f"({', '.join(values)}) => {IMPORT_MAIN}.then((page) => page.{call})"


def heading(text: object) -> gr.HTML:
    return gr.HTML(f"<h2>{text}</h2>", elem_classes="panel-heading", apply_default_css=False)


def label(key: str) -> I18nData:
    """The text `key`, filled in by the browser; KeyError if the page does not carry it."""
    if not LABELLED.fullmatch(key):
        raise KeyError(key)
    return I18nData(key)


def labels(language: str) -> dict[str, str]:
    found = for_pages(language).items()
    return {key: text for key, text in found if isinstance(text, str) and LABELLED.fullmatch(key)}


def build_limits_panel(limits: Limits, login: bool) -> None:
    """The panel's last section, inside whatever container is open; nothing where only the owner uses the page."""
    if not (limits.shared or login):
        return
    if limits.shared:
        heading(label("limits_heading"))
    component("guest", limits_value(limits, login))


def limits_value(limits: Limits, login: bool) -> Json:
    """The keys of the sentences, and the values for their gaps."""
    keys = (
        "limits_message",
        "limits_reply",
        "limits_conversation",
        "limits_pace",
        "limits_pictures",
        "limits_unattended",
    )
    values = {each.name: getattr(limits, each.name) for each in fields(limits)}
    more = {
        "picture_mb": limits.picture_bytes // 2**20,
        "picture_megapixels": limits.picture_pixels // 10**6,
        "unattended_minutes": -(-limits.unattended_seconds // 60),
    }
    return {"keys": list(keys) if limits.shared else [], "values": {**values, **more}, "login": login}
