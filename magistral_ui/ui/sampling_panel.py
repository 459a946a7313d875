"""The settings beside the conversation: one control per sampling parameter, and custom instructions; nothing is sent here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from magistral_ui.chat.prompt import PromptChoices
from magistral_ui.chat.sampling import PARAMETERS, Parameter, SamplingParams
from magistral_ui.engines.base import Engine
from magistral_ui.models.cards import ModelCard
from magistral_ui.ui.drawn import heading
from magistral_ui.ui.labels import label

NAMES = tuple(PARAMETERS)


@dataclass(frozen=True, slots=True)
class SamplingPanel:
    """The panel's components; `inputs` go with every message, in the order that `params_from` reads."""

    controls: tuple[gr.components.Component, ...]
    instructions: gr.Textbox

    @property
    def inputs(self) -> list[gr.components.Component]:
        """All that `params_from` needs."""
        return [*self.controls, self.instructions]


def build_sampling_panel(engine: Engine) -> SamplingPanel:
    """The controls, set to the card's own values, inside whatever container is open."""
    card = engine.card
    heading(label("parameters_heading"))
    controls = tuple(_control(PARAMETERS[name], getattr(card.sampling, name)) for name in NAMES)
    reset = gr.Button(label("parameters_reset"), size="sm", elem_id="parameters-reset")
    instructions = gr.Textbox(
        label=label("instructions_label"),
        info=label("instructions_help"),
        placeholder=label("instructions_placeholder"),
        lines=3,
        max_lines=12,
        max_length=20_000,
        elem_id="instructions",
    )
    reset.click(
        lambda: values_of(engine.card.sampling),
        outputs=list(controls),
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    return SamplingPanel(controls, instructions)


def values_of(params: SamplingParams) -> list[Any]:
    """What the controls show for `params`."""
    values = {name: getattr(params, name) for name in NAMES}
    return ["" if value is None else value for value in values.values()]


def params_from(card: ModelCard, panel: Sequence[Any]) -> tuple[SamplingParams, PromptChoices]:
    """What the panel asks for; ParameterRefused for a value out of its bounds. An empty panel is the card's own values."""
    values, instructions = panel[: len(NAMES)], panel[len(NAMES) :]
    given = {name: _read(PARAMETERS[name], value) for name, value in zip(NAMES, values, strict=False)}
    choices = PromptChoices(instructions=str(instructions[0] or "") if instructions else "")
    return card.sampling.changed(given), choices


def _read(parameter: Parameter, value: Any) -> Any:
    """A field's text as the number that it spells; what spells none stays text, which the check refuses with a sentence."""
    if not parameter.optional or not isinstance(value, str):
        return value
    try:
        return int(value) if value.strip() else None
    except ValueError:
        return value


def _control(parameter: Parameter, value: Any) -> gr.components.Component:
    options: dict[str, Any] = {
        "label": label(f"parameter_{parameter.name}"),
        "info": label(f"parameter_{parameter.name}_help"),
        "elem_id": f"parameter-{parameter.name.replace('_', '-')}",
        "interactive": True,
    }
    if parameter.optional:
        # Not gr.Number, which sends 0 where the field is empty.
        return gr.Textbox("" if value is None else str(value), max_lines=1, **options)
    # The browser moves and checks the slider; the server checks the value again with a sentence of its own.
    return gr.Slider(parameter.low, parameter.high, value, step=parameter.step, buttons=[], **options)
