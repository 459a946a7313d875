"""The shapes of what programs send and get, as JSON schemas with their descriptions; it reads and checks no request."""

import json
from copy import deepcopy
from functools import cache
from importlib import resources
from typing import Any

from magistral_ui.chat.sampling import PARAMETERS, Parameter
from magistral_ui.i18n.texts import text

Schema = dict[str, Any]


@cache
def _written() -> Schema:
    """schemas.json: descriptions are in English there, since it is programs and models that read them."""
    file = resources.files("magistral_ui.ui.api") / "schemas.json"
    found: Schema = json.loads(file.read_text(encoding="utf-8"))
    return found


def chat_description() -> str:
    """What the endpoint /chat does."""
    return str(_written()["chat"]["description"])


def chat_input(name: str) -> Schema:
    """One of the endpoint's arguments."""
    found: Schema = parameters() if name == "parameters" else deepcopy(_written()["chat"][name])
    # Gradio shows an argument's description under another name than a result's.
    return {**found, "additional_description": found["description"], "$defs": {"file": deepcopy(_written()["file"])}}


def reply() -> Schema:
    """A reply that has ended."""
    found: Schema = deepcopy(_written()["reply"])
    return found


def growing_reply() -> Schema:
    """A reply that may still be written."""
    found = reply()
    reason = found["properties"]["finish_reason"]
    found["properties"]["finish_reason"] = {"anyOf": [reason, {"type": "null"}], "description": "null while it grows"}
    return found


def tool() -> Schema:
    """The MCP tool: name, title, description, and its arguments as `input`."""
    found: Schema = deepcopy(_written()["tool"])
    found["input"]["properties"]["parameters"] = {**parameters(), "additionalProperties": False}
    return found


def parameters() -> Schema:
    """The sampling parameters, with the bounds that are checked."""
    properties = {name: _parameter(each) for name, each in PARAMETERS.items()}
    found: Schema = {**_written()["parameters"], "properties": properties}
    return found


def _parameter(parameter: Parameter) -> Schema:
    return {
        "type": "integer" if parameter.integer else "number",
        "minimum": parameter.low,
        "maximum": parameter.high,
        "description": text(f"parameter_{parameter.name}_help"),
    }
