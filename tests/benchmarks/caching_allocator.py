"""The bytes that torch's caching allocator would reserve on a card, counted without one.

The rules are those of `c10/cuda/CUDACachingAllocator.cpp` and `c10/core/AllocatorConfig.h` with their defaults, and of
`flash_attn/flash_api.cpp` for what FlashAttention takes beside its results.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass

MIB = 2**20
ROUNDING = 512
"""Sizes are multiples of it."""
SMALL = MIB
"""The largest size that is served from small segments, and what must be left of a block of a large one to be split off."""
SMALL_SEGMENT, MEDIUM_SEGMENT = 2 * MIB, 20 * MIB
LARGE = 10 * MIB
"""From here on a segment is made for one size, in steps of SMALL_SEGMENT."""


@dataclass(eq=False, slots=True)
class Block:
    """A piece of a segment; its neighbours are pieces of the same one."""

    address: int
    size: int
    small: bool
    free: bool = True
    before: "Block | None" = None
    behind: "Block | None" = None

    @property
    def rank(self) -> tuple[int, int]:
        """Of several free blocks that are large enough, the first by this is taken."""
        return self.size, self.address


class CachingAllocator:
    """One pool and stream of the allocator: what is freed serves what comes later, and segments are kept."""

    def __init__(self) -> None:
        self.reserved = 0
        """Bytes of all segments."""
        self._free: dict[bool, list[tuple[tuple[int, int], Block]]] = {True: [], False: []}
        self._next_address = 0

    def allocate(self, size: int) -> Block:
        size = max(ROUNDING, -(-size // ROUNDING) * ROUNDING)
        small = size <= SMALL
        free = self._free[small]
        found = bisect_left(free, (size, -1), key=lambda each: each[0])
        block = free.pop(found)[1] if found < len(free) else self._segment(size, small)
        rest = block.size - size
        if rest >= ROUNDING if small else rest > SMALL:
            self._split(block, size)
        block.free = False
        return block

    def free(self, block: Block) -> None:
        block.free = True
        for other in (block.before, block.behind):
            if other is not None and other.free:
                self._remove(other)
        if block.behind is not None and block.behind.free:
            self._join(block, block.behind)
        if block.before is not None and block.before.free:
            self._join(block.before, block)
            block = block.before
        self._insert(block)

    def give_back(self) -> None:
        """Release all segments of which nothing is in use, as `torch.cuda.empty_cache` does."""
        for free in self._free.values():
            whole = [each for each in free if each[1].before is None and each[1].behind is None]
            self.reserved -= sum(block.size for _, block in whole)
            free[:] = [each for each in free if each not in whole]

    def _segment(self, size: int, small: bool) -> Block:
        made = SMALL_SEGMENT if small else MEDIUM_SEGMENT if size < LARGE else -(-size // SMALL_SEGMENT) * SMALL_SEGMENT
        block = Block(self._next_address, made, small)
        self._next_address += 2 * made  # never beside the one before it
        self.reserved += made
        return block

    def _split(self, block: Block, size: int) -> None:
        rest = Block(block.address + size, block.size - size, block.small, before=block, behind=block.behind)
        if block.behind is not None:
            block.behind.before = rest
        block.behind, block.size = rest, size
        self._insert(rest)

    def _join(self, block: Block, behind: Block) -> None:
        block.size += behind.size
        block.behind = behind.behind
        if behind.behind is not None:
            behind.behind.before = block

    def _insert(self, block: Block) -> None:
        insort(self._free[block.small], (block.rank, block), key=lambda each: each[0])

    def _remove(self, block: Block) -> None:
        free = self._free[block.small]
        free.pop(bisect_left(free, block.rank, key=lambda each: each[0]))


def splits(sequences: int, processors: int, longest: int) -> int:
    """Into how many parts FlashAttention splits the keys of each of so many pairs of a row and a key head.

    It takes the fewest that keep nearly as many multiprocessors busy as the best number would.
    """
    places, blocks = 2 * processors, -(-longest // 128)
    if sequences >= 0.8 * places:
        return 1
    busy: dict[int, float] = {}
    for count in range(1, min(128, places, blocks) + 1):
        if count == 1 or -(-blocks // count) != -(-blocks // (count - 1)):
            waves = sequences * count / places
            busy[count] = waves / -(-sequences * count // places)
    return next(count for count, share in busy.items() if share >= 0.85 * max(busy.values()))
