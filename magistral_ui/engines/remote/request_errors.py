"""What went wrong with a request, as a sentence's key, and whether and when to try it again; it does not try."""

import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from magistral_ui.engines.remote.error_body import (
    MAX_BODY_CHARACTERS,
    MAX_DETAIL_LENGTH,
    ServerRefusal,
    read_refusal,
    value_and_text,
)
from magistral_ui.engines.remote.http_client import RequestRefused
from magistral_ui.engines.remote.sse import StreamBroken
from magistral_ui.engines.remote.tls_errors import InsecureConnection
from magistral_ui.errors import Message, Value

RETRY_DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each new try, 31.5 in all: a server that is started again is back by then, or needs a person."""
MAX_RETRY_AFTER = 60.0
"""Seconds beyond which a server's own wish to be asked later is not waited for."""
RETRYABLE_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request may succeed."""
MAX_SERVER_ERRORS = 2
"""Tries after which an error of the server's own is taken to be a lasting one."""
QUOTA_SPENT = re.compile(r"insufficient_quota|billing|exceeded your (?:current|monthly) quota|out of credits", re.I)
"""Words of a 429 that no waiting mends."""
ABOUT_THE_KEY = re.compile(r"\bkey|token\b|auth|credential|permission|forbidden|access|denied|login|sign in", re.I)
ABOUT_THE_MODEL = re.compile(r"model|deployment|engine", re.I)
ABOUT_TOKENS = re.compile(r"tokens?\b", re.I)
PINNED = re.compile(r"pinned to ['\"]?(.+?)['\"]?\s*[;,]")
"""`transformers serve` with a model of its own names it in no list, only when it refuses another one."""


@dataclass(frozen=True, slots=True)
class FailedRequest(Message):
    """One failed try, and what to tell of it. `wait` is None where trying again is of no use."""

    wait: float | None = None
    busy: bool = False
    """Whether the server is there and only cannot serve now."""
    refusal: ServerRefusal | None = None
    """What the server said, where it refused the request itself."""


REQUEST_ERRORS = (StreamBroken, RequestRefused, OSError)
"""What may go wrong with a request; ConnectionError and TimeoutError are OSErrors. Anything else is a defect of this program."""


def failed_request(
    error: BaseException, host: str, tries: int, jitter: random.Random, sent: Mapping[str, Any] | None = None
) -> FailedRequest:
    """What one of the REQUEST_ERRORS means after so many `tries`; `sent` is the request."""
    if isinstance(error, StreamBroken):
        return _broken(error, host, _wait(tries, jitter))
    if isinstance(error, RequestRefused):
        return _refused(error.response, host, tries, jitter, sent or {})
    if isinstance(error, InsecureConnection):
        return FailedRequest(error.message.key, {"server": host})
    if isinstance(error, TimeoutError):
        return FailedRequest("remote_silent", {"server": host}, None)
    return FailedRequest("remote_unreachable", {"server": host}, _wait(tries, jitter))


def _broken(error: StreamBroken, host: str, wait: float | None) -> FailedRequest:
    """A stream that was only cut may be begun again; one in which the server reports an error would bring it again."""
    key, values = error.message.key, {"server": host, **error.message.values}
    detail = str(values.get("detail", ""))
    if key == "remote_error" and (refusal := read_refusal(400, error.body or detail, detail, {})).too_long:
        return _too_long(refusal, host)
    if detail:
        values["detail"] = detail[:MAX_DETAIL_LENGTH]
    return FailedRequest(key, values, wait if key == "remote_cut" else None)


def _refused(
    response: httpx2.Response, host: str, tries: int, jitter: random.Random, sent: Mapping[str, Any]
) -> FailedRequest:
    status, (value, text) = response.status_code, value_and_text(response)
    refusal = read_refusal(status, value, text, sent)
    detail = refusal.words
    values: dict[str, Value] = {"server": host, "status": status, "detail": detail or f"HTTP {status}"}
    if 300 <= status < 400:
        return FailedRequest(
            "remote_redirects", {"server": host, "detail": response.headers.get("location", "")[:MAX_DETAIL_LENGTH]}
        )
    if status == 401 or (status == 403 and (not detail or ABOUT_THE_KEY.search(detail))):
        return FailedRequest("remote_key_refused", {"server": host})
    if refusal.too_long:
        return _too_long(refusal, host)
    if status == 413 and not (isinstance(value, dict) and ABOUT_TOKENS.search(detail)):
        return FailedRequest("remote_body_too_large", {"server": host})
    if status in (404, 405, 410) and not ABOUT_THE_MODEL.search(detail):
        return FailedRequest("remote_not_compatible", values)
    if (pinned := PINNED.search(detail)) is not None:
        return FailedRequest("remote_other_model", {"server": host, "model": pinned[1]}, refusal=refusal)
    # A chat template that refuses is an error of the server to llama.cpp, but asking again does not mend it.
    of_template = "jinja" in detail.lower() or "template" in detail.lower()
    if (
        status in RETRYABLE_STATUSES
        and not of_template
        and not refusal.fields
        and not QUOTA_SPENT.search(text[:MAX_BODY_CHARACTERS])
    ):
        return _passing(response, values, tries, jitter)
    return FailedRequest("remote_refused", values, refusal=refusal)


def _too_long(refusal: ServerRefusal, host: str) -> FailedRequest:
    known: dict[str, Value] = {"tokens": refusal.tokens, "limit": refusal.limit}
    if all(known.values()):
        return FailedRequest("prompt_too_long", known, refusal=refusal)
    return FailedRequest("remote_prompt_too_long", {"server": host}, refusal=refusal)


def _passing(response: httpx2.Response, values: dict[str, Value], tries: int, jitter: random.Random) -> FailedRequest:
    """What may be over soon: busy servers and gateways are asked six times more, one that fails by itself only twice."""
    status = response.status_code
    asked = retry_after(response.headers)
    wait = _wait(tries, jitter) if asked is None else asked if tries < len(RETRY_DELAYS) else None
    if status == 500 and tries >= MAX_SERVER_ERRORS:
        wait = None
    busy = status in (429, 503, 529)
    key = "remote_busy" if busy else "remote_gateway" if status in (502, 504) else "remote_failing"
    return FailedRequest(key, values, wait if wait is None or wait <= MAX_RETRY_AFTER else None, busy)


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


def _wait(tries: int, jitter: random.Random) -> float | None:
    return RETRY_DELAYS[tries] * jitter.uniform(0.8, 1.2) if tries < len(RETRY_DELAYS) else None
