"""Reads JSON that anyone may have written, bounded before it is parsed; it does not know what the values mean."""

import json
import re
from typing import Any

from magistral_ui.errors import ImportRefused

MAX_DEPTH = 12
"""Objects and lists inside each other; the format has 7."""
MAX_STRUCTURE_BYTES = 16 * 2**20
"""Bytes outside of strings and spaces: each may become a Python object of a hundred bytes."""
MAX_NUMBER_LENGTH = 25
"""Characters: enough for every float and every whole number that JSON keeps exactly."""
PIECE = 2**18
"""Bytes that are looked at together: other threads wait for so long."""
SPACES = b" \t\r\n"


def parse(data: bytes, longest: int) -> Any:
    """The value in `data`, at most `longest` bytes of JSON in UTF-8; ImportRefused where it is anything else.

    Refused besides: a name that occurs twice in one object, NaN and infinities, numbers without measure, half a surrogate pair.
    """
    if len(data) > longest:
        raise ImportRefused("import_too_large", limit=longest // 2**20)
    data = data.removeprefix(b"\xef\xbb\xbf")
    _measure(data)
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_whole,
            parse_float=_fraction,
            parse_constant=_constant,
        )
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ImportRefused("import_not_json") from error


def is_text(value: str) -> bool:
    """Whether `value` can be written as UTF-8: JSON can spell half a surrogate pair, which is no character."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _measure(data: bytes) -> None:
    """Refuse what would take much memory or go deep, by what is left without the strings: brackets, commas, numbers."""
    plain = data.replace(rb"\\", b"").replace(rb"\"", b"")  # so that all quotes that are left begin or end a string
    length, depth, inside = 0, 0, False
    for start in range(0, len(plain), PIECE):
        parts = plain[start : start + PIECE].split(b'"')
        skeleton = b"".join(parts[int(inside) :: 2]).translate(None, SPACES)
        inside ^= len(parts) % 2 == 0
        length += len(skeleton)
        if length > MAX_STRUCTURE_BYTES:
            raise ImportRefused("import_too_large", limit=MAX_STRUCTURE_BYTES // 2**20)
        for bracket in re.findall(rb"[][{}]", skeleton):
            depth += 1 if bracket in b"[{" else -1
            if depth > MAX_DEPTH:
                raise ImportRefused("import_not_json")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _whole(digits: str) -> int:
    if len(digits) > MAX_NUMBER_LENGTH:
        raise ValueError("a number without measure")
    return int(digits)


def _fraction(digits: str) -> float:
    value = float(digits)
    if len(digits) > 2 * MAX_NUMBER_LENGTH or value in (float("inf"), float("-inf")):
        raise ValueError("a number without measure")
    return value


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no number")
