"""Parses the payloads of a streamed chat completion into chunks; it knows neither servers nor channels.

It tolerates differences between servers and versions, but raises StreamBroken if text would be lost.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from magistral_ui.engines.remote.error_body import error_message
from magistral_ui.engines.remote.sse import StreamBroken, json_object, parse_json

Kind = Literal["reasoning", "thinking", "text", "refusal"]
"""`reasoning` and `refusal`: from fields of their own; `thinking`: from a list's thinking part; `text`: from the content."""
REASONING_FIELDS = ("reasoning_content", "reasoning", "reasoning_text", "thinking")
"""Where servers put reasoning. Several of them in one delta are equal, so only the first is used."""
THINKING_TYPES = frozenset({"thinking", "reasoning", "think", "reasoning_text", "summary_text"})
ERROR_FIELDS = ("error_msg", "error_code", "error_message", "errmsg", "err", "fault", "exception", "__type")
"""Fields that only errors have, apart from `error` itself."""
REASON_FIELDS = ("message", "Message", "msg", "description")
"""Fields in which an object that is not marked as an error may still say why nothing else follows."""
SILENT_TYPES = frozenset({"status", "ping", "info", "progress", "event", "log", "notice"})
"""Types of objects that are not errors, whatever fields they have."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One payload. `parts` are its texts in order; an empty `thinking` closes the reasoning."""

    parts: tuple[tuple[Kind, str], ...] = ()
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    progress: tuple[int, int, int] | None = None
    """Prompt tokens processed, in total, and cached (llama.cpp)."""
    cumulative: bool = False
    """Whether `parts` are the whole reply so far, and not just what is new."""
    calls_tool: bool = False
    silent: bool = field(default=False, compare=False)
    """Whether it is not part of a chat completion: a ping, or something meant for another kind of client."""
    foreign: bool = field(default=False, compare=False)
    """Whether it is meant for another kind of client."""
    message: str = field(default="", compare=False)
    """What a silent payload says; if nothing else follows, that is the reason."""
    identity: str = field(default="", compare=False)


