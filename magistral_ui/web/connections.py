"""Guards the server's connections: strict parsing of requests, timeouts for slow ones, and a limit for each address.

Two programs that disagree about where a request ends could take part of one visitor's request for another's (request smuggling,
RFC 9112 §11.2). h11 accepts some ambiguous requests; here, they end the connection. A connection whose response is not read is
dropped, too; what the peer's operating system receives counts as read, since a server cannot see further than that.
"""

import asyncio
import contextlib
import logging
import os
import re
import socket
import struct
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

from magistral_ui.fairness import TokenBuckets
from magistral_ui.i18n.texts import text
from magistral_ui.web.exposure import plain_address

HEAD_TIMEOUT = 15.0
"""Seconds from the start of a connection, or from its last response, to the complete head of a request."""
MAX_CONNECTIONS_PER_ADDRESS = 1_500
"""Connections of one address that is not a proxy's."""
CHECKS = 10
"""How often an unread response is checked before its connection is dropped."""
MAX_UNSENT_BYTES = 256 * 2**20
"""Bytes of responses that wait in this process to be read; beyond them, the peer with the most loses its largest response."""
MAX_KERNEL_BUFFER = 128 * 1024
"""Bytes of one connection that the system buffers: with few, it soon becomes clear whether the peer reads any."""
REFUSAL_HEADERS = [
    ("Content-Type", "text/plain; charset=utf-8"),
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Cache-Control", "no-store"),
    ("Connection", "close"),
]
MAX_LOGGED_PER_MINUTE = 60
"""Log lines about requests that are not HTTP: a flood must not fill the disk."""
REQUEST_LINE = re.compile(rb"[A-Z]{1,20} [\x21-\x7e]+ HTTP/1\.[01]")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
LENGTH = re.compile(rb"[0-9]{1,18}")
CHUNK = re.compile(rb"[0-9A-Fa-f]{1,16}\r\n")


class SlowReaders:
    """The connections of one server whose responses wait to be read."""

    def __init__(self, seconds: float, max_unsent: int = MAX_UNSENT_BYTES) -> None:
        """`seconds` without progress of a response after which its connection is dropped."""
        self.seconds, self._max_unsent = seconds, max_unsent
        self._waiting: dict[ReaderState, int] = {}
        self._total = 0

    def reader(self, transport: Any, peer: str, loop: asyncio.AbstractEventLoop) -> "ReaderState":
        """The state of a new connection from `peer`, which must be told when its flow pauses and resumes."""
        limit_system_buffers(transport.get_extra_info("socket"), self.seconds)
        transport.set_write_buffer_limits(high=0)  # so that paused() is called as soon as a byte waits
        return ReaderState(self, transport, peer, loop)

    def waits(self, reader: "ReaderState", count: int) -> None:
        self._total += count - self._waiting.pop(reader, 0)
        if count:
            self._waiting[reader] = count
        while self._total > self._max_unsent:
            self._largest().drop()

    def _largest(self) -> "ReaderState":
        by_peer: Counter[str] = Counter()
        for reader, count in self._waiting.items():
            by_peer[reader.peer] += count
        ((peer, _),) = by_peer.most_common(1)
        return max((each for each in self._waiting if each.peer == peer), key=self._waiting.__getitem__)


class ReaderState:
    """How much of a response the peer of a connection has received."""

    def __init__(self, answers: SlowReaders, transport: Any, peer: str, loop: asyncio.AbstractEventLoop) -> None:
        self.peer = peer
        self._answers, self._transport, self._loop = answers, transport, loop
        self._timer: asyncio.TimerHandle | None = None
        self._left, self._progress_at = 0, 0.0

    def paused(self) -> None:
        self._left, self._progress_at = self._transport.get_write_buffer_size(), self._loop.time()
        self._schedule_check()

    def resumed(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._answers.waits(self, 0)

    def drop(self) -> None:
        """End the connection; the system discards what it has not sent, too, instead of retransmitting it."""
        self.resumed()
        immediately = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
        with contextlib.suppress(OSError):
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, immediately)
        self._transport.abort()

    def _schedule_check(self) -> None:
        self._timer = self._loop.call_later(self._answers.seconds / CHECKS, self._check)
        self._answers.waits(self, self._left)

    def _check(self) -> None:
        left, now = self._transport.get_write_buffer_size(), self._loop.time()
        if left < self._left:
            self._progress_at = now
        self._left = left
        if now - self._progress_at >= self._answers.seconds:
            self.drop()
        else:
            self._schedule_check()


def limit_system_buffers(connection: Any, seconds: float) -> None:
    """Make the system buffer little unsent data and give up a peer that receives nothing, if it supports this."""
    for name, value in (("TCP_USER_TIMEOUT", int(seconds * 1000)), ("TCP_NOTSENT_LOWAT", MAX_KERNEL_BUFFER)):
        if hasattr(socket, name):
            with contextlib.suppress(OSError):  # a socket of another kind, such as a Unix one
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


@dataclass(slots=True)
class ConnectionWatch:
    """The connections of one server."""

    is_proxy: Callable[[str], bool]
    """Whether an address is a proxy's, which may hold any number of connections."""
    unread: SlowReaders
    held: Counter[str] = field(default_factory=Counter)


class WatchedProtocol(H11Protocol):
    """uvicorn's side of one connection, with strict parsing, timeouts for heads and unread responses, and a limit per address."""

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
        if self.cycle is not None and not self.cycle.response_complete:  # nobody would read the rest of its response
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        begun = self.conn.our_state is not h11.IDLE  # the response to its method may have no body
        if not begun or (self.conn.our_state is h11.SEND_RESPONSE and self.scope["method"] != "HEAD"):
            body = text("error_program_not_http").encode()
            headers = [*REFUSAL_HEADERS, ("Content-Length", str(len(body)))]
            answer = h11.Response(status_code=400, headers=headers, reason="Bad Request")
            parts = (answer, h11.Data(data=body), h11.EndOfMessage())
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
    """Serve `app` to every new connection, watch it, and drop a client that reads nothing for `unread_seconds`."""
    log = logging.getLogger("uvicorn.error")
    if not any(isinstance(each, LogLimit) for each in log.filters):
        log.addFilter(LogLimit())
    watch = ConnectionWatch(is_proxy, SlowReaders(max(1.0, unread_seconds)))
    # In this order, so that no connection reaches `app` unwatched.
    server.config.http_protocol_class = partial(WatchedProtocol, watch)  # type: ignore[assignment]  # uvicorn only calls it
    server.config.loaded_app = app


class LogLimit(logging.Filter):
    """Limits the log lines that uvicorn writes for requests that are not HTTP."""

    def __init__(self) -> None:
        super().__init__()
        self._lines = TokenBuckets(MAX_LOGGED_PER_MINUTE)

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(("Invalid HTTP", "Unsupported upgrade")) or not self._lines.take("")


class StrictBuffer(ReceiveBuffer):
    """The received data of a connection. h11 reads the heads of requests and chunks only with these methods."""

    def __init__(self) -> None:
        super().__init__()
        self._taken: bytes | bytearray = b""
        self._in_chunks = False

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """A request's head, or what follows its last chunk. Raises LocalProtocolError if it is ambiguous."""
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
    """Make `connection`, which has read nothing yet, strict. Raises TypeError if a newer h11 works differently."""
    if not isinstance(connection._receive_buffer, ReceiveBuffer):
        raise TypeError(connection)
    connection._receive_buffer = StrictBuffer()


def check_head(head: bytes) -> None:
    """Raises LocalProtocolError for anything in a request's head that programs interpret differently."""
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
