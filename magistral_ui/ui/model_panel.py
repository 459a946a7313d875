"""What the page tells about the model: how far it is loaded, what runs, why, and how to choose another."""

from dataclasses import asdict

import gradio as gr

from magistral_ui.engines.base import Broken, Engine, Loading, Ready
from magistral_ui.ui.rendering import Json

COMMAND = "python app.py --model mistralai/Magistral-Small-2509"


def model_value(engine: Engine) -> Json:
    """The state of the engine as the browser draws it."""
    card, status = engine.card, engine.status()
    value = {
        "card": card.name,
        "demo": card.demo,
        "vision": card.vision,
        "description": card.description_key,
        "command": COMMAND,
    }
    match status:
        case Loading():
            return {**value, "state": "loading", **asdict(status)}
        case Broken(key, values):
            return {**value, "state": "broken", "key": key, "values": dict(values)}
        case Ready(info):
            return {**value, "state": "ready", "info": asdict(info)}


def polling(engine: Engine) -> gr.Timer:
    """The timer as it has to be: still once the model is ready."""
    return gr.Timer(active=not isinstance(engine.status(), Ready))
