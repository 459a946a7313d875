"""The settings beside the conversation: what the browser draws of them, and what it sends back; the browser keeps them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from magistral_ui.chat.json_values import Json
from magistral_ui.chat.prompt import PromptChoices, has_marks, with_instructions
from magistral_ui.chat.sampling import PARAMETERS, PRESETS, Parameter, SamplingParams
from magistral_ui.engines.base import Engine, Ready
from magistral_ui.errors import BadInput
from magistral_ui.models.cards import ModelCard
from magistral_ui.ui.components import component, heading, label

IMAGE_SIDES = (1024, 512)
"""Pixels of a picture's longer side that can be chosen instead of its own."""
MAX_PROMPT_LENGTH = 50_000
"""Characters of custom instructions, and of a system prompt."""
TOKEN_PARAMETERS = ("max_tokens", "reasoning_budget")
"""Parameters that cannot be more than the tokens that fit."""


@dataclass(frozen=True, slots=True)
class VisitorSettings:
    """What a visitor chose; it comes with every message, so nothing of it is kept here."""

    params: SamplingParams
    choices: PromptChoices
    image_side: int | None = None
    """Pixels that a picture's longer side may have; None: as many as it has."""


def build_settings_panel(engine: Engine) -> None:
    """The panel inside whatever container is open, set to what the browser has kept, or else to the card's own values."""
    heading(label("parameters_heading"))
    component("parameters", panel_value(engine))
    heading(label("context_heading"))
    component("context")
    heading(label("instructions_heading"))
    component("prompt", prompt_value(engine.card, ()))


def panel_value(engine: Engine) -> Json:
    """All that the browser needs to draw the parameters: the table, the card's own values, presets; bound by what fits."""
    card, status = engine.card, engine.status()
    info = status.info if isinstance(status, Ready) else None
    room = info.context_length if info else card.context_length
    own = _bounded(card.sampling, room)
    presets = [(preset.key, _bounded(preset.of(card.sampling), room)) for preset in PRESETS]
    table = [{**asdict(each), "high": _high(each, room)} for each in PARAMETERS.values()]
    return {
        "card": card.key,
        "vision": card.vision,
        "parameters": table,
        "own": asdict(own),
        # A preset that changes nothing on this model is none.
        "presets": [{"key": key, "values": asdict(of)} for key, of in presets if key == "own" or of != own],
        # Of a server's model without a card nobody here knows what its makers recommend.
        "recommended": card.key != "remote",
        "picture_sides": list(IMAGE_SIDES) if card.vision else [],
        "missing": dict(info.missing) if info else {},
    }


def prompt_value(card: ModelCard, panel: Sequence[Any]) -> Json:
    """The system prompt as the model will read it, the model's own one with its marks, and whether the model will think."""
    choices = read_settings(card, panel).choices
    text = card.system_prompt() if choices.system_prompt is None else choices.system_prompt
    return {
        "card": card.key,
        "own": card.system_prompt(),
        "parts": [asdict(part) for part in with_instructions(card.system(text), choices.instructions)],
        "marks": card.reasoning_marks,
        # A model whose own prompt shows it no reasoning lacks nothing where there is none.
        "thinks": has_marks(text, card.reasoning_marks) or not has_marks(card.system_prompt(), card.reasoning_marks),
        "limit": MAX_PROMPT_LENGTH,
    }


def params_from(card: ModelCard, panel: Sequence[Any]) -> tuple[SamplingParams, PromptChoices]:
    """The parameters and the prompt's choices in what the browser sent."""
    settings = read_settings(card, panel)
    return settings.params, settings.choices


def read_settings(card: ModelCard, panel: Sequence[Any]) -> VisitorSettings:
    """What the browser sent, checked; BadInput for anything that cannot be used. Nothing sent is the card's own values."""
    sent = panel[0] if panel else None
    if sent is None or sent == "":
        sent = {}
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


def _high(parameter: Parameter, room: int) -> float | int:
    return min(parameter.high, room) if parameter.name in TOKEN_PARAMETERS else parameter.high


def _bounded(params: SamplingParams, room: int) -> SamplingParams:
    values = {name: getattr(params, name) for name in TOKEN_PARAMETERS}
    return params.changed({name: min(value, room) for name, value in values.items() if value is not None})


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise BadInput("bad_parameters")
    if len(value) > MAX_PROMPT_LENGTH:
        raise BadInput("prompt_text_too_long", count=len(value), limit=MAX_PROMPT_LENGTH)
    return value
