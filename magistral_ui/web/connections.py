"""Watches the server's connections: no doubtful requests, none that come too slowly, and only so many of one address.

Two programs that disagree about where a request ends would take a part of one visitor's for another's (request smuggling,
RFC 9112 §11.2). h11 mends some of what is doubtful; here it ends the connection. Connections whose answers nobody reads are
slow_readers.py's business.
"""

import asyncio
import contextlib
import logging
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import h11
from h11._receivebuffer import ReceiveBuffer
from starlette.types import ASGIApp
from uvicorn import Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from magistral_ui.i18n.texts import text
from magistral_ui.sessions.token_buckets import TokenBuckets
from magistral_ui.web.exposure import plain_address
from magistral_ui.web.slow_readers import SlowReaders

HEAD_TIMEOUT = 15.0
"""Seconds from a connection's beginning, or from its last answer, to the whole head of a request."""
MAX_CONNECTIONS_PER_ADDRESS = 1_500
"""Connections of one address that is not a proxy's."""
MAX_OPEN_FILES = 65_536
REFUSAL_HEADERS = [
    ("Content-Type", "text/plain; charset=utf-8"),
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Cache-Control", "no-store"),
    ("Connection", "close"),
]
MAX_LOGGED_PER_MINUTE = 60
"""Lines in the log about requests that are no HTTP: a flood must not fill the disk."""
REQUEST_LINE = re.compile(rb"[A-Z]{1,20} [\x21-\x7e]+ HTTP/1\.[01]")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
LENGTH = re.compile(rb"[0-9]{1,18}")
CHUNK = re.compile(rb"[0-9A-Fa-f]{1,16}\r\n")


@dataclass(slots=True)
class ConnectionWatch:
    """The connections of one server."""

    is_proxy: Callable[[str], bool]
    """Whether an address may hold any number of connections, because they are its visitors'."""
    unread: SlowReaders
    held: Counter[str] = field(default_factory=Counter)
    """Connections by address."""


class WatchedProtocol(H11Protocol):
    """uvicorn's side of one connection: strict, slow heads and unread answers end it, and only so many are one address's."""

    def __init__(self, watch: ConnectionWatch, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        read_strictly(self.conn)
        self._watch = watch
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._peer = plain_address(str(self.client[0])) if self.client else ""
        self._watch.held[self._peer] += 1
        self._reader = self._watch.unread.reader(transport, self._peer, self.loop)
        if self._watch.held[self._peer] > MAX_CONNECTIONS_PER_ADDRESS and not self._watch.is_proxy(self._peer):
            transport.abort()
            return
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.held[self._peer] -= 1
        if self._watch.held[self._peer] <= 0:
            del self._watch.held[self._peer]
        self._stop_timer()
        self._reader.resumed()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader.paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reader.resumed()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # what exactly was wrong helps only an attacker
        if self.cycle is not None and not self.cycle.response_complete:  # nobody would read the rest of its answer
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        begun = self.conn.our_state is not h11.IDLE  # its method may be one whose answer has no body
        if not begun or (self.conn.our_state is h11.SEND_RESPONSE and self.scope["method"] != "HEAD"):
            told = text("error_program_not_http").encode()
            headers = [*REFUSAL_HEADERS, ("Content-Length", str(len(told)))]
            answer = h11.Response(status_code=400, headers=headers, reason="Bad Request")
            parts = (answer, h11.Data(data=told), h11.EndOfMessage())
            self.transport.write(b"".join(self.conn.send(part) or b"" for part in parts))
        self.transport.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait_for_head()

    def _wait_for_head(self) -> None:
        self._stop_timer()
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT, self._close_if_idle)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _close_if_idle(self) -> None:
        self._head_timer = None
        if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
            self.transport.abort()


def open_to_visitors(server: Server, app: ASGIApp, *, is_proxy: Callable[[str], bool], unread_seconds: int) -> None:
    """From now on, `server` serves `app` to every new connection, and watches it.

    A client that takes in nothing of an answer for `unread_seconds` is dropped.
    """
    log = logging.getLogger("uvicorn.error")
    if not any(isinstance(each, LogLimit) for each in log.filters):
        log.addFilter(LogLimit())
    watch = ConnectionWatch(is_proxy, SlowReaders(max(1.0, unread_seconds)))
    # In this order: no connection reaches `app` unwatched.
    server.config.http_protocol_class = partial(WatchedProtocol, watch)  # type: ignore[assignment]  # uvicorn only calls it
    server.config.loaded_app = app


class LogLimit(logging.Filter):
    """Lets through so many lines a minute of those that uvicorn writes for each request that is no HTTP."""

    def __init__(self) -> None:
        super().__init__()
        self._lines = TokenBuckets(MAX_LOGGED_PER_MINUTE)

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(("Invalid HTTP", "Unsupported upgrade")) or not self._lines.take("")


class StrictBuffer(ReceiveBuffer):
    """What has arrived on a connection. h11 takes the heads of requests, and of chunks, out of it by these methods alone."""

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
    """Make `connection`, which has read nothing yet, strict. TypeError where a newer h11 reads in another way."""
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
        field = FIELD.fullmatch(line)  # neither a lone CR or LF, nor a folded line, nor a blank before the colon
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


def allow_many_files() -> None:
    """Raise the limit of open files, of which each connection is one, as far as the system allows."""
    try:
        import resource
    except ImportError:  # Windows counts otherwise
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(MAX_OPEN_FILES, hard)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
