"""Frozen dataclasses to JSON and back, field by field; it knows no class by name, so a new field needs nothing here.

A field that the JSON lacks keeps its default, and one that the class lacks is left out: files of an older and of a newer
version can both be read.
"""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_json(value: Any, without: frozenset[str] = frozenset()) -> Any:
    """`value` as dicts, lists and plain values; the fields named in `without` are left out of the outermost dataclass."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.name not in without]
        return {name: to_json(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): to_json(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(each) for each in value]
    return value


def from_json(kind: type[T], data: Any, /, **given: Any) -> T:
    """The dataclass `kind` from what `to_json` made of one, with the fields in `given`; ValueError where they do not fit."""
    if not isinstance(data, dict):
        raise ValueError(f"{kind.__name__} is an object")
    hints = get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    read = {name: _read(hints[name], each) for name, each in data.items() if name in names - given.keys()}
    try:
        return kind(**read, **given)
    except TypeError as error:
        raise ValueError(f"{kind.__name__} lacks a field") from error


def _read(kind: Any, data: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return data
    if origin in (Union, types.UnionType):
        return _read_one_of(arguments, data)
    if origin is Literal:
        return _checked(data, data in arguments, kind)
    if origin is tuple:
        each = arguments[0]
        return tuple(_read(each, item) for item in _checked(data, isinstance(data, list), kind))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        pairs = _checked(data, isinstance(data, dict), kind).items()
        return {_key(arguments[0], key): _read(arguments[1], each) for key, each in pairs}
    if dataclasses.is_dataclass(kind):
        return from_json(cast("type[Any]", kind), data)
    if kind is float and type(data) is int:
        return float(data)
    return _checked(data, type(data) is kind, kind)


def _read_one_of(kinds: tuple[Any, ...], data: Any) -> Any:
    if data is None and type(None) in kinds:
        return None
    for kind in sorted(kinds, key=lambda each: each is not type(data)):  # the exact type before those it would fit too
        try:
            return _read(kind, data)
        except ValueError:
            continue
    raise ValueError(f"none of {kinds} fits")


def _key(kind: Any, key: str) -> Any:
    if kind is int:
        return int(key)
    if get_origin(kind) in (Union, types.UnionType):
        return None if key == "None" else int(key)
    return key


def _checked(data: Any, fits: bool, kind: Any) -> Any:
    if not fits:
        raise ValueError(f"not a {kind}")
    return data
