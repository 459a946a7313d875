"""Drops connections whose answers are not read, whatever the answers are, and bounds what waits to be read; knows no requests.

What a peer's own system takes in counts as read: no server can see further than that.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections import Counter
from typing import Any

CHECKS = 10
"""Looks at an answer that waits, in the time after which its connection is dropped."""
MAX_UNSENT_BYTES = 256 * 2**20
"""Bytes of answers that wait in this process to be read; past them, whoever has the most waiting loses the largest."""
MAX_KERNEL_BUFFER = 128 * 1024
"""Of one connection, those that the system takes before it can send them: with few, it is seen soon whether any are read."""


class SlowReaders:
    """The connections of one server whose answers wait for their readers."""

    def __init__(self, seconds: float, most: int = MAX_UNSENT_BYTES) -> None:
        """`seconds` for which nothing of an answer leaves before its connection is dropped."""
        self.seconds, self._most = seconds, most
        self._waiting: dict[ReaderState, int] = {}
        self._total = 0

    def reader(self, transport: Any, peer: str, loop: asyncio.AbstractEventLoop) -> "ReaderState":
        """What is to be told of the flow of one new connection from `peer`."""
        limit_system_buffers(transport.get_extra_info("socket"), self.seconds)
        transport.set_write_buffer_limits(high=0)  # to be told of every byte that waits
        return ReaderState(self, transport, peer, loop)

    def waits(self, reader: "ReaderState", count: int) -> None:
        """So many bytes wait for `reader` now."""
        self._total += count - self._waiting.pop(reader, 0)
        if count:
            self._waiting[reader] = count
        while self._total > self._most:
            self._largest().drop()

    def _largest(self) -> "ReaderState":
        by_peer: Counter[str] = Counter()
        for reader, count in self._waiting.items():
            by_peer[reader.peer] += count
        ((peer, _),) = by_peer.most_common(1)
        return max((each for each in self._waiting if each.peer == peer), key=self._waiting.__getitem__)


class ReaderState:
    """One connection's other end, as far as it takes in what is sent."""

    def __init__(self, answers: SlowReaders, transport: Any, peer: str, loop: asyncio.AbstractEventLoop) -> None:
        self.peer = peer
        self._answers, self._transport, self._loop = answers, transport, loop
        self._next: asyncio.TimerHandle | None = None
        self._left, self._moved = 0, 0.0

    def paused(self) -> None:
        """Bytes wait from now on."""
        self._left, self._moved = self._transport.get_write_buffer_size(), self._loop.time()
        self._again()

    def resumed(self) -> None:
        """No bytes wait any more; also where the connection is lost."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._answers.waits(self, 0)

    def drop(self) -> None:
        """End the connection, and forget what waits."""
        self.resumed()
        discard_unsent(self._transport.get_extra_info("socket"))
        self._transport.abort()

    def _again(self) -> None:
        self._next = self._loop.call_later(self._answers.seconds / CHECKS, self._look)
        self._answers.waits(self, self._left)

    def _look(self) -> None:
        left, now = self._transport.get_write_buffer_size(), self._loop.time()
        if left < self._left:
            self._moved = now
        self._left = left
        if now - self._moved >= self._answers.seconds:
            self.drop()
        else:
            self._again()


def limit_system_buffers(connection: Any, seconds: float) -> None:
    """Have the system hold little that cannot be sent, and give up a peer that takes in nothing, where it knows how."""
    options = {"TCP_USER_TIMEOUT": int(seconds * 1000), "TCP_NOTSENT_LOWAT": MAX_KERNEL_BUFFER}
    for name, value in options.items():
        if hasattr(socket, name):
            with contextlib.suppress(OSError):  # a socket of another kind, such as a Unix one
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def discard_unsent(connection: Any) -> None:
    """Have the system forget what it has not sent when `connection` is closed, in place of trying on by itself."""
    at_once = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
