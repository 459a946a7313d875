"""Components that our own JavaScript draws: Gradio only carries their values, JSON as text, and their events.

They are plain gr.HTML, no subclasses: Gradio writes a .pyi file beside the source of every subclass when it is imported.
"""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import gradio as gr
from gradio.i18n import I18nData

from magistral_ui.i18n.languages import offered
from magistral_ui.i18n.texts import for_pages

LABELLED = re.compile(r"page_\w+|\w+_heading")
"""The keys that `label` may be asked for: a page carries their texts in its first bytes."""
MOUNT_JS = """
import(new URL("magistral/main.js", document.baseURI)).then((page) =>
  page.mount("%s", element, { props, watch, trigger: (name, data) => trigger(name, data) }));
"""


PAGE_EVENT: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""How the page's own events are listened to."""

# A tab stays with the conversation that it shows, whatever place an answer that came late has left in the browser, which is
# that of the tab used last. The number tells the page which of its questions an answer belongs to.
FROM_TAB = """(...values) => {
  const conversation = sessionStorage.getItem("magistral-ui-conversation");
  window.magistralAsked = (window.magistralAsked ?? 0) + 1;
  values[%d] = { ...values[%d], ...(conversation && { conversation }), asked: window.magistralAsked };
  return values;
}"""


def from_tab(place: int = 0) -> dict[str, Any]:
    """How events are listened to that carry the visitor's place, as value number `place`."""
    return {"js": FROM_TAB % (place, place), **PAGE_EVENT}


def with_event_data(act: Callable[..., Any]) -> Callable[..., Any]:
    """`act`, which is told first what a component's own event carries, as the listener that Gradio calls."""

    def called(event: gr.EventData, *values: Any) -> Any:
        return act(event._data or {}, *values)

    return called


def component(part: str, value: dict[str, Any] | None = None, *, triggers: tuple[str, ...] = ()) -> gr.HTML:
    """The component that `part` of assets/main.js draws; `triggers` are its own events, as methods of these names."""
    # Gradio finds a component's own events by their quoted names in the script.
    names = "".join(f'// "{name}"\n' for name in triggers)
    html: gr.HTML = gr.HTML(
        as_text(value),
        html_template="<div></div>",
        js_on_load=names + MOUNT_JS % part,
        apply_default_css=False,
        elem_id=part,
    )
    html.postprocess = as_text  # type: ignore[method-assign, assignment]
    return html


def as_text(value: dict[str, Any] | None) -> str | None:
    """A value as the browser gets it: Gradio clones and compares a value field by field and often, a text at once."""
    return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def turns() -> gr.HTML:
    """The conversation. Its value is written at turn boundaries only; what runs in between comes through channel.py."""
    changes = ("regenerate", "resume", "answer_again", "edit_message", "choose_branch")
    turn = ("rethink", "replay", "answer", "delete", "restore", "keep_reasoning")
    return component("turns", triggers=("answer_now", "attach", "ended", "example", "more", *changes, *turn))


def more_turns() -> gr.HTML:
    """What `turns` has asked for: turns far above, and the reasoning of finished ones."""
    return component("more")


def context_meter(first: dict[str, Any]) -> gr.HTML:
    """The context's use, below the composer; it also asks whether what is attached can be sent."""
    return component("meter", first, triggers=("weigh", "look"))


def model_state(value: dict[str, Any]) -> gr.HTML:
    """The model's state, in the panel, the top bar and above the composer."""
    return component("model", value, triggers=("retry", "ready", "look"))


def language_choice() -> gr.HTML:
    """Where the visitor chooses the page's language."""
    return component("language", {"languages": [asdict(each) for each in offered().values()]})


def heading(text: object) -> gr.HTML:
    """A heading of the panel."""
    return gr.HTML(f"<h2>{text}</h2>", elem_classes="panel-heading", apply_default_css=False)


def label(key: str) -> I18nData:
    """The text `key`, to be put in by the browser; KeyError for one that a page does not carry."""
    if not LABELLED.fullmatch(key):
        raise KeyError(key)
    return I18nData(key)


def labels(language: str) -> dict[str, str]:
    """The texts of all labels in `language`."""
    found = for_pages(language).items()
    return {key: text for key, text in found if isinstance(text, str) and LABELLED.fullmatch(key)}
