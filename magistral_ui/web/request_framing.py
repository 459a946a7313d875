"""Makes h11 refuse every request whose end two programs could see at different places; it does not know what is asked.

A proxy and this server that disagree about where a request ends would take a part of one visitor's for another's (request
smuggling, RFC 9112 §11.2). h11 mends some of what is doubtful; here it ends the connection.
"""

import re
from typing import Any

import h11
from h11._receivebuffer import ReceiveBuffer

REQUEST_LINE = re.compile(rb"[A-Z]{1,20} [\x21-\x7e]+ HTTP/1\.[01]")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
LENGTH = re.compile(rb"[0-9]{1,18}")
CHUNK = re.compile(rb"[0-9A-Fa-f]{1,16}\r\n")


class StrictBuffer(ReceiveBuffer):
    """What has come of a connection. h11 takes the heads of requests, and of chunks, out of it by these methods alone."""

    def __init__(self) -> None:
        super().__init__()
        self._taken: bytes | bytearray = b""
        self._in_chunks = False

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """A request's head, or what follows its last chunk. LocalProtocolError where it is doubtful."""
        if (lines := super().maybe_extract_lines()) is None:
            return None
        if self._in_chunks and lines:
            raise h11.LocalProtocolError("fields after the body")
        if lines:
            check_head(bytes(self._taken))
        self._in_chunks = False
        return lines

    def maybe_extract_next_line(self) -> bytearray | None:
        """A chunk's head: its length and nothing else."""
        line = super().maybe_extract_next_line()
        if line is None:
            return None
        if not CHUNK.fullmatch(line):
            raise h11.LocalProtocolError("more than a length before a chunk")
        self._in_chunks = True
        return line

    def _extract(self, count: int) -> bytearray:
        self._taken = super()._extract(count)
        return self._taken


def read_strictly(connection: Any) -> None:
    """From now on, `connection`, which has read nothing yet, is strict. TypeError where a newer h11 reads in another way."""
    if not isinstance(connection._receive_buffer, ReceiveBuffer):
        raise TypeError(connection)
    connection._receive_buffer = StrictBuffer()


def check_head(head: bytes) -> None:
    """LocalProtocolError for anything in a request's head that programs read differently."""
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    if not head.endswith(b"\r\n\r\n") or not REQUEST_LINE.fullmatch(first):
        raise h11.LocalProtocolError("no plain request line")
    lengths, codings = [], []
    for line in lines:
        field = FIELD.fullmatch(line)  # neither a lone CR or LF, nor a line that goes on, nor a blank before the colon
        if field is None:
            raise h11.LocalProtocolError("no plain header")
        name, value = field[1].lower(), field[2].strip(b" \t")
        if name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value.lower())
    if len(lengths) + len(codings) > 1:
        raise h11.LocalProtocolError("two ends of the body")
    if lengths and not LENGTH.fullmatch(lengths[0]):
        raise h11.LocalProtocolError("no plain length")
    if codings and (codings[0] != b"chunked" or first.endswith(b"1.0")):
        raise h11.LocalProtocolError("no plain coding")
