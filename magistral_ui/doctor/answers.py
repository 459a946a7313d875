"""Reads what a probe answered, values as JSON has them, as facts; it asks nobody."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from magistral_ui.doctor.facts import CardFacts, PaceFacts, Part
from magistral_ui.errors import Message

MESSAGES = ("hindrance", "problem", "missing")


def read(kind: type[Part], found: Mapping[str, Any]) -> Part:
    """What a probe found, as `kind`; whatever that does not know is left out."""
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: _value(name, value) for name, value in found.items() if name in known})


def _value(name: str, value: Any) -> Any:
    if name in MESSAGES:
        return message_of(value)
    if name == "damaged":
        return tuple(filter(None, map(message_of, value)))
    if name == "cards":
        return tuple(read(CardFacts, each) for each in value)
    if name == "paces":
        return tuple(read(PaceFacts, each) for each in value)
    if name == "capability" and value is not None:
        return int(value[0]), int(value[1])
    return tuple(value) if isinstance(value, list) else value


def message_of(value: Any) -> Message | None:
    """A message as JSON has it, a pair of key and values."""
    return Message(str(value[0]), dict(value[1])) if value else None
