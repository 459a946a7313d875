"""What the page wants of a reply that another process writes, in memory that both share; it does not know what is written.

The memory is made before any process is forked, so that each sees it; single bytes need no lock.
"""

import mmap
import struct
import threading

STOP, ANSWER = 4, 5
"""Where in a place the wishes stand, behind the number of the slice that it belongs to."""
SIZE = 8


class SharedFlags:
    """`places` of wishes; each belongs to one slice of one reply at a time."""

    def __init__(self, places: int) -> None:
        self._memory = mmap.mmap(-1, places * SIZE)
        self._free = list(range(places))
        self._ticket = 0
        self._lock = threading.Lock()

    def take(self) -> tuple[int, int]:
        """A place of one's own, and the ticket that shows it; RuntimeError where all are taken."""
        with self._lock:
            if not self._free:
                raise RuntimeError("more replies than places")
            place = self._free.pop()
            self._ticket = self._ticket % (2**32 - 1) + 1
            struct.pack_into("<IBB", self._memory, place * SIZE, self._ticket, 0, 0)
            return place, self._ticket

    def give_back(self, place: int) -> None:
        """Nobody's again: whoever still writes for it stops."""
        with self._lock:
            struct.pack_into("<IBB", self._memory, place * SIZE, 0, 0, 0)
            self._free.append(place)

    def stop(self, place: int) -> None:
        """The reply shall end."""
        self._memory[place * SIZE + STOP] = 1

    def answer(self, place: int) -> None:
        """The reasoning shall end."""
        self._memory[place * SIZE + ANSWER] = 1

    def read(self, place: int, ticket: int) -> tuple[bool, bool]:
        """Whether the reply shall end, and whether its reasoning shall; a foreign ticket ends it."""
        found, stop, answer = struct.unpack_from("<IBB", self._memory, place * SIZE)
        return bool(stop) or found != ticket, bool(answer)
