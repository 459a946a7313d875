"""Drops connections whose answers are not read, and bounds the bytes that wait to be read; it does not know the answers.

What the peer's operating system receives counts as read: no server can see further than that.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections import Counter
from typing import Any

CHECKS = 10
"""Checks of an unread answer in the time after which its connection is dropped."""
MAX_UNSENT_BYTES = 256 * 2**20
"""Bytes of answers that wait in this process to be read; beyond them, the peer with the most loses its largest answer."""
MAX_KERNEL_BUFFER = 128 * 1024
"""Bytes of one connection that the system takes before it can send them: with few, it shows soon whether any are read."""


class SlowReaders:
    """The connections of one server whose answers wait for their readers."""

    def __init__(self, seconds: float, most: int = MAX_UNSENT_BYTES) -> None:
        """`seconds` for which nothing of an answer leaves before its connection is dropped."""
        self.seconds, self._most = seconds, most
        self._waiting: dict[ReaderState, int] = {}
        self._total = 0

    def reader(self, transport: Any, peer: str, loop: asyncio.AbstractEventLoop) -> "ReaderState":
        """The state of a new connection from `peer`, to be told when its flow stops and resumes."""
        limit_system_buffers(transport.get_extra_info("socket"), self.seconds)
        transport.set_write_buffer_limits(high=0)  # so that paused() is called as soon as a byte waits
        return ReaderState(self, transport, peer, loop)

    def waits(self, reader: "ReaderState", count: int) -> None:
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
    """How far the other end of a connection has received what is sent."""

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
        """End the connection, and discard what waits."""
        self.resumed()
        discard_unsent(self._transport.get_extra_info("socket"))
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
    """Have the system buffer little that it cannot send, and give up a peer that receives nothing, where it supports this."""
    options = {"TCP_USER_TIMEOUT": int(seconds * 1000), "TCP_NOTSENT_LOWAT": MAX_KERNEL_BUFFER}
    for name, value in options.items():
        if hasattr(socket, name):
            with contextlib.suppress(OSError):  # a socket of another kind, such as a Unix one
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def discard_unsent(connection: Any) -> None:
    """Have the system discard what it has not sent when `connection` is closed, instead of trying again and again."""
    at_once = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
