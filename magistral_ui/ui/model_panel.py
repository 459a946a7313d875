"""What the page tells about the model: how far it is loaded, what runs, why, and how to choose another."""

import hashlib
from dataclasses import asdict

import gradio as gr
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from magistral_ui.engines.base import Broken, Engine, EngineStatus, Loading, ModelInfo, Ready
from magistral_ui.models.memory import TYPICAL_CONTEXT
from magistral_ui.ui.rendering import Json

LOAD_COMMAND = "python app.py --model mistralai/Magistral-Small-2509"
MODEL_PATH = "/magistral/model"
ON_A_SERVER = "model_on_a_server"
"""Why a model runs that may be gone at any time: the page goes on looking after it was ready."""


def model_value(engine: Engine) -> Json:
    """The state of the engine as the browser draws it."""
    card, status = engine.card, engine.status()
    value = {
        "card": card.name,
        "demo": card.demo,
        "vision": card.vision,
        "description": card.description_key,
        "command": LOAD_COMMAND,
    }
    match status:
        case Loading():
            return {**value, "state": "loading", **asdict(status)}
        case Broken(key, values):
            return {**value, "state": "broken", "key": key, "values": dict(values)}
        case Ready(info):
            watched = {"mark": mark(status)} if info.chosen_because == ON_A_SERVER else {}
            return {**value, **watched, "state": "ready", "info": asdict(info) | {"plan": _plan(info)}}


def mark(status: EngineStatus) -> str:
    """The same for the same state of the same model, and short."""
    return hashlib.sha256(repr(status).encode("utf-8", "replace")).hexdigest()[:16]


def model_route(engine: Engine) -> Route:
    """Where an idle page asks whether anything has changed: a mark and no more, so that hundreds may ask."""

    async def look(request: Request) -> Response:  # noqa: ARG001  # nothing about it matters
        return PlainTextResponse(mark(engine.status()), headers={"Cache-Control": "no-store"})

    return Route(MODEL_PATH, look)


def _plan(info: ModelInfo) -> Json | None:
    """How the device's memory is shared out, with the length of the conversations that `visitors` counts."""
    return asdict(info.plan) | {"usual": min(TYPICAL_CONTEXT, info.context_length)} if info.plan else None


def polling(engine: Engine) -> gr.Timer:
    """The timer as it has to be: still once the model is ready."""
    return gr.Timer(active=not isinstance(engine.status(), Ready))
