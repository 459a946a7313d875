"""The settings beside the conversation: what the browser draws, and what it sends back; only the browser keeps them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from magistral_ui.chat.events import Json
from magistral_ui.chat.prompt import PromptChoices, has_marks, with_instructions
from magistral_ui.chat.sampling import PARAMETERS, PRESETS, SamplingParams
from magistral_ui.engines.base import Engine, info_of
from magistral_ui.errors import BadInput
from magistral_ui.models.cards import ModelCard
from magistral_ui.ui.panels import component, heading, label

IMAGE_SIDES = (1024, 512)
"""Sizes to which images can be shrunk before they are sent: pixels of the longer side."""
MAX_PROMPT_LENGTH = 50_000
TOKEN_PARAMETERS = ("max_tokens", "reasoning_budget")
"""Parameters that cannot exceed the context."""


@dataclass(frozen=True, slots=True)
class VisitorSettings:
    """What a visitor chose. It comes with every action that needs it, so the server keeps none of it."""

    params: SamplingParams
    choices: PromptChoices
    image_side: int | None = None
    """Pixels to which an image's longer side is shrunk; None keeps its size."""


def build_settings_panel(engine: Engine) -> None:
    """The panel, inside whatever container is open. The browser lays the settings that it has kept over these values."""
    heading(label("parameters_heading"))
    component("parameters", panel_value(engine))
    heading(label("context_heading"))
    component("context")
    heading(label("instructions_heading"))
    component("prompt", prompt_value(engine.card))


def panel_value(engine: Engine) -> Json:
    """All that the browser needs to draw the parameters: table, the card's own values, presets; bounded by the context."""
    card, info = engine.card, info_of(engine.status())
    room = info.context_length if info else card.context_length
    own = _bounded(card.sampling, room)
    presets = [(preset.key, _bounded(preset.of(card.sampling), room)) for preset in PRESETS]
    highest = {name: min(PARAMETERS[name].high, room) for name in TOKEN_PARAMETERS}
    table = [{**asdict(each), "high": highest.get(name, each.high)} for name, each in PARAMETERS.items()]
    return {
        "card": card.key,
        "vision": card.vision,
        "parameters": table,
        "own": asdict(own),
        # A preset that changes nothing on this model is left out.
        "presets": [{"key": key, "values": asdict(of)} for key, of in presets if key == "own" or of != own],
        # What its makers recommend is unknown for a remote model without a card.
        "recommended": card.key != "remote",
        "keeps_reasoning": card.keeps_reasoning,
        "picture_sides": list(IMAGE_SIDES) if card.vision else [],
        "missing": dict(info.missing) if info else {},
    }


def prompt_value(card: ModelCard, settings: object = None) -> Json:
    """The system prompt as the model will read it, the model's own prompt, and whether the model will think with it."""
    chosen = read_settings(card, settings)
    choices, budget = chosen.choices, chosen.params.reasoning_budget
    text = card.system_prompt() if choices.system_prompt is None else choices.system_prompt
    return {
        "card": card.key,
        "own": card.system_prompt(),
        "parts": [
            asdict(part) for part in with_instructions(card.system(choices.system_prompt, budget), choices.instructions)
        ],
        "marks": card.reasoning_marks,
        # Marks are not needed if nobody wants reasoning, the model reads an effort, or its own prompt shows none.
        "thinks": budget == 0
        or card.takes_effort
        or has_marks(text, card.reasoning_marks)
        or not card.prompts_reasoning,
        "limit": MAX_PROMPT_LENGTH,
    }


def read_settings(card: ModelCard, settings: object) -> VisitorSettings:
    """The settings that the browser sent; BadInput for any that cannot be used. Without any, the card's own values apply."""
    sent = {} if settings is None else settings
    known = {"params", "instructions", "system_prompt", "keep_reasoning", "picture_side"}
    if not isinstance(sent, Mapping) or not set(sent) <= known:
        raise BadInput("bad_parameters")
    params, side = sent.get("params") or {}, sent.get("picture_side")
    if not isinstance(params, Mapping) or side not in (None, *IMAGE_SIDES):
        raise BadInput("bad_parameters")
    choices = PromptChoices(
        instructions=_text(sent.get("instructions") or ""),
        system_prompt=None if sent.get("system_prompt") is None else _text(sent["system_prompt"]),
        keep_reasoning=sent.get("keep_reasoning") is not False,
    )
    return VisitorSettings(card.sampling.changed(params), choices, side)


def _bounded(params: SamplingParams, room: int) -> SamplingParams:
    values = {name: getattr(params, name) for name in TOKEN_PARAMETERS}
    return params.changed({name: min(value, room) for name, value in values.items() if value is not None})


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise BadInput("bad_parameters")
    if len(value) > MAX_PROMPT_LENGTH:
        raise BadInput("prompt_text_too_long", count=len(value), limit=MAX_PROMPT_LENGTH)
    return value
