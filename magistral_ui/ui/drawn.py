"""Components that our own JavaScript draws: Gradio only carries their values, which are any JSON, and their events.

They are plain gr.HTML, no subclasses: Gradio writes a .pyi file beside the source of every subclass when it is imported.
"""

from typing import Any

import gradio as gr

MOUNT = """
import(new URL("magistral/main.js", document.baseURI)).then((page) =>
  page.mount("%s", element, { props, watch, trigger: (name, data) => trigger(name, data) }));
"""


def drawn(part: str, value: dict[str, Any] | None = None, *, triggers: tuple[str, ...] = ()) -> gr.HTML:
    """The component that `part` of assets/main.js draws; `triggers` are its own events, as methods of these names."""
    # Gradio finds a component's own events by their quoted names in the script.
    names = "".join(f'// "{name}"\n' for name in triggers)
    return gr.HTML(
        value,
        html_template="<div></div>",
        js_on_load=names + MOUNT % part,
        apply_default_css=False,
        elem_id=part,
    )


def turns() -> gr.HTML:
    """The finished turns; written at turn boundaries only."""
    changes = ("regenerate", "resume", "answer_again", "edit_message", "choose_branch")
    return drawn("turns", triggers=("answer_now", "example", *changes))


def live_turn() -> gr.HTML:
    """The channel of the turn that is being written; `turns` shows it, so that nothing moves when it ends."""
    return drawn("live")


def model_state(value: dict[str, Any]) -> gr.HTML:
    """The model's state, in the panel, the top bar and above the composer."""
    return drawn("model", value, triggers=("retry", "ready"))


def heading(text: object) -> gr.HTML:
    """A heading of the panel."""
    return gr.HTML(f"<h2>{text}</h2>", elem_classes="panel-heading", apply_default_css=False)
