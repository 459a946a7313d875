"""The replies that wait for a slot, in their order, and what they are told about it; who comes in is decided elsewhere."""

import threading
import weakref
from collections import deque

from magistral_ui.engines.gguf.reply import GGUFReply
from magistral_ui.errors import NotReady


class ReplyQueue:
    """Any thread may append; only the engine's thread removes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[GGUFReply] = deque()
        self._live: weakref.WeakSet[GGUFReply] = weakref.WeakSet()
        """All that were appended, also those that run by now."""
        self.closed = False

    def append(self, reply: GGUFReply) -> None:
        """Let `reply` wait for its turn; raises NotReady once the queue is closed."""
        with self._lock:
            if self.closed:
                raise NotReady
            self._waiting.append(reply)
            self._live.add(reply)

    def put_back(self, reply: GGUFReply) -> None:
        """Let `reply`, which had a slot, come first."""
        with self._lock:
            self._waiting.appendleft(reply)

    def remove(self, reply: GGUFReply) -> None:
        with self._lock:
            self._waiting.remove(reply)

    def waiting(self) -> tuple[GGUFReply, ...]:
        with self._lock:
            return tuple(self._waiting)

    def take_stopped(self) -> list[GGUFReply]:
        """Those that somebody stopped; they wait no longer."""
        with self._lock:
            stopped = [reply for reply in self._waiting if reply.stopped]
            for reply in stopped:
                self._waiting.remove(reply)
        return stopped

    def take_all(self) -> list[GGUFReply]:
        """All that wait; they do so no longer."""
        with self._lock:
            left = list(self._waiting)
            self._waiting.clear()
        return left

    def close(self) -> None:
        with self._lock:
            self.closed = True

    def live_of(self, visitor: str) -> list[GGUFReply]:
        """A visitor's replies that have not ended."""
        with self._lock:
            return [reply for reply in self._live if reply.visitor == visitor and not reply.sequence.generation.ended]

    def tell_positions(self) -> None:
        for position, reply in enumerate(self.waiting(), 1):
            reply.sequence.tell_position(position)
