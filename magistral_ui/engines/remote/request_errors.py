"""What can go wrong with a request, from TLS to a refusal: which message to show, and whether and when to retry it."""

import asyncio
import contextlib
import math
import random
import re
import ssl
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
from magistral_ui.engines.remote.server_address import ServerAddress
from magistral_ui.engines.remote.sse import StreamBroken
from magistral_ui.errors import Message, Value, causes

RETRY_DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Exponential backoff: seconds before each retry, 31.5 in total; a restarting server is back by then, or needs a person."""
MAX_RETRY_AFTER = 60.0
"""The longest `Retry-After`, in seconds, that is honoured."""
RETRYABLE_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request may succeed later."""
MAX_SERVER_ERRORS = 2
"""Retries after which a server's internal error counts as permanent."""
QUOTA_SPENT = re.compile(r"insufficient_quota|billing|exceeded your (?:current|monthly) quota|out of credits", re.I)
"""Words of a 429 response that waiting does not fix."""
ABOUT_THE_KEY = re.compile(r"\bkey|token\b|auth|credential|permission|forbidden|access|denied|login|sign in", re.I)
ABOUT_THE_MODEL = re.compile(r"model|deployment|engine", re.I)
ABOUT_TOKENS = re.compile(r"tokens?\b", re.I)
PINNED = re.compile(r"pinned to ['\"]?(.+?)['\"]?\s*[;,]")
"""If `transformers serve` was started with one model, it reveals the name only when it refuses another one."""
CERTIFICATE_ERROR_KEYS = {
    9: "remote_certificate_expired",  # not valid yet
    10: "remote_certificate_expired",
    62: "remote_certificate_name",  # another host name
    64: "remote_certificate_name",  # another address
}
"""OpenSSL's reasons to reject a certificate (x509_vfy.h); all others mean that no trusted authority signed it."""
PLAIN_TEXT_REASONS = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "UNKNOWN_PROTOCOL",
    "RECORD_LAYER_FAILURE",
    "PACKET_LENGTH_TOO_LONG",
)
"""OpenSSL's reasons when the server answered in plain text."""
TLS_PROBE_TIMEOUT = 3.0
"""Seconds to check whether a port speaks TLS."""


@dataclass(frozen=True, slots=True)
class FailedRequest(Message):
    """A failed request and its message. `wait` is the delay before a retry in seconds, or None if a retry is pointless."""

    wait: float | None = None
    busy: bool = False
    """Whether the server is running, but cannot serve now."""
    refusal: ServerRefusal | None = None
    """What the server said, if it rejected the request itself."""


class RequestRefused(Exception):
    """The server answered a request for a stream with an error or a redirect; `response` has been read."""

    def __init__(self, response: httpx2.Response) -> None:
        super().__init__(response.status_code)
        self.response = response


REQUEST_ERRORS = (StreamBroken, RequestRefused, OSError)
"""What can go wrong with a request; ConnectionError and TimeoutError are OSErrors. Anything else is a bug in this app."""


def failed_request(
    error: BaseException, host: str, tries: int, jitter: random.Random, sent: Mapping[str, Any] | None = None
) -> FailedRequest:
    """What one of the REQUEST_ERRORS means after `tries` retries; `sent` is the request."""
    if isinstance(error, StreamBroken):
        return _broken_stream(error, host, _retry_delay(tries, jitter))
    if isinstance(error, RequestRefused):
        return _refused(error.response, host, tries, jitter, sent or {})
    if isinstance(error, InsecureConnection):
        return FailedRequest(error.message.key, {"server": host})
    if isinstance(error, TimeoutError):
        return FailedRequest("remote_silent", {"server": host}, None)
    return FailedRequest("remote_unreachable", {"server": host}, _retry_delay(tries, jitter))


def _broken_stream(error: StreamBroken, host: str, wait: float | None) -> FailedRequest:
    """A stream that was merely cut may be requested again; an error reported in a stream would recur."""
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
    detail = refusal.detail
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
    # llama.cpp reports a refusal by the chat template as a server error, but a retry does not help.
    of_template = "jinja" in detail.lower() or "template" in detail.lower()
    if (
        status in RETRYABLE_STATUSES
        and not of_template
        and not refusal.fields
        and not QUOTA_SPENT.search(text[:MAX_BODY_CHARACTERS])
    ):
        return _transient_failure(response, values, tries, jitter)
    return FailedRequest("remote_refused", values, refusal=refusal)


def _too_long(refusal: ServerRefusal, host: str) -> FailedRequest:
    known: dict[str, Value] = {"tokens": refusal.tokens, "limit": refusal.limit}
    if all(known.values()):
        return FailedRequest("prompt_too_long", known, refusal=refusal)
    return FailedRequest("remote_prompt_too_long", {"server": host}, refusal=refusal)


def _transient_failure(
    response: httpx2.Response, values: dict[str, Value], tries: int, jitter: random.Random
) -> FailedRequest:
    """A failure that may pass: busy servers and gateways are retried six times, an internal error only twice."""
    status = response.status_code
    asked = retry_after(response.headers)
    wait = _retry_delay(tries, jitter) if asked is None else asked if tries < len(RETRY_DELAYS) else None
    if status == 500 and tries >= MAX_SERVER_ERRORS:
        wait = None
    busy = status in (429, 503, 529)
    key = "remote_busy" if busy else "remote_gateway" if status in (502, 504) else "remote_failing"
    return FailedRequest(key, values, wait if wait is None or wait <= MAX_RETRY_AFTER else None, busy)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that the server asks to wait, which it may also give as a date; None if it does not say."""
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
    if until.tzinfo is None:  # "-0000" means an unknown zone; the time is UTC all the same
        until = until.replace(tzinfo=timezone.utc)
    return max(0.0, (until - datetime.now(timezone.utc)).total_seconds())


def _retry_delay(tries: int, jitter: random.Random) -> float | None:
    return RETRY_DELAYS[tries] * jitter.uniform(0.8, 1.2) if tries < len(RETRY_DELAYS) else None


class InsecureConnection(ConnectionError):
    """A secure connection to the server is not possible; `message` says why, without the server's name."""

    def __init__(self, key: str) -> None:
        self.message = Message(key)
        super().__init__(key)


def find_tls_error(error: BaseException) -> InsecureConnection | None:
    """The TLS problem that caused `error`, if any."""
    for each in causes(error):
        # aiohttp's own errors also have these types, but only their causes have the reason.
        code, reason = getattr(each, "verify_code", None), getattr(each, "reason", None)
        if isinstance(each, ssl.SSLCertVerificationError) and code is not None:
            return InsecureConnection(CERTIFICATE_ERROR_KEYS.get(code, "remote_certificate_untrusted"))
        if isinstance(each, ssl.SSLError) and reason in PLAIN_TEXT_REASONS:
            return InsecureConnection("remote_not_tls")
    return None


def closed_without_answer(error: BaseException) -> bool:
    """Whether a server accepted the connection and closed it without an answer, as a TLS port does on plain text."""
    return not any(isinstance(each, ConnectionRefusedError | TimeoutError) for each in causes(error))


async def speaks_tls(address: ServerAddress) -> bool:
    """Whether the port of a plain-text address speaks TLS; nothing is sent, so the certificate is not checked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        opening = asyncio.open_connection(address.name, address.port, ssl=context)
        _, writer = await asyncio.wait_for(opening, TLS_PROBE_TIMEOUT)
    except (OSError, asyncio.TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError, asyncio.TimeoutError):
        await asyncio.wait_for(writer.wait_closed(), TLS_PROBE_TIMEOUT)
    return True
