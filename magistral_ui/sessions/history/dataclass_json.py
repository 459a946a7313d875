"""Converts frozen dataclasses to JSON and back, checked by pydantic; it knows no class by name, so new fields work.

A field missing from the JSON keeps its default, and an unknown one is ignored, so that records of older and newer versions
can be read.
"""

import dataclasses
from functools import cache
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic_core import to_jsonable_python

T = TypeVar("T")


def to_json(value: Any, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The fields of a dataclass as dicts, lists and plain values, except those named in `without`."""
    names = [field.name for field in dataclasses.fields(value) if field.name not in without]
    return {name: to_jsonable_python(getattr(value, name)) for name in names}


def from_json(kind: type[T], record: str, /, **given: Any) -> T:
    """The dataclass `kind` from the JSON that `to_json` made, and the fields in `given`; ValueError where it does not fit."""
    model = _stored(kind, frozenset(given))  # type: ignore[arg-type]  # a class can be hashed
    return kind(**given, **dict(model.model_validate_json(record)))


@cache
def _stored(kind: Any, given: frozenset[str]) -> type[BaseModel]:
    """A model of the fields in the JSON. It converts nothing to another type, and its errors do not show content."""
    hints = get_type_hints(kind)
    names = [each for each in dataclasses.fields(kind) if each.name not in given]
    stored: dict[str, Any] = {each.name: (hints[each.name], _default(each)) for each in names}
    return create_model(str(kind.__name__), __config__=ConfigDict(strict=True, hide_input_in_errors=True), **stored)


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return Field(default_factory=field.default_factory)
    return ... if field.default is dataclasses.MISSING else field.default
