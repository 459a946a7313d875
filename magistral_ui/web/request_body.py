"""Reads the bodies of requests, within bounds of bytes, time and memory, and refuses others; it does not know what they mean."""

import asyncio
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from anyio import fail_after
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope

from magistral_ui.client import CLIENT
from magistral_ui.sessions.limits import Limits
from magistral_ui.web.error_responses import error_response
from magistral_ui.web.rate_limit import RETRY_AFTER_SECONDS, ByteQuota, QuotaExceeded

CHUNK_TIMEOUT = 20.0
BODY_TIMEOUT = 300.0
MAX_JSON_DEPTH = 24
"""Levels of JSON, more than anything here needs."""
MAX_EVENT_BYTES = 2_000_000
"""Bytes of an action, or of a program's call, beside the text of a message, which may take six for a character."""
MAX_EVENT_VALUES, MAX_TURN_VALUES = 10_000, 40
"""Values in one, and in each turn of a history that it brings."""
MAX_MCP_BYTES = 32 * 2**20
"""Bytes of a request to the MCP server; images travel in it as base64."""
MAX_JSON_VALUES = 400_000
"""Values in one body of JSON: a thousand turns of a program have about 20 each."""
JSON_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
"""The strings in JSON, an unfinished one too, so that each byte is looked at once."""
MAX_HELD_BYTES, MAX_HELD_BYTES_PER_ADDRESS = 256 * 2**20, 3 * MAX_MCP_BYTES
"""Bytes of all bodies in memory while they arrive and are served: a few of the largest, or many of the usual ones."""


class BodyTooLarge(Exception):
    """More bytes than allowed."""


class BodyTimeout(Exception):
    """The body does not arrive, or too slowly."""


class ClientGone(Exception):
    """The client has left."""


class Held(Exception):
    """There is no room in memory for one more body now."""


REFUSED_BODIES = (BodyTooLarge, BodyTimeout, ClientGone, Held, QuotaExceeded, ValueError)
"""What reading a body raises."""


class HeldBytes:
    """The bodies that are in memory now, by address."""

    def __init__(self, max_bytes: int = MAX_HELD_BYTES, per_address: int = MAX_HELD_BYTES_PER_ADDRESS) -> None:
        self._max_bytes, self._per_address = max_bytes, per_address
        self._by_address: Counter[str] = Counter()

    @contextmanager
    def counted(self, receive: Receive, address: str) -> Iterator[Receive]:
        """`receive` whose bytes count meanwhile; it raises Held in place of a piece for which there is no room."""
        held = 0

        async def count() -> Message:
            nonlocal held
            message = await receive()
            size = len(message.get("body", b""))
            of_all, of_address = self._by_address.total(), self._by_address[address]
            if size and (of_all + size > self._max_bytes or of_address + size > self._per_address):
                raise Held
            held += size
            self._by_address[address] += size
            return message

        try:
            yield count
        finally:
            self._by_address[address] -= held
            if not self._by_address[address]:
                del self._by_address[address]


