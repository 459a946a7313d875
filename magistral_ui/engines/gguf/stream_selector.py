"""Waits for many streams at once, and for being woken by other threads; it does not know what the streams are for."""

import selectors
import socket
from contextlib import suppress
from typing import Generic, TypeVar

from magistral_ui.engines.gguf.completion import CompletionStream

T = TypeVar("T")


class StreamSelector(Generic[T]):
    """Streams, each with whom it is for. Only `wake` may be called from other threads."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        for each in (self._woken, self._waker):
            each.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def wake(self) -> None:
        """Let `wait` return now."""
        with suppress(OSError):  # full: it is awake; or closed
            self._waker.send(b".")

    def wait(self) -> list[T]:
        """Those whose streams can be read or sent on, once there are any; none if it was woken."""
        ready = [key for key, _ in self._selector.select()]
        if any(key.fileobj is self._woken for key in ready):
            with suppress(BlockingIOError):
                self._woken.recv(4096)
        return [key.data for key in ready if key.fileobj is not self._woken]

    def watch(self, stream: CompletionStream, whose: T) -> None:
        """Wait for the stream from now on: to send while a part of its request is unsent, then to read."""
        wanted = selectors.EVENT_WRITE if stream.sending else selectors.EVENT_READ
        if stream in self._selector.get_map():
            self._selector.modify(stream, wanted, whose)
        else:
            self._selector.register(stream, wanted, whose)

    def forget(self, stream: CompletionStream) -> None:
        """Wait for the stream no longer."""
        with suppress(KeyError, ValueError):
            self._selector.unregister(stream)

    def watched(self) -> list[T]:
        """All whose streams are waited for."""
        return [key.data for key in self._selector.get_map().values() if key.fileobj is not self._woken]

    def close(self) -> None:
        self._selector.close()
        self._woken.close()
        self._waker.close()
