"""Reads the stream of a chat completion: bytes to payloads, payloads to what they hold; it knows neither servers nor channels.

Tolerant in what differs between servers and their versions, strict in what would lose text: that is a StreamBroken.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from magistral_ui.errors import Value

DONE = b"[DONE]"
LONGEST_LINE = 4_000_000
"""Bytes of one line: a whole answer in one payload fits; what is longer is no chat."""
MOST_STRANGE = 100_000
"""Bytes of lines that are no part of an event, as in a page of HTML, after which the rest is not waited for."""


class StreamBroken(Exception):
    """The stream cannot be read on; `key` names the sentence, `values` fill it."""

    def __init__(self, key: str, **values: Value) -> None:
        super().__init__(key, values)
        self.key, self.values = key, dict(values)


class PayloadReader:
    """Cuts a stream of server-sent events into payloads, however the network had cut it.

    Every server writes a payload on one line; a bare line that begins with a brace is an answer outside of any event.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self.strange = 0
        """Bytes that were no part of an event."""

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads of the lines that are complete now; StreamBroken where those before were no events at all."""
        if len(self._rest) > LONGEST_LINE or self.strange > MOST_STRANGE:
            raise StreamBroken("remote_malformed")
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0], self._rest = bytes(self._rest) + lines[0], bytearray()
        self._rest += rest
        return [payload for line in lines if (payload := self._payload(line))]

    def finish(self) -> list[bytes]:
        """The payload of a last line that nothing ended."""
        payload, self._rest = self._payload(bytes(self._rest)), bytearray()
        return [payload] if payload else []

    def _payload(self, line: bytes) -> bytes:
        payload = _payload(line)
        if not payload and not line.lstrip().startswith(FIELDS):
            self.strange += len(line.strip())
        return payload


FIELDS = (b"data:", b":", b"event:", b"id:", b"retry:")


def _payload(line: bytes) -> bytes:
    line = line.strip()
    if line.startswith(b"data:"):
        return line[5:].strip()
    return line if line.startswith(b"{") else b""


Kind = Literal["reasoning", "thinking", "text"]
"""`reasoning`: of a field of its own; `thinking`: of a list's thinking part; `text`: of the content."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one payload says. `parts` are texts in their order; an empty `thinking` closes the reasoning."""

    parts: tuple[tuple[Kind, str], ...] = ()
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    progress: tuple[int, int, int] | None = None
    """Prompt tokens that are read, all of them, and those that were in the cache (llama.cpp)."""
    identity: str = field(default="", compare=False)


def read_chunk(payload: bytes) -> Chunk:
    """`payload` understood; StreamBroken where it is an error or no chunk at all."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise StreamBroken("remote_malformed") from error
    if not isinstance(value, dict):
        raise StreamBroken("remote_malformed")
    if (told := error_text(value)) is not None:
        raise StreamBroken("remote_error", detail=told)
    choice = _first_choice(value)
    usage = _mapping(value.get("usage"))
    progress = _mapping(value.get("prompt_progress"))
    delta = _mapping(choice.get("delta") or choice.get("message"))
    reason = choice.get("finish_reason")
    return Chunk(
        parts=_parts(delta) if delta else tuple(_content_part(choice.get("text"))),
        finish_reason=reason if isinstance(reason, str) and reason else None,
        prompt_tokens=_count(usage, "prompt_tokens"),
        cached_tokens=_count(_mapping(usage.get("prompt_tokens_details")), "cached_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        reasoning_tokens=_count(_mapping(usage.get("completion_tokens_details")), "reasoning_tokens"),
        progress=_progress(progress) if progress else None,
        identity=str(value.get("id") or ""),
    )


def read_last_chunk(payload: bytes) -> Chunk:
    """The chunk of a line that nothing ended: where it is no whole one, the stream was cut there."""
    try:
        return read_chunk(payload)
    except StreamBroken as broken:
        if broken.key != "remote_malformed":
            raise
        raise StreamBroken("remote_cut") from broken


def error_text(value: Mapping[str, Any]) -> str | None:
    """What an answer that is an error says; None for any other. Its shapes: an object, a text, or lists within."""
    error = value.get("error")
    if error is None and value.get("object") == "error":
        error = value
    if error is None and "detail" in value and "choices" not in value:
        error = value["detail"]
    return None if error is None else _told(error) or "?"


def _told(error: Any) -> str:
    if isinstance(error, str):
        return error
    if isinstance(error, list):
        return "; ".join(filter(None, map(_told, error)))
    if isinstance(error, dict):
        said = next((told for key in ("message", "msg", "detail") if (told := _told(error.get(key)))), "")
        place = error.get("loc")
        where = ".".join(str(each) for each in place) if isinstance(place, list) else ""
        return f"{where}: {said}" if where and said else said
    return ""


def _first_choice(value: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = value.get("choices")
    if not isinstance(choices, list):
        if choices is None and ("usage" in value or "prompt_progress" in value or "object" in value):
            return {}
        raise StreamBroken("remote_malformed")
    return next((each for each in choices if isinstance(each, dict) and each.get("index", 0) in (0, None)), {})


def _parts(delta: Mapping[str, Any]) -> tuple[tuple[Kind, str], ...]:
    """Reasoning first: where a server sends both fields of different times, they are equal, so only one is taken."""
    parts: list[tuple[Kind, str]] = []
    reasoning = next(
        (r for key in ("reasoning_content", "reasoning") if isinstance(r := delta.get(key), str) and r), ""
    )
    if reasoning:
        parts.append(("reasoning", reasoning))
    content = delta.get("content")
    if isinstance(content, str):
        content = [content]
    for each in content if isinstance(content, list) else ():
        parts += _content_part(each)
    return tuple(parts)


def _content_part(part: Any) -> list[tuple[Kind, str]]:
    if isinstance(part, str):
        return [("text", part)] if part else []
    if not isinstance(part, dict):
        return []
    if part.get("type") == "thinking" or "thinking" in part:
        return [("thinking", _joined(part.get("thinking")))]
    text = part.get("text")
    return [("text", text)] if isinstance(text, str) and text else []


def _joined(thinking: Any) -> str:
    if isinstance(thinking, str):
        return thinking
    texts = thinking if isinstance(thinking, list) else []
    return "".join(each if isinstance(each, str) else str(_mapping(each).get("text") or "") for each in texts)


def _progress(progress: Mapping[str, Any]) -> tuple[int, int, int]:
    return (
        _count(progress, "processed") or 0,
        _count(progress, "total") or 0,
        _count(progress, "cache") or 0,
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Mapping[str, Any], name: str) -> int | None:
    number = value.get(name)
    return number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else None
