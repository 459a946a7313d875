"""Closes connections that ask for nothing, or too slowly to be somebody's, and bounds how many one address may hold.

Those whose answers are not read are slow_readers.py's.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import h11
from uvicorn import Server

from magistral_ui.i18n.texts import text
from magistral_ui.sessions.token_buckets import TokenBuckets
from magistral_ui.web.client_address import PEER_KEY
from magistral_ui.web.request_framing import read_strictly
from magistral_ui.web.slow_readers import SlowReaders

HEAD_TIMEOUT = 15.0
"""Seconds from a connection's beginning, or from its last answer, to the whole head of a request."""
MAX_CONNECTIONS_PER_ADDRESS = 1_500
"""Connections of one address that is no proxy's."""
MAX_OPEN_FILES = 65_536
REFUSAL_HEADERS = [
    ("Content-Type", "text/plain; charset=utf-8"),
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Cache-Control", "no-store"),
    ("Connection", "close"),
]
REFUSALS_PER_MINUTE = 60
"""Lines about them in the log."""


def watch_connections(server: Server, *, is_proxy: Callable[[str], bool], unread_seconds: int) -> None:
    """From now on, every new connection of `server` is watched; it names its peer to forwarding.py. Only a proxy may hold any
    number of them, which are everybody's.

    Who takes in nothing of an answer for `unread_seconds` is dropped.
    """
    base: Any = server.config.http_protocol_class
    held: Counter[str] = Counter()
    unread = SlowReaders(max(1.0, unread_seconds))

    class Watched(base):  # type: ignore[misc]  # uvicorn chooses its base when it starts
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            read_strictly(self.conn)

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._peer = plain(str(self.client[0])) if self.client else ""
            held[self._peer] += 1
            self._reader = unread.reader(transport, self._peer, self.loop)
            self.app: Any = _named(self.app, self.client)
            self._asked: asyncio.TimerHandle | None = None
            if held[self._peer] > MAX_CONNECTIONS_PER_ADDRESS and not is_proxy(self._peer):
                transport.abort()
                return
            self._wait()

        def connection_lost(self, error: Exception | None) -> None:
            held[self._peer] -= 1
            if held[self._peer] <= 0:
                del held[self._peer]
            self._rest()
            self._reader.resumed()
            super().connection_lost(error)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._reader.paused()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._reader.resumed()

        def send_400_response(self, *_: str) -> None:
            if self.cycle is not None and not self.cycle.response_complete:  # nobody reads what it would still say
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            begun = self.conn.our_state is not h11.IDLE  # its method may be one whose answer has no body
            if not begun or (self.conn.our_state is h11.SEND_RESPONSE and self.scope["method"] != "HEAD"):
                told = text("error_program_not_http").encode()
                headers = [*REFUSAL_HEADERS, ("Content-Length", str(len(told)))]
                answer = h11.Response(status_code=400, headers=headers, reason="Bad Request")
                self.transport.write(b"".join(map(self.conn.send, (answer, h11.Data(data=told), h11.EndOfMessage()))))
            self.transport.close()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._wait()

        def _wait(self) -> None:
            self._rest()
            self._asked = self.loop.call_later(HEAD_TIMEOUT, self._look)

        def _rest(self) -> None:
            if self._asked is not None:
                self._asked.cancel()
                self._asked = None

        def _look(self) -> None:
            self._asked = None
            cycle = getattr(self, "cycle", None)
            if (cycle is None or cycle.response_complete) and not self.transport.is_closing():
                self.transport.abort()

    log = logging.getLogger("uvicorn.error")
    if not any(isinstance(each, Seldom) for each in log.filters):
        log.addFilter(Seldom())
    server.config.http_protocol_class = Watched


class Seldom(logging.Filter):
    """Lets through so many lines a minute of those that uvicorn writes for each request that is none."""

    def __init__(self) -> None:
        super().__init__()
        self._lines = TokenBuckets(REFUSALS_PER_MINUTE)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether `record` is written."""
        return not record.getMessage().startswith(("Invalid HTTP", "Unsupported upgrade")) or not self._lines.take("")


def _named(app: Any, client: Any) -> Any:
    """`app`, which is told the connection's own peer before anything else may rename it."""

    async def called(scope: Any, receive: Any, send: Any) -> None:
        scope[PEER_KEY] = client and (plain(str(client[0])), client[1])
        await app(scope, receive, send)

    return called


def plain(address: str) -> str:
    """`address` without what is before it where IPv4 reaches a socket of both kinds."""
    return address.removeprefix("::ffff:") if "." in address else address


def allow_many_files() -> None:
    """Each connection is an open file; take as many as the system gives."""
    try:
        import resource
    except ImportError:  # Windows counts otherwise
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(MAX_OPEN_FILES, hard)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
