"""Keys and values in pages: a pool of pages on the devices of the layers, and the block table of one sequence (paged KV cache).

A sequence's pages may lie anywhere in the pool, and sequences that begin alike share theirs by count: a branch of a conversation
copies nothing until it writes into a page that another one holds too. Which tokens a page holds, only `prefix_cache.py` knows.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence

import torch

from magistral_ui.models.memory import PAGE_TOKENS, pages_of

SCRATCH_PAGE = 0
"""Where rows that only fill up a step put their keys and values; no sequence ever has it."""
HostPages = list[list[torch.Tensor]]
"""Pages in host memory: for each device that they came from, blocks (pages, its layers, 2, PAGE_TOKENS, heads, head_dim)."""
HOST_BLOCK_BYTES = 2**28
"""The most that a block has. torch takes a power of two of pinned memory for each, and keeps it for others of the same size:
blocks of a few sizes waste a tenth of it, where pieces as long as conversations would waste up to half and fit no other one."""


class OutOfPages(MemoryError):
    """The pool has not as many free pages as were asked for."""


class PagePool:
    """Pages of all layers. A page is the same number in each layer, so a block table serves them all.

    Counts may be changed from any thread; contents only from the one that owns the model.
    """

    def __init__(
        self, places: Sequence[torch.device], heads: int, head_dim: int, dtype: torch.dtype, pages: int
    ) -> None:
        """`places` are the devices of the layers, in order; `heads` those that have keys. One page more is made, for scratch.

        The buffers' addresses never change, since CUDA graphs remember them.
        """
        self._buffers: list[torch.Tensor] = []
        """One for each device: (its layers, 2, pages, PAGE_TOKENS, heads, head_dim), keys before values."""
        layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for place in dict.fromkeys(places):
            here = [index for index, other in enumerate(places) if other == place]
            shape = (len(here), 2, pages + 1, PAGE_TOKENS, heads, head_dim)
            buffer = torch.empty(shape, dtype=dtype, device=place)  # on a processor, memory is taken when a page is
            buffer[:, :, SCRATCH_PAGE] = 0
            self._buffers.append(buffer)
            layers |= {index: (buffer[n, 0], buffer[n, 1]) for n, index in enumerate(here)}
        self._layers = [layers[index] for index in range(len(places))]
        self.layers, self.pages = len(places), pages
        self.page_bytes = len(places) * 2 * PAGE_TOKENS * heads * head_dim * dtype.itemsize
        self._references = [0] * (pages + 1)
        self._free = pages
        self._lock = threading.Lock()

    def new_cache(self) -> "KVCache":
        """A sequence without tokens."""
        return KVCache(self)

    def layer(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A layer's keys and values, each (pages + 1, PAGE_TOKENS, heads, head_dim)."""
        return self._layers[index]

    @property
    def free(self) -> int:
        """Pages that nobody holds."""
        return self._free

    @property
    def used(self) -> int:
        return self.pages - self._free

    def references(self, page: int) -> int:
        """How many block tables hold `page`."""
        return self._references[page]

    def take(self, count: int, behind: int | None = None) -> list[int]:
        """Free pages, filled with zeros, so that whatever was in them cannot reach a sum; raises OutOfPages.

        They come right after page `behind` as far as those are free: a processor reads what lies in one piece without a copy.
        """
        with self._lock:
            if count > self._free:
                raise OutOfPages(f"{count} pages are needed and {self._free} are free")
            taken: list[int] = []
            for _ in range(count):
                page = self._next_free(behind)
                self._references[page] = 1
                taken.append(page)
                behind = page
            self._free -= count
        for page in taken:
            for buffer in self._buffers:
                buffer[:, :, page] = 0
        return taken

    def share(self, pages: Iterable[int]) -> None:
        """One more block table holds these."""
        with self._lock:
            for page in pages:
                self._references[page] += 1

    def release(self, pages: Iterable[int]) -> None:
        """A block table holds these no longer."""
        with self._lock:
            for page in pages:
                self._references[page] -= 1
                self._free += not self._references[page]

    def copy(self, source: int, target: int) -> None:
        for buffer in self._buffers:
            buffer[:, :, target] = buffer[:, :, source]

    def to_host(self, pages: list[int]) -> HostPages:
        """Copies of `pages` in host memory. A GPU may still be busy with them; whatever it is asked for next comes afterwards."""
        copies: HostPages = []
        for buffer in self._buffers:
            layers, _, _, *page_shape = buffer.shape
            some = max(1, HOST_BLOCK_BYTES // buffer[:, :, SCRATCH_PAGE].nbytes)
            counts = [min(some, len(pages) - first) for first in range(0, len(pages), some)]
            copies.append([_host_buffer((count, layers, 2, *page_shape), buffer) for count in counts])
            for page, held in zip(pages, _rows(copies[-1]), strict=True):
                held.copy_(buffer[:, :, page], non_blocking=buffer.is_cuda)
        return copies

    def from_host(self, copies: HostPages, pages: list[int]) -> None:
        for buffer, blocks in zip(self._buffers, copies, strict=True):
            for page, held in zip(pages, _rows(blocks), strict=True):
                buffer[:, :, page].copy_(held, non_blocking=buffer.is_cuda)

    def _next_free(self, behind: int | None) -> int:
        """The page after `behind` if it is free, or else one with much room after it: the middle of the longest free run."""
        if behind is not None and behind < self.pages and not self._references[behind + 1]:
            return behind + 1
        best, length, first = 1, 0, 1
        for page in range(1, self.pages + 2):
            if page > self.pages or self._references[page]:
                if page - first > length:
                    best, length = first, page - first
                first = page + 1
        return best if best == 1 else best + length // 2


class KVCache:
    """The block table of one sequence: page `pages[i]` holds its tokens from i × PAGE_TOKENS on, of which `length` count."""

    __slots__ = ("_host", "_pool", "length", "pages")

    def __init__(self, pool: PagePool) -> None:
        self._pool = pool
        self.pages: list[int] = []
        self.length = 0
        self._host: tuple[list[int], HostPages] = ([], [])
        """While it is spilled: which of its pages are in host memory, and what they hold."""

    def missing_pages(self, tokens: int) -> int:
        """Pages that `reserve` would take."""
        return max(0, pages_of(self.length + tokens) - len(self.pages)) + self._writes_shared

    def reserve(self, tokens: int) -> None:
        """Make room for `tokens` behind the last; raises OutOfPages, and then nothing has changed.

        A page that others hold too is copied before it is written.
        """
        missing = self.missing_pages(tokens)
        if not missing:
            return
        taken = self._pool.take(missing, self.pages[-1] if self.pages else None)
        if self._writes_shared:
            at, copy = self.length // PAGE_TOKENS, taken.pop(0)
            self._pool.copy(self.pages[at], copy)
            self._pool.release([self.pages[at]])
            self.pages[at] = copy
        self.pages += taken

    def crop(self, length: int) -> None:
        """Forget all but the first `length` tokens, and give back what was reserved behind them."""
        self.length = min(self.length, length)
        kept = pages_of(self.length)
        self._pool.release(self.pages[kept:])
        del self.pages[kept:]

    def branch(self, length: int) -> "KVCache":
        """Another sequence that begins with the first `length` tokens of this one. Nothing is copied."""
        other = KVCache(self._pool)
        other.length = min(self.length, length)
        other.pages = self.pages[: pages_of(other.length)]
        self._pool.share(other.pages)
        return other

    def release(self) -> None:
        """Give back all pages."""
        if self.spilled:
            kept, self._host = [page for page in self.pages if page != SCRATCH_PAGE], ([], [])
            self._pool.release(kept)
            self.pages, self.length = [], 0
        self.crop(0)

    @property
    def spilled(self) -> bool:
        """Whether pages of it are in host memory: it has to be restored before it is used."""
        return bool(self._host[0])

    def spill(self) -> None:
        """Move the pages that nobody else holds to host memory; raises MemoryError or RuntimeError if there is no room."""
        own = [n for n, page in enumerate(self.pages) if page and self._pool.references(page) == 1]
        held = [self.pages[n] for n in own]
        if not own:
            return
        self._host = (own, self._pool.to_host(held))
        for n in own:
            self.pages[n] = SCRATCH_PAGE
        self._pool.release(held)

    def restore(self) -> None:
        """Move the pages back; raises OutOfPages, and then nothing has changed."""
        own, copies = self._host
        taken = self._pool.take(len(own))
        self._pool.from_host(copies, taken)
        for n, page in zip(own, taken, strict=True):
            self.pages[n] = page
        self._host = ([], [])

    @property
    def nbytes(self) -> int:
        """Bytes of its pages on devices; those that it shares count in full."""
        return (len(self.pages) - len(self._host[0])) * self._pool.page_bytes

    @property
    def host_bytes(self) -> int:
        """Bytes of its pages in host memory."""
        return len(self._host[0]) * self._pool.page_bytes

    @property
    def _writes_shared(self) -> bool:
        """Whether the page that the next token goes to is another's too."""
        at = self.length // PAGE_TOKENS
        return at < len(self.pages) and self._pool.references(self.pages[at]) > 1


def _rows(blocks: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Each page of some blocks, in one piece, so that a GPU copies it straight from pinned memory or to it."""
    for block in blocks:
        yield from block


def _host_buffer(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Pinned, if that makes the way back to a GPU faster."""
    return torch.empty(shape, dtype=like.dtype, pin_memory=like.device.type == "cuda")