class JsonBodies:
    """Reads the JSON that the page and programs send, and counts all of it: by address and hour, and while it is in memory."""

    def __init__(self, limits: Limits) -> None:
        self._max_bytes = MAX_EVENT_BYTES + 6 * limits.text_length
        self._values = MAX_EVENT_VALUES + MAX_TURN_VALUES * limits.messages
        self.hourly, self._held = ByteQuota(limits), HeldBytes()

    @contextmanager
    def counted(self, receive: Receive) -> Iterator[Receive]:
        """`receive` whose bytes count for the client; they are in memory until the `with` block ends."""
        address = CLIENT.get().address
        with self._held.counted(receive, address) as counted:
            yield self.hourly.counted(counted, address)

    async def read(self, scope: Scope, receive: Receive, max_bytes: int | None = None) -> tuple[bytes, object]:
        """A body and its value. Raises one of REFUSED_BODIES."""
        body = await read_body(scope, receive, max_bytes or self._max_bytes)
        return body, read_json(body, values=self._values)

    def refusal(self, error: Exception) -> ASGIApp:
        """The answer to a body that raised one of REFUSED_BODIES."""
        match error:
            case BodyTooLarge():
                return error_response(413, "request_too_large", limit=self._max_bytes // 1000)
            case QuotaExceeded():
                return error.refusal
            case Held():
                return error_response(503, "overloaded", wait=RETRY_AFTER_SECONDS)
            case BodyTimeout():
                return error_response(408, "request_slow")
            case ClientGone():
                return Response(status_code=400)  # nobody reads it
        return error_response(400, "request_forged")


async def read_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """The whole body. Raises BodyTooLarge, before reading if the length says so, BodyTimeout or ClientGone."""
    check_length(scope, max_bytes)
    body, pieces = bytearray(), bounded(receive, max_bytes)
    while True:
        message = await pieces()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def check_length(scope: Scope, max_bytes: int) -> int:
    """The announced length, or -1. Raises BodyTooLarge if it is more than `max_bytes`, or not a number."""
    length = Headers(scope=scope).get("content-length")
    if length is None:
        return -1
    if not length.isdecimal() or int(length[:20]) > max_bytes:
        raise BodyTooLarge
    return int(length)


def bounded(receive: Receive, max_bytes: int) -> Receive:
    """`receive` that raises BodyTooLarge after `max_bytes` bytes, and BodyTimeout if the body stops coming."""
    loop = asyncio.get_running_loop()
    until, taken, whole = loop.time() + BODY_TIMEOUT, 0, False

    async def limited() -> Message:
        nonlocal taken, whole
        if whole:
            return await receive()  # all that comes now is that the client has left
        try:
            # Not asyncio.wait_for, which up to Python 3.11 can swallow a cancellation: a request would outlive its login.
            with fail_after(min(CHUNK_TIMEOUT, max(0.0, until - loop.time()))):
                message = await receive()
        except TimeoutError as error:
            raise BodyTimeout from error
        taken += len(message.get("body", b""))
        if taken > max_bytes:
            raise BodyTooLarge
        whole = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    return limited


def replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` for a body that has been read already."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def read_json(body: bytes, depth: int = MAX_JSON_DEPTH, values: int = MAX_JSON_VALUES) -> object:
    """The JSON in `body`; ValueError for anything else: too deep, too many values, no Unicode, NaN, infinity, half of a surrogate
    pair, a name twice in one object. A body of too many values is not even parsed: that would block the event loop."""
    max_signs = 2 * values  # a list in a list is preceded by two of these characters
    if signs_in(body) > max_signs and (texts_in(body) > max_signs or signs_in(JSON_STRINGS.sub(b"", body)) > max_signs):
        raise ValueError("too many values")
    try:
        value: object = json.loads(
            body.decode("utf-8"), parse_float=_finite, parse_constant=_refuse, object_pairs_hook=_named_once
        )
    except RecursionError as error:
        raise ValueError("too deep") from error
    check_value(value, depth, values)
    return value


def signs_in(body: bytes) -> int:
    """How many characters in `body` may stand before a value."""
    return body.count(b",") + body.count(b"[") + body.count(b"{")


def texts_in(body: bytes) -> int:
    """How many strings `body` has, names too: counting is much faster than removing them one by one."""
    return body.replace(rb"\\", b"").replace(rb"\"", b"").count(b'"') // 2


def check_value(value: object, depth: int, values: int = MAX_JSON_VALUES) -> int:
    """How many more values are allowed after these; ValueError for too many or too deep ones, or a text that is no Unicode."""
    if isinstance(value, str):
        value.encode("utf-8")  # UnicodeEncodeError is a ValueError
    elif isinstance(value, dict | list):
        values -= len(value)
        if depth == 0 or values < 0:
            raise ValueError("too deep, or too many values")
        if isinstance(value, dict):
            for name in value:
                name.encode("utf-8")
        for each in value.values() if isinstance(value, dict) else value:
            values = check_value(each, depth - 1, values)
    return values


def _named_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Raises ValueError for a duplicate name, of which each reader might take another value."""
    named = dict(pairs)
    if len(named) < len(pairs):
        raise ValueError("a name stands twice")
    return named


def _finite(number: str) -> float:
    """Raises ValueError for a number such as 1e999, which Python reads as infinity and no JSON can answer with."""
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(number)
    return value


def _refuse(constant: str) -> object:
    raise ValueError(constant)
