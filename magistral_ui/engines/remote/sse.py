"""Splits a stream of server-sent events (SSE) into payloads, however the network split it; it does not know what they mean.

It follows the standard (https://html.spec.whatwg.org/multipage/server-sent-events.html), and also accepts what some servers
send: events without a blank line between them, JSON outside any event, and llama.cpp's `error:` lines.
"""

import json
from collections.abc import Mapping
from typing import Any

from magistral_ui.errors import Message, Value

DONE = b"[DONE]"
MAX_PAYLOAD_BYTES = 4_000_000
"""Bytes of one line or one payload: enough for a whole answer in one payload."""
MAX_FOREIGN_BYTES = 100_000
"""Bytes outside any event, as in an HTML page, after which the rest is not read."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SSE_FIELDS = (b"data", b"event", b"error", b"id", b"retry")
END_EVENTS = (b"done", b"end")
"""Names of events after which nothing follows."""


class StreamBroken(Exception):
    """The rest of a stream cannot be read; `message` says why, and `body` is the error that a server sent."""

    def __init__(self, key: str, body: Any = None, **values: Value) -> None:
        self.message, self.body = Message(key, values), body if isinstance(body, dict) else {}
        super().__init__(self.message)


def parse_json(payload: bytes) -> Any:
    """The JSON in `payload`. Raises ValueError if it is not JSON; invalid UTF-8 becomes replacement characters."""
    try:
        return json.loads(payload.decode("utf-8", "replace"), strict=False)
    except RecursionError as error:
        raise ValueError("too deep") from error


def json_object(value: Any) -> Mapping[str, Any]:
    """`value` if it is a JSON object, otherwise an empty one."""
    return value if isinstance(value, dict) else {}


class LineReader:
    """Turns bytes into whole lines. A line ends with LF, CR or CRLF; CR and LF may arrive separately."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._past_start = False
        self._ended_with_cr = False
        """Whether the last line ended with CR, so that its LF may follow."""

    def __len__(self) -> int:
        return len(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        if not data:
            return []
        if self._ended_with_cr and data.startswith(b"\n"):
            data = data[1:]
        self._ended_with_cr = data.endswith(b"\r") if data else False
        *lines, rest = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if lines:
            lines[0], self._rest = bytes(self._rest) + lines[0], bytearray()
            lines[0] = self._without_bom(lines[0])
        self._rest += rest
        return lines

    def finish(self) -> bytes:
        line, self._rest = self._without_bom(bytes(self._rest)), bytearray()
        return line

    def _without_bom(self, line: bytes) -> bytes:
        begun, self._past_start = self._past_start, True
        return line if begun else line.removeprefix(BYTE_ORDER_MARK)


class PayloadReader:
    """Turns lines into payloads: the data of events, and JSON outside any event.

    A payload is returned as soon as it is complete, since not every server sends a blank line after it. The data of a named event
    is returned only if it may be useful: an error as `{"error": …}`, anything else if it is a JSON object.
    """

    def __init__(self) -> None:
        self._lines = LineReader()
        self._name = b""
        self._data: list[bytes] = []
        self._bare_json: list[bytes] = []
        """Lines of JSON outside any event, from its first line on."""
        self._size = 0
        self.foreign_bytes = 0
        """Bytes outside any event."""

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that are now complete. Raises StreamBroken if too much lies outside events."""
        if len(self._lines) + self._size > MAX_PAYLOAD_BYTES or self.foreign_bytes > MAX_FOREIGN_BYTES:
            raise StreamBroken("remote_malformed")
        return [payload for line in self._lines.feed(data) for payload in self._read(line)]

    def finish(self) -> list[bytes]:
        """The payloads left at the end; if the stream was cut, the last one is incomplete."""
        payloads = self._read(self._lines.finish())
        return [*payloads, *self._end_event(), *self._bare_json_payloads(final=True)]

    def _read(self, line: bytes) -> list[bytes]:
        if self._bare_json and not line.startswith(b"data:"):
            return self._feed_bare_json(line)
        if self._bare_json:  # it was not a JSON document after all
            return [*self._bare_json_payloads(final=True), *self._read(line)]
        line = line.strip()
        if not line:
            return self._end_event()
        if line.startswith((b"{", b"[")) and not self._data:
            return self._feed_bare_json(line)
        name, colon, value = line.partition(b":")
        if name == b"data":
            return self._feed_data(value.strip())
        if name == b"event":
            self._name = value.strip().lower()
        elif name == b"error" and colon:
            return [_error_payload(value.strip())]
        elif line[:1] != b":" and name not in SSE_FIELDS:
            self.foreign_bytes += len(line)
        return []

    def _feed_data(self, value: bytes) -> list[bytes]:
        while value.startswith(b"data:"):  # a gateway wrapped an event in an event
            value = value[5:].strip()
        if not self._data and _is_complete(value):  # complete JSON never continues on another line
            return self._payloads_of(value)
        self._data.append(value)
        self._size += len(value)
        return []

    def _end_event(self) -> list[bytes]:
        """The payloads of the event that ends here."""
        lines, self._data, self._size = self._data, [], 0
        data = b"\n".join(lines).strip()
        payloads = self._payloads_of(data) if _is_complete(data) or len(lines) < 2 else []
        if data and not payloads and len(lines) > 1:
            payloads = [payload for line in lines for payload in self._payloads_of(line)]
        if not data and self._name in END_EVENTS:
            payloads = [DONE]
        self._name = b""
        return payloads

    def _payloads_of(self, value: bytes) -> list[bytes]:
        """`value` if it may be useful. Malformed JSON is kept too: ignoring it would lose text."""
        if not value:
            return []
        if value.strip(b'"').upper() == DONE:
            return [DONE]
        if self._name.endswith(b"error"):
            return [_error_payload(value)]
        if self._name in END_EVENTS and not value.startswith(b"{"):
            return [DONE]
        if value.startswith(b"{") or (value.startswith(b"[") and not self._name):
            return [value]
        self.foreign_bytes += len(value)
        return []

    def _feed_bare_json(self, line: bytes) -> list[bytes]:
        self._bare_json.append(line)
        self._size += len(line)
        # Only where a document may end: trying at each line would be quadratic.
        return self._bare_json_payloads() if len(self._bare_json) == 1 or line[:1] in (b"}", b"]") else []

    def _bare_json_payloads(self, *, final: bool = False) -> list[bytes]:
        data = b"\n".join(self._bare_json).strip()
        if not data or not (final or _is_complete(data)):
            return []
        self._bare_json, self._size = [], 0
        try:
            value = parse_json(data)
        except ValueError:
            if data.upper() == DONE or data.startswith(b"{"):
                return [data.upper() if data.upper() == DONE else data]
            self.foreign_bytes += len(data)
            return []
        each_of = value if isinstance(value, list) else [value]
        return [json.dumps(each).encode() for each in each_of if isinstance(each, dict)]


def _is_complete(value: bytes) -> bool:
    if value.upper() == DONE:
        return True
    if not value.startswith((b"{", b"[")) or not value.endswith((b"}", b"]")):
        return False
    try:
        parse_json(value)
    except ValueError:
        return False
    return True


def _error_payload(value: bytes) -> bytes:
    """The content of an `error:` line or event, in the shape of an error in a payload."""
    try:
        error = parse_json(value)
    except ValueError:
        error = value.decode("utf-8", "replace")
    if isinstance(error, dict) and error.get("error"):
        return json.dumps(error).encode()
    return json.dumps({"error": error}).encode()