def read_chunk(payload: bytes) -> Chunk:
    """The chunk in `payload`. Raises StreamBroken if it is an error or malformed."""
    try:
        value = parse_json(payload)
    except ValueError as error:
        raise StreamBroken("remote_malformed") from error
    if isinstance(value, list):
        raise StreamBroken("remote_malformed")
    if not isinstance(value, dict):
        return Chunk(silent=True)
    if (detail := find_error(value)) is not None:
        raise StreamBroken("remote_error", _error_of(value), detail=detail)
    choice = _first_choice(value)
    if (detail := find_error({"error": choice.get("error")})) is not None:
        raise StreamBroken("remote_error", choice.get("error"), detail=detail)
    usage = json_object(value.get("usage"))
    progress = json_object(value.get("prompt_progress"))
    done, total, cached = (_count(progress, name) for name in ("processed", "total", "cache"))
    parts, cumulative = _texts_of(choice)
    silent = not ("choices" in value or usage or progress or "object" in value)
    message = _message(choice)
    reason = choice.get("finish_reason")
    return Chunk(
        parts=parts,
        finish_reason=reason if isinstance(reason, str) and reason not in ("", "null") else None,
        prompt_tokens=_count(usage, "prompt_tokens"),
        cached_tokens=_count(json_object(usage.get("prompt_tokens_details")), "cached_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        reasoning_tokens=_count(json_object(usage.get("completion_tokens_details")), "reasoning_tokens"),
        progress=(done or 0, total or 0, cached or 0) if progress else None,
        cumulative=cumulative,
        calls_tool=bool(message.get("tool_calls") or message.get("function_call")),
        silent=silent,
        foreign=silent and bool(value) and str(value.get("type")).lower() not in SILENT_TYPES,
        message=next((text for key in REASON_FIELDS if isinstance(text := value.get(key), str)), "") if silent else "",
        identity=str(value.get("id") or ""),
    )


def read_last_chunk(payload: bytes) -> Chunk:
    """The chunk in a last line without a line break: if it is incomplete, the stream was cut there."""
    try:
        return read_chunk(payload)
    except StreamBroken as broken:
        if broken.message.key != "remote_malformed":
            raise
        raise StreamBroken("remote_cut") from broken


def find_error(value: Mapping[str, Any]) -> str | None:
    """The message of an error of any shape; None if `value` is not an error."""
    error = _error_of(value)
    return None if error is None else error_message(error, depth=1) or "?"


def _error_of(value: Mapping[str, Any]) -> Any:
    """The error that `value` is or contains, in any of the shapes that servers and gateways use, or None."""
    error = value.get("error")
    if error or error == {}:
        says_more = isinstance(error, int | float) or (isinstance(error, str) and isinstance(value.get("message"), str))
        return value if says_more else error
    if value.get("choices"):
        return None
    if (failed := json_object(value.get("base_resp"))).get("status_code"):  # MiniMax
        return failed
    kind = str(value.get("type") or "").lower()
    if value.get("object") == "error" or "error" in kind or value.get("status") == "error":
        return value
    if value.get("errors") and (value.get("success") is False or "choices" not in value):
        return value["errors"]
    if "choices" in value or kind in SILENT_TYPES:
        return None
    if any(value.get(key) for key in ERROR_FIELDS) or value.get("success") is False or value.get("ok") is False:
        return value
    if value.get("detail"):
        return value["detail"]
    status = next((code for key in ("code", "status", "status_code") if _is_status(code := value.get(key))), None)
    return value if status is not None and error_message(value) else None


def _is_status(code: Any) -> bool:
    return isinstance(code, int) and not isinstance(code, bool) and 400 <= code < 600


def _first_choice(value: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = value.get("choices")
    if choices is None:
        return {}
    if not isinstance(choices, list):
        raise StreamBroken("remote_malformed")
    return next((each for each in choices if isinstance(each, dict) and str(each.get("index") or 0) == "0"), {})


def _message(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    """The delta, or the message if there is no delta."""
    delta = choice.get("delta")
    return delta if isinstance(delta, dict) else json_object(choice.get("message"))


def _texts_of(choice: Mapping[str, Any]) -> tuple[tuple[tuple[Kind, str], ...], bool]:
    """The texts of a choice, and whether they are the whole message so far: some servers send that beside the delta."""
    delta, message, text = choice.get("delta"), choice.get("message"), choice.get("text")
    if isinstance(delta, dict):
        parts = _parts(delta)
        if parts or not isinstance(message, dict):
            return parts or _content_parts(text), False
    if isinstance(message, dict):
        return _parts(message), True
    if isinstance(message, str):
        return _content_parts(message), True
    return _content_parts(delta if isinstance(delta, str) else text), False


def _parts(delta: Mapping[str, Any]) -> tuple[tuple[Kind, str], ...]:
    """The reasoning, then the rest; reasoning that the content repeats is dropped."""
    parts: list[tuple[Kind, str]] = []
    reasoning = next((text for key in REASONING_FIELDS if (text := _joined(delta.get(key)))), "")
    if reasoning or (reasoning := _reasoning_details(delta.get("reasoning_details"))):
        parts.append(("reasoning", reasoning))
    content = _content_parts(delta.get("content"))
    parts += [part for part in content if part != ("thinking", reasoning) or not reasoning]
    refusal = delta.get("refusal")
    if isinstance(refusal, str) and refusal:
        parts.append(("refusal", refusal))
    return tuple(parts)


def _reasoning_details(details: Any) -> str:
    """The reasoning in OpenRouter's list, for providers that fill no other field; encrypted entries have no text."""
    each_of = details if isinstance(details, list) else []
    return "".join(_joined(json_object(each).get("text") or json_object(each).get("summary")) for each in each_of)


def _content_parts(content: Any) -> tuple[tuple[Kind, str], ...]:
    parts = content if isinstance(content, list) else [content]
    return tuple(part for each in parts for part in _content_part(each))


def _content_part(part: Any) -> list[tuple[Kind, str]]:
    if isinstance(part, str):
        return [("text", part)] if part else []
    if not isinstance(part, dict):
        return []
    kind = part.get("type")
    if kind in THINKING_TYPES or (kind is None and "thinking" in part):
        inner = next(
            (part[key] for key in ("thinking", "reasoning", "text", "content", "summary") if part.get(key)), ""
        )
        return [("thinking", _joined(inner))]
    if kind == "refusal":
        refusal = part.get("refusal")
        return [("refusal", refusal)] if isinstance(refusal, str) and refusal else []
    text = part.get("text")
    text = text.get("value") if isinstance(text, dict) else text  # the shape of OpenAI's assistants
    return [("text", text)] if isinstance(text, str) and text else []


def _joined(thinking: Any) -> str:
    """The text of a string, an object, or a list of these."""
    if isinstance(thinking, str):
        return thinking
    if isinstance(thinking, dict):
        return next((text for key in ("text", "content") if isinstance(text := thinking.get(key), str)), "")
    return "".join(map(_joined, thinking)) if isinstance(thinking, list) else ""


def _count(value: Mapping[str, Any], name: str) -> int | None:
    number = value.get(name)
    return number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else None
