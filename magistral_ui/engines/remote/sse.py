"""Splits a stream of server-sent events into payloads, wherever the network split it; it does not know what they mean.

It follows the standard (https://html.spec.whatwg.org/multipage/server-sent-events.html), and also accepts what servers send
besides: events without a blank line between them, JSON outside any event, and llama.cpp's `error:` lines.
"""

import json
from collections.abc import Mapping
from typing import Any

from magistral_ui.errors import Message, Value

DONE = b"[DONE]"
MAX_PAYLOAD_BYTES = 4_000_000
"""Bytes of one line or one payload: a whole answer in one payload fits; anything longer is not a chat."""
MAX_FOREIGN_BYTES = 100_000
"""Bytes outside any event, as in a page of HTML, after which the rest is not read."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SSE_FIELDS = (b"data", b"event", b"error", b"id", b"retry")
END_EVENTS = (b"done", b"end")
"""Names of events after which nothing follows."""


class StreamBroken(Exception):
    """The rest of a stream cannot be read; `message` says why, and `body` is the error that a server sent."""

    def __init__(self, key: str, body: Any = None, **values: Value) -> None:
        self.message, self.body = Message(key, values), body if isinstance(body, dict) else {}
        super().__init__(self.message)


def parsed(payload: bytes) -> Any:
    """The JSON in `payload`; ValueError where it is not JSON. Invalid UTF-8 becomes replacement characters."""
    try:
        return json.loads(payload.decode("utf-8", "replace"), strict=False)
    except RecursionError as error:
        raise ValueError("too deep") from error


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` where it is a JSON object, or else an empty one."""
    return value if isinstance(value, dict) else {}


class LineReader:
    """Bytes in, whole lines out. A line ends with LF, CR or CRLF; CR and LF may arrive separately."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._begun = False
        self._returned = False
        """Whether the last line ended with CR, so that its LF may follow."""

    def __len__(self) -> int:
        return len(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        if not data:
            return []
        if self._returned and data.startswith(b"\n"):
            data = data[1:]
        self._returned = data.endswith(b"\r") if data else False
        *lines, rest = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if lines:
            lines[0], self._rest = bytes(self._rest) + lines[0], bytearray()
            lines[0] = self._unmarked(lines[0])
        self._rest += rest
        return lines

    def finish(self) -> bytes:
        line, self._rest = self._unmarked(bytes(self._rest)), bytearray()
        return line

    def _unmarked(self, line: bytes) -> bytes:
        begun, self._begun = self._begun, True
        return line if begun else line.removeprefix(BYTE_ORDER_MARK)


class PayloadReader:
    """Lines in, payloads out: the data of events, and JSON outside any event.

    A payload is returned as soon as it is complete, since not every server sends a blank line after it. The data of a named event
    is returned only where it may be useful: an error as `{"error": …}`, anything else if it is a JSON object.
    """

    def __init__(self) -> None:
        self._lines = LineReader()
        self._name = b""
        self._data: list[bytes] = []
        self._bare: list[bytes] = []
        """Lines of JSON outside any event, from its first line on."""
        self._size = 0
        self.strange = 0
        """Bytes outside any event."""

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that are now complete; StreamBroken where too much is not an event."""
        if len(self._lines) + self._size > MAX_PAYLOAD_BYTES or self.strange > MAX_FOREIGN_BYTES:
            raise StreamBroken("remote_malformed")
        return [payload for line in self._lines.feed(data) for payload in self._read(line)]

    def finish(self) -> list[bytes]:
        """What is left at the end; where the stream was cut, the last payload is incomplete."""
        payloads = self._read(self._lines.finish())
        return [*payloads, *self._dispatched(), *self._bare_payloads(final=True)]

    def _read(self, line: bytes) -> list[bytes]:
        if self._bare and not line.startswith(b"data:"):
            return self._in_bare(line)
        if self._bare:  # it was not a document after all
            return [*self._bare_payloads(final=True), *self._read(line)]
        line = line.strip()
        if not line:
            return self._dispatched()
        if line.startswith((b"{", b"[")) and not self._data:
            return self._in_bare(line)
        name, colon, value = line.partition(b":")
        if name == b"data":
            return self._in_event(value.strip())
        if name == b"event":
            self._name = value.strip().lower()
        elif name == b"error" and colon:
            return [_as_error(value.strip())]
        elif line[:1] != b":" and name not in SSE_FIELDS:
            self.strange += len(line)
        return []

    def _in_event(self, value: bytes) -> list[bytes]:
        while value.startswith(b"data:"):  # a gateway wrapped an event in an event
            value = value[5:].strip()
        if not self._data and _is_whole(value):  # complete JSON never continues on another line
            return self._given(value)
        self._data.append(value)
        self._size += len(value)
        return []

    def _dispatched(self) -> list[bytes]:
        """The payloads of the event that ends here."""
        lines, self._data, self._size = self._data, [], 0
        whole = b"\n".join(lines).strip()
        payloads = self._given(whole) if _is_whole(whole) or len(lines) < 2 else []
        if whole and not payloads and len(lines) > 1:
            payloads = [payload for line in lines for payload in self._given(line)]
        if not whole and self._name in END_EVENTS:
            payloads = [DONE]
        self._name = b""
        return payloads

    def _given(self, value: bytes) -> list[bytes]:
        """`value` where it may be useful. Broken JSON is: ignoring it would lose text."""
        if not value:
            return []
        if value.strip(b'"').upper() == DONE:
            return [DONE]
        if self._name.endswith(b"error"):
            return [_as_error(value)]
        if self._name in END_EVENTS and not value.startswith(b"{"):
            return [DONE]
        if value.startswith(b"{") or (value.startswith(b"[") and not self._name):
            return [value]
        self.strange += len(value)
        return []

    def _in_bare(self, line: bytes) -> list[bytes]:
        self._bare.append(line)
        self._size += len(line)
        # Only where a document may end: trying at each line would be quadratic.
        return self._bare_payloads() if len(self._bare) == 1 or line[:1] in (b"}", b"]") else []

    def _bare_payloads(self, *, final: bool = False) -> list[bytes]:
        whole = b"\n".join(self._bare).strip()
        if not whole or not (final or _is_whole(whole)):
            return []
        self._bare, self._size = [], 0
        try:
            value = parsed(whole)
        except ValueError:
            if whole.upper() == DONE or whole.startswith(b"{"):
                return [whole.upper() if whole.upper() == DONE else whole]
            self.strange += len(whole)
            return []
        each_of = value if isinstance(value, list) else [value]
        return [json.dumps(each).encode() for each in each_of if isinstance(each, dict)]


def _is_whole(value: bytes) -> bool:
    if value.upper() == DONE:
        return True
    if not value.startswith((b"{", b"[")) or not value.endswith((b"}", b"]")):
        return False
    try:
        parsed(value)
    except ValueError:
        return False
    return True


def _as_error(value: bytes) -> bytes:
    """The content of an `error:` line or event, in the shape of an error in a payload."""
    try:
        error = parsed(value)
    except ValueError:
        error = value.decode("utf-8", "replace")
    if isinstance(error, dict) and error.get("error"):
        return json.dumps(error).encode()
    return json.dumps({"error": error}).encode()
