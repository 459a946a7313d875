"""What went wrong with a request, as a sentence's key, and whether and when to try it again; it does not try."""

import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

import openai

from magistral_ui.engines.remote.certificates import NotSecure
from magistral_ui.engines.remote.stream import StreamBroken, error_text
from magistral_ui.errors import Value

WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each new try: a server that is started again is back within half a minute, or needs a person."""
LONGEST_WAIT = 60.0
"""Seconds beyond which a server's own wish to be asked later is not waited for."""
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request may succeed."""
DETAIL = 300
"""Characters of a server's own words that are shown."""
TOO_LONG = re.compile(
    r"context (?:length|size|window)|maximum (?:model|context|sequence) length|too (?:long|many tokens)", re.I
)
NUMBERS = re.compile(r"\d[\d,_]*")


@dataclass(frozen=True, slots=True)
class Trouble:
    """One failed try. `wait` is None where trying again is of no use."""

    key: str
    values: dict[str, Value] = field(default_factory=dict)
    wait: float | None = None
    busy: bool = False
    """Whether the server is there and only cannot serve now."""


TROUBLES = (StreamBroken, openai.APIStatusError, OSError)
"""What may go wrong with a request; ConnectionError and TimeoutError are OSErrors. Anything else is a defect of this program."""


def trouble_of(error: BaseException, host: str, tries: int, jitter: random.Random) -> Trouble:
    """What one of the TROUBLES means after so many `tries`."""
    if isinstance(error, StreamBroken):
        return _broken(error, host, _wait(tries, jitter))
    if isinstance(error, openai.APIStatusError):
        return _refused(error, host, tries, jitter)
    if isinstance(error, NotSecure):
        return Trouble(error.key, {"server": host})
    if isinstance(error, TimeoutError):
        return Trouble("remote_silent", {"server": host}, None)
    return Trouble("remote_unreachable", {"server": host}, _wait(tries, jitter))


def _broken(error: StreamBroken, host: str, wait: float | None) -> Trouble:
    """A stream that was only cut may be begun again; one in which the server reports an error would bring it again."""
    detail = str(error.values.get("detail", ""))
    if error.key == "remote_error" and context_size({}, detail) is not None:
        return Trouble("remote_prompt_too_long", {"server": host})
    values = {**error.values, "detail": detail[:DETAIL]} if detail else error.values
    return Trouble(error.key, {"server": host, **values}, wait if error.key == "remote_cut" else None)


def _refused(error: openai.APIStatusError, host: str, tries: int, jitter: random.Random) -> Trouble:
    status, body = error.status_code, error.body if isinstance(error.body, dict) else {}
    detail = (error_text({"error": body}) or "")[:DETAIL].strip("?") or _plain(error)
    values: dict[str, Value] = {"server": host, "status": status, "detail": detail}
    if status in (401, 403):
        return Trouble("remote_key_refused", {"server": host})
    if (size := context_size(body, detail)) is not None:
        known: dict[str, Value] = {"tokens": size[0], "limit": size[1]}
        return Trouble("prompt_too_long", known) if all(size) else Trouble("remote_prompt_too_long", values)
    # A chat template that refuses is an error of the server to llama.cpp, but asking again does not mend it.
    if status in PASSING and "jinja" not in detail.lower() and "template" not in detail.lower():
        asked = retry_after(error.response.headers)
        wait = _wait(tries, jitter) if asked is None else asked if tries < len(WAITS) else None
        busy = status in (429, 503, 529)
        key = "remote_busy" if busy else "remote_failing"
        return Trouble(key, values, wait if wait is None or wait <= LONGEST_WAIT else None, busy)
    return Trouble("remote_refused", values)


def context_size(body: Mapping[str, Any], detail: str) -> tuple[int, int] | None:
    """The prompt's tokens and the limit where `body` says that they do not fit; zeros where it names no numbers."""
    tokens, limit = body.get("n_prompt_tokens"), body.get("n_ctx")
    if isinstance(tokens, int) and isinstance(limit, int):
        return tokens, limit
    if not TOO_LONG.search(detail):
        return None
    numbers = [int(re.sub(r"\D", "", each)) for each in NUMBERS.findall(detail)]
    large = [number for number in numbers if number >= 256]
    return (max(large), min(large)) if len(large) > 1 and max(large) > min(large) else (0, 0)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, which it may also say as a date; None where it says nothing."""
    for name, unit in (("retry-after-ms", 1_000), ("retry-after", 1)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        until = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    if until.tzinfo is None:  # a date that says it is of no zone, which is Greenwich's all the same
        until = until.replace(tzinfo=timezone.utc)
    return max(0.0, (until - datetime.now(timezone.utc)).total_seconds())


def _plain(error: openai.APIStatusError) -> str:
    """The body's words where it is text and no page of HTML."""
    text = error.response.text.strip() if error.response.is_closed else ""
    return "" if text.startswith("<") else " ".join(text.split())[:DETAIL]


def _wait(tries: int, jitter: random.Random) -> float | None:
    return WAITS[tries] * jitter.uniform(0.8, 1.2) if tries < len(WAITS) else None
