"""A value found in an imported file, with its place: taken only as the type that is expected; it knows no format."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

from magistral_ui.errors import BadInput, ImportRefused
from magistral_ui.export.strict_json import is_text

Plain = TypeVar("Plain")
MAX_JSON_INTEGER = 2**53 - 1
"""The largest whole number that JSON and a browser keep exactly."""


@dataclass(frozen=True, slots=True)
class CheckedJson:
    """A value and where it stands, such as `conversations[0].title`. What is not as expected raises ImportRefused."""

    value: object
    where: str

    def refused(self) -> ImportRefused:
        """The error for a value that makes no sense here."""
        return ImportRefused("import_broken", where=self.where)

    def too_much(self, count: int, limit: int) -> ImportRefused:
        """The error for a value that is longer than allowed."""
        return ImportRefused("import_too_much", where=self.where, count=count, limit=limit)

    def has(self, name: str) -> bool:
        """Whether this object has a field `name` that is not null."""
        return self._object().get(name) is not None

    def field(self, name: str) -> "CheckedJson":
        """The field `name` of this object; one that is missing is null, which only few can be."""
        return CheckedJson(self._object().get(name), f"{self.where}.{name}" if self.where else name)

    def entries(self) -> Iterator[tuple[str, "CheckedJson"]]:
        """Names and values of this object, whose names are not the format's; so they are no part of the place."""
        for name, value in self._object().items():
            yield name, CheckedJson(value, self.where)

    def items(self, limit: int) -> "list[CheckedJson]":
        """The items of this list, at most `limit`."""
        if not isinstance(self.value, list):
            raise self.refused()
        if len(self.value) > limit:
            raise self.too_much(len(self.value), limit)
        return [CheckedJson(item, f"{self.where}[{index}]") for index, item in enumerate(self.value)]

    def text(self, limit: int) -> str:
        """A string of at most `limit` characters."""
        if not isinstance(self.value, str) or not is_text(self.value):
            raise self.refused()
        if len(self.value) > limit:
            raise self.too_much(len(self.value), limit)
        return self.value

    def whole(self, low: int = 0, high: int = MAX_JSON_INTEGER) -> int:
        """A whole number between `low` and `high`."""
        if not isinstance(self.value, int) or isinstance(self.value, bool) or not low <= self.value <= high:
            raise self.refused()
        return self.value

    def number(self) -> float:
        """A number that is not negative, whole or not."""
        if (
            not isinstance(self.value, int | float)
            or isinstance(self.value, bool)
            or not 0 <= self.value <= MAX_JSON_INTEGER
        ):
            raise self.refused()
        return self.value

    def flag(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            raise self.refused()
        return self.value

    def time(self) -> datetime:
        """A moment in ISO 8601 with its zone, in UTC."""
        try:
            time = datetime.fromisoformat(self.text(40).replace("Z", "+00:00"))
            if time.tzinfo is None:
                raise self.refused()
            return time.astimezone(timezone.utc)
        except (ValueError, OverflowError) as error:
            raise self.refused() from error

    def plain(self, kind: type[Plain], limit: int) -> Plain:
        """A dataclass of strings, numbers, flags and nulls: what the file lacks keeps its default, what it has more is left."""
        hints = get_type_hints(kind)
        known = [field.name for field in fields(kind) if field.name in self._object()]  # type: ignore[arg-type]  # a dataclass
        try:
            return kind(**{name: self.field(name)._as(hints[name], limit) for name in known})
        except ImportRefused:
            raise
        except BadInput as error:  # a parameter out of its bounds
            raise self.refused() from error

    def _as(self, hint: Any, limit: int) -> object:
        allowed = get_args(hint) or (hint,)
        if self.value is None and NoneType in allowed:
            return None
        if bool in allowed:
            return self.flag()
        if str in allowed:
            return self.text(limit)
        return self.number() if float in allowed else self.whole()

    def _object(self) -> dict[str, object]:
        if not isinstance(self.value, dict):
            raise self.refused()
        return self.value
