"""What the settings panel only shows: which model runs and why, and the visitor's limits; it sets nothing."""

import hashlib
from dataclasses import asdict, fields

from magistral_ui.chat.events import Json
from magistral_ui.engines.base import Broken, Engine, EngineStatus, Loading, ModelInfo, Ready
from magistral_ui.models.memory import TYPICAL_CONTEXT
from magistral_ui.sessions.limits import Limits
from magistral_ui.ui.components import component, heading, label

LOAD_COMMAND = "python app.py --model mistralai/Magistral-Small-2509"
ON_A_SERVER = "model_on_a_server"
"""The reason that marks a model as remote: it may go away at any time, so the page keeps checking on it."""


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
    """A short digest of the state and the model: equal for equal ones."""
    return hashlib.sha256(repr(status).encode("utf-8", "replace")).hexdigest()[:16]


def _plan(info: ModelInfo) -> Json | None:
    """How the device's memory is divided, and how long the conversations are that `visitors` counts."""
    return asdict(info.plan) | {"usual": min(TYPICAL_CONTEXT, info.context_length)} if info.plan else None


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
