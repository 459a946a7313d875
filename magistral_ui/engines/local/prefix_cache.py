"""The prefix cache (KV cache reuse): finds the longest prefix that the same visitor's earlier turns left; counts bytes, evicts.

Visitors share nothing but the system prompt that all of them have. With more, a visitor could tell from the time to the first
token what another one had sent. This cache does not know what its keys mean.
"""

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from magistral_ui.engines.local.kv_cache import KVCache


@dataclass(eq=False, slots=True)
class CacheEntry:
    """What one sequence has read: `keys[i]` is the token at position i of `cache`, and len(keys) are valid."""

    cache: "KVCache"
    visitor: str | None
    """None: shared by all visitors."""
    keys: list[int] = field(default_factory=list)
    busy: bool = True
    used: int = 0
    spilled: bool = False
    _resting: int | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of its buffers, counted once while it is idle: whoever makes room asks all entries."""
        if self.busy:
            self._resting = None
            return self.cache.nbytes
        if self._resting is None:
            self._resting = self.cache.nbytes
        return self._resting

    def moved(self, spilled: bool) -> None:
        """Its buffers have been moved, and their size has changed."""
        self.spilled, self._resting = spilled, None

    def rollback(self) -> None:
        self.cache.crop(len(self.keys))


class PrefixCache:
    """Entries of all visitors within a budget of device bytes; idle ones that exceed it move to host memory, which has its own.

    Only the engine's thread takes and returns entries; `match` may be called from any.
    """

    def __init__(self, new_cache: "Callable[[], KVCache]", budget: int, spill_budget: int = 0) -> None:
        """`budget` is in bytes of all devices, `spill_budget` in bytes of host memory (0: idle entries are dropped)."""
        self._new_cache = new_cache
        self.budget, self._spill_budget = budget, spill_budget
        self._entries: list[CacheEntry] = []
        self._lock = threading.Lock()
        self._clock = itertools.count(1)
        self._forgotten: set[str] = set()

    def take(self, visitor: str, keys: Sequence[int]) -> CacheEntry:
        """An entry for a sequence with these `keys`, holding as much of their prefix as is cached, at most all but the last.

        It is the caller's until `give_back`. An entry is handed over and cropped if the new branch keeps most of it. It is copied
        instead if it is busy or shared, or if cropping would lose more tokens than the copy has: another branch of the
        conversation may come back to it.
        """
        keys = list(keys)
        self.shrink()
        with self._lock:
            self._forgotten.discard(visitor)
            best, length = self._best(visitor, keys)
            if best is not None:
                best.used = next(self._clock)
            if best is None or length == 0:
                entry = CacheEntry(self._new_cache(), visitor)
                self._entries.append(entry)
            elif best.busy or best.visitor is None or len(best.keys) - length > length:
                self._restore(best)
                entry = CacheEntry(best.cache.copy(length), visitor, best.keys[:length])
                self._entries.append(entry)
            else:
                entry = best
                self._restore(entry)
                entry.cache.crop(length)
                del entry.keys[length:]
            entry.busy, entry.used = True, next(self._clock)
        self.shrink()
        return entry

    def give_back(self, entry: CacheEntry) -> None:
        """Keep an entry whose sequence has ended for the next turn, as long as there is room."""
        with self._lock:
            entry.busy, entry.used = False, next(self._clock)
            if not entry.keys or entry.visitor in self._forgotten:
                self._entries.remove(entry)
        self.shrink()

    def forget(self, visitor: str) -> None:
        """Drop all entries of a visitor: idle ones now, busy ones when they are given back. Called from any thread."""
        with self._lock:
            if any(e.busy and e.visitor == visitor for e in self._entries):
                self._forgotten.add(visitor)
            self._entries = [e for e in self._entries if e.busy or e.visitor != visitor]

    def share(self, entry: CacheEntry, length: int) -> None:
        """Keep a copy of the first `length` tokens of `entry` for all visitors, unless there is one.

        A copy, since the entry belongs to a visitor and goes with them.
        """
        keys = entry.keys[:length]
        with self._lock:
            if length and not any(e.visitor is None and e.keys == keys for e in self._entries):
                shared = CacheEntry(entry.cache.copy(length), None, keys, busy=False, used=next(self._clock))
                self._entries.append(shared)

    def match(self, visitor: str, keys: Sequence[int]) -> int:
        """How many of `keys` a sequence would find in the cache."""
        with self._lock:
            return self._best(visitor, list(keys))[1]

    def shrink(self, budget: int | None = None) -> None:
        """Bring the bytes on the device down to `budget` (default: the cache's own) by spilling or dropping idle entries."""
        budget = self.budget if budget is None else budget
        with self._lock:
            for entry in self._surplus(spilled=False, budget=budget):
                self._spill(entry)

    @property
    def nbytes(self) -> int:
        with self._lock:
            return self._bytes(spilled=False)

    def __len__(self) -> int:
        return len(self._entries)

    def _bytes(self, spilled: bool) -> int:
        return sum(entry.nbytes for entry in self._entries if entry.spilled == spilled)

    def _surplus(self, spilled: bool, budget: int) -> list[CacheEntry]:
        """Idle entries in that memory, least recently used first, that have to go for the others to fit into `budget` bytes."""
        surplus: list[CacheEntry] = []
        excess = self._bytes(spilled) - budget
        if excess > 0:
            for entry in sorted(
                (e for e in self._entries if not e.busy and e.spilled == spilled), key=lambda e: e.used
            ):
                surplus.append(entry)
                excess -= entry.nbytes
                if excess <= 0:
                    break
        return surplus

    def _best(self, visitor: str, keys: list[int]) -> tuple[CacheEntry | None, int]:
        """The entry with the longest prefix of `keys`, and its length.

        Among equals a shared one is best, which is copied and leaves the visitor's conversations alone; then an idle one.
        """
        best, length = None, 0
        for entry in self._entries:
            if entry.visitor in (visitor, None):
                found = min(common_prefix(entry.keys, keys), len(keys) - 1)
                better = best is None or (
                    best.visitor is not None and (entry.visitor is None or (best.busy and not entry.busy))
                )
                if found > length or (found == length and found and better):
                    best, length = entry, found
        return best, length

    def _restore(self, entry: CacheEntry) -> None:
        if entry.spilled:
            entry.cache.restore()
            entry.moved(spilled=False)

    def _spill(self, entry: CacheEntry) -> None:
        try:
            if entry.nbytes > self._spill_budget:
                raise MemoryError
            entry.cache.spill()
        except (MemoryError, RuntimeError):  # no room in host memory either: the prompt is read again when it is needed
            self._entries.remove(entry)
            return
        for oldest in self._surplus(spilled=True, budget=self._spill_budget - entry.cache.nbytes):
            self._entries.remove(oldest)
        entry.moved(spilled=True)


def common_prefix(a: list[int], b: list[int]) -> int:
    """Length of the common prefix, by bisection on slices, which Python compares at C speed."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while low < high - 1:  # a[:low] == b[:low] and a[:high] != b[:high]
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
