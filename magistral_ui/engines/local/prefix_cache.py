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
    from magistral_ui.engines.local.kv_cache import KVCache, PagePool


@dataclass(eq=False, slots=True)
class CacheEntry:
    """What one sequence has read: `keys[i]` is the token at position i of `cache`, and len(keys) are valid."""

    cache: "KVCache"
    visitor: str | None
    """None: shared by all visitors."""
    keys: list[int] = field(default_factory=list)
    busy: bool = True
    used: int = 0

    @property
    def spilled(self) -> bool:
        return self.cache.spilled

    @property
    def pages(self) -> int:
        """Pages that it holds, shared or not."""
        return len(self.cache.pages)

    def rollback(self) -> None:
        self.cache.crop(len(self.keys))


class PrefixCache:
    """Entries of all visitors in one pool of pages; idle ones make room by moving to host memory, which has its own budget.

    Entries that begin alike share pages, so a branch or the common system prompt takes room once. Only the engine's thread takes
    and returns entries; `match` and `forget` may be called from any.
    """

    def __init__(self, pool: "PagePool", budget: int | None = None, spill_budget: int = 0) -> None:
        """`budget` is in bytes of the devices, the whole pool by default; `spill_budget` in bytes of host memory (0: idle entries
        are dropped)."""
        self._pool = pool
        self.budget = pool.pages * pool.page_bytes if budget is None else budget
        self._spill_budget = spill_budget
        self._entries: list[CacheEntry] = []
        self._lock = threading.Lock()
        self._clock = itertools.count(1)
        self._forgotten: set[str] = set()

    def take(self, visitor: str, keys: Sequence[int]) -> CacheEntry:
        """An entry for a sequence with these `keys`, holding as much of their prefix as is cached, at most all but the last.

        It is the caller's until `give_back`. An entry is handed over and cropped if the new branch keeps most of it. Otherwise
        the new entry shares its pages: if it is busy or shared, or if cropping would lose more tokens than the branch has,
        since another branch of the conversation may come back to it.
        """
        keys = list(keys)
        with self._lock:
            self._forgotten.discard(visitor)
            best, length = self._best(visitor, keys)
            if best is None or not self._restore(best, length):
                entry = CacheEntry(self._pool.new_cache(), visitor)
                self._entries.append(entry)
            elif best.busy or best.visitor is None or len(best.keys) - length > length:
                best.used = next(self._clock)
                entry = CacheEntry(best.cache.branch(length), visitor, best.keys[:length])
                self._entries.append(entry)
            else:
                entry = best
                entry.cache.crop(length)
                del entry.keys[length:]
            entry.busy, entry.used = True, next(self._clock)
        return entry

    def give_back(self, entry: CacheEntry) -> None:
        """Keep an entry whose sequence has ended for the next turn, as long as there is room."""
        with self._lock:
            entry.busy, entry.used = False, next(self._clock)
            if not entry.keys or entry.visitor in self._forgotten:
                self._remove(entry)
        self.shrink()

    def forget(self, visitor: str) -> None:
        """Drop all entries of a visitor: idle ones now, busy ones when they are given back. Called from any thread."""
        with self._lock:
            if any(e.busy and e.visitor == visitor for e in self._entries):
                self._forgotten.add(visitor)
            for entry in [e for e in self._entries if not e.busy and e.visitor == visitor]:
                self._remove(entry)

    def share(self, entry: CacheEntry, length: int) -> None:
        """Keep the first `length` tokens of `entry` for all visitors, unless they are kept already or there is no room for it.

        The pages are shared, but the last one is copied: behind the first `length` tokens, it is the visitor's.
        """
        keys = entry.keys[:length]
        with self._lock:
            if not length or any(e.visitor is None and e.keys == keys for e in self._entries):
                return
            cache = entry.cache.branch(length)
            self._free_until(lambda: self._pool.free >= cache.missing_pages(0))
            try:
                cache.own_last_page()
            except (MemoryError, RuntimeError):
                cache.release()
                return
            self._entries.append(CacheEntry(cache, None, keys, busy=False, used=next(self._clock)))

    def match(self, visitor: str, keys: Sequence[int]) -> int:
        """How many of `keys` a sequence would find in the cache."""
        with self._lock:
            return self._best(visitor, list(keys))[1]

    def shrink(self, budget: int | None = None) -> None:
        """Bring the bytes on the device down to `budget` (default: the cache's own) by spilling or dropping idle entries."""
        budget = self.budget if budget is None else budget
        with self._lock:
            self._free_until(lambda: self.nbytes <= budget)

    def make_room(self, pages: int) -> None:
        """Let idle entries go until so many pages are free, or none is left."""
        with self._lock:
            self._free_until(lambda: self._pool.free >= pages)

    @property
    def nbytes(self) -> int:
        """Bytes of all pages in use; one that several entries hold counts once."""
        return self._pool.used * self._pool.page_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def _remove(self, entry: CacheEntry) -> None:
        self._entries.remove(entry)
        entry.cache.release()

    def _free_until(self, enough: Callable[[], bool]) -> None:
        """Spill or drop idle entries, the least recently used first.

        Spilling moves the pages that an entry alone holds. What idle entries share goes when they are dropped.
        """
        idle = sorted((entry for entry in self._entries if not entry.busy), key=lambda entry: entry.used)
        for let_go in (self._spill, self._remove):
            for entry in idle:
                if enough():
                    return
                if entry in self._entries and entry.cache.nbytes:
                    let_go(entry)

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

    def _restore(self, entry: CacheEntry, length: int) -> bool:
        """Whether the first `length` tokens of `entry` are on the devices now; if not, they have to be read again."""
        needed = entry.cache.spilled_pages(length)
        if not needed:
            return True
        busy, entry.busy = entry.busy, True  # so that it does not make room for itself
        self._free_until(lambda: self._pool.free >= needed)
        entry.busy = busy
        try:
            entry.cache.restore(length)
        except (MemoryError, RuntimeError):
            return False
        return True

    def _spill(self, entry: CacheEntry) -> None:
        try:
            if entry.cache.nbytes > self._spill_budget:
                raise MemoryError
            entry.cache.spill()
        except (MemoryError, RuntimeError):  # no room in host memory either: the prompt is read again when it is needed
            self._remove(entry)
            return
        waiting = sorted((e for e in self._entries if e.spilled and not e.busy), key=lambda e: e.used)
        held = sum(e.cache.host_bytes for e in waiting)
        for oldest in waiting:
            if held <= self._spill_budget:
                break
            held -= oldest.cache.host_bytes
            self._remove(oldest)


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
