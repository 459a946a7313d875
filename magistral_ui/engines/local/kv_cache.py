"""Keys and values in pages: a pool of pages on the devices of the layers, and the block table of one sequence (paged KV cache).

A sequence's pages may lie anywhere in the pool, and sequences that begin alike share theirs by count: a branch of a conversation
copies nothing until it writes into a page that another one holds too. Which tokens a page holds, only `prefix_cache.py` knows.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch

from magistral_ui.models.memory import PAGE_TOKENS, pages_of

SCRATCH_PAGE = 0
"""Where rows that only fill up a step put their keys and values; no sequence ever has it."""
ROOM = 16
"""Free pages around the first one of a sequence, for it and for the one before it to grow in one piece."""
HostPage = list[torch.Tensor]
"""A page in host memory, in pieces of (layers, 2, PAGE_TOKENS, heads, head_dim). torch takes a power of two of pinned bytes for
each piece and keeps it for others of that size, so pieces have 32, 16, 8 … layers: in Mistral's models, powers of two."""


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
        self._was_used = bytearray(pages + 1)
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
                self._references[page] = self._was_used[page] = 1
                taken.append(page)
                behind = page
            self._free -= count
        with self._given_back_on_error(taken):
            for page in taken:
                for buffer in self._buffers:
                    buffer[:, :, page] = 0
        return taken

    def take_copy(self, source: int, tokens: int, behind: int | None = None) -> int:
        """A free page that holds the first `tokens` of `source`, and zeros; raises OutOfPages."""
        (page,) = self.take(1, behind)
        with self._given_back_on_error([page]):
            for buffer in self._buffers:
                buffer[:, :, page, :tokens] = buffer[:, :, source, :tokens]
        return page

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

    def to_host(self, page: int) -> HostPage:
        """A copy of `page` in host memory. A GPU may still be busy with it; whatever it is asked for next comes afterwards."""
        copies = [_host_buffer(tuple(piece.shape), piece) for piece in self._pieces(page)]
        for copy, piece in zip(copies, self._pieces(page), strict=True):
            copy.copy_(piece, non_blocking=piece.is_cuda)
        return copies

    def from_host(self, copies: Sequence[HostPage]) -> list[int]:
        """Pages that hold these; raises OutOfPages."""
        taken = self.take(len(copies))
        with self._given_back_on_error(taken):
            for page, copied in zip(taken, copies, strict=True):
                for piece, copy in zip(self._pieces(page), copied, strict=True):
                    piece.copy_(copy, non_blocking=piece.is_cuda)
        return taken

    @contextmanager
    def _given_back_on_error(self, taken: list[int]) -> Iterator[None]:
        """Within this context nobody holds `taken` yet: whatever breaks, these pages are free again."""
        with ExitStack() as undo:
            undo.callback(self.release, taken)
            yield
            undo.pop_all()

    def _pieces(self, page: int) -> Iterator[torch.Tensor]:
        """A page as a HostPage has it."""
        for buffer in self._buffers:
            first = 0
            while first < len(buffer):
                end = first + (1 << (len(buffer) - first).bit_length() - 1)
                yield buffer[first:end, :, page]
                first = end

    def _next_free(self, behind: int | None) -> int:
        """The page after `behind` if it is free, or else one with room around it.

        That is one that was used before, if ROOM pages before and after it are free: on a processor, a page that never was would
        take more memory, which is not given back. Otherwise it is the middle of the longest free run.
        """
        if behind is not None and behind < self.pages and not self._references[behind + 1]:
            return behind + 1
        best, length = 1, 0
        for first, end in self._free_runs():
            for page in range(first if first == 1 else first + ROOM, end - ROOM):
                if self._was_used[page]:
                    return page
            if end - first > length:
                best, length = first if first == 1 else (first + end) // 2, end - first
        return best

    def _free_runs(self) -> Iterator[tuple[int, int]]:
        """The first page of each run of free ones, and the page after its last."""
        first = 1
        for page in range(1, self.pages + 2):
            if page > self.pages or self._references[page]:
                if page > first:
                    yield first, page
                first = page + 1


class KVCache:
    """The block table of one sequence: page `pages[i]` holds its tokens from i × PAGE_TOKENS on, of which `length` count."""

    __slots__ = ("_host", "_pool", "length", "pages")

    def __init__(self, pool: PagePool) -> None:
        self._pool = pool
        self.pages: list[int] = []
        self.length = 0
        self._host: dict[int, HostPage] = {}
        """What is spilled: the pages in host memory, by their place in `pages`, where SCRATCH_PAGE stands for them."""

    def missing_pages(self, tokens: int) -> int:
        """Pages that `reserve` would take."""
        return max(0, pages_of(self.length + tokens) - len(self.pages)) + self._writes_shared

    def reserve(self, tokens: int) -> None:
        """Make room for `tokens` behind the last; raises OutOfPages, and then it holds what it held.

        A page that others hold too is copied before it is written, without what is behind the last token: that is another's.
        """
        self.own_last_page()
        missing = pages_of(self.length + tokens) - len(self.pages)
        if missing > 0:
            self.pages += self._pool.take(missing, self.pages[-1] if self.pages else None)

    def own_last_page(self) -> None:
        """Copy the page that the next token goes to, if others hold it too; raises OutOfPages."""
        if not self._writes_shared:
            return
        at, used = divmod(self.length, PAGE_TOKENS)
        copy = self._pool.take_copy(self.pages[at], used, self.pages[-1])
        self._pool.release([self.pages[at]])
        self.pages[at] = copy

    def crop(self, length: int) -> None:
        """Forget all but the first `length` tokens, and give back what was reserved behind them."""
        self.length = min(self.length, length)
        kept = pages_of(self.length)
        self._pool.release(page for page in self.pages[kept:] if page != SCRATCH_PAGE)
        del self.pages[kept:]
        self._host = {n: copies for n, copies in self._host.items() if n < kept}

    def branch(self, length: int) -> "KVCache":
        """Another sequence that begins with the first `length` tokens of this one, which are not spilled. Nothing is copied."""
        other = KVCache(self._pool)
        other.length = min(self.length, length)
        other.pages = self.pages[: pages_of(other.length)]
        self._pool.share(other.pages)
        return other

    def release(self) -> None:
        """Give back all pages."""
        self.crop(0)

    @property
    def spilled(self) -> bool:
        """Whether pages of it are in host memory: they have to be restored before they are used."""
        return bool(self._host)

    def spill(self) -> None:
        """Move the pages that nobody else holds to host memory; raises MemoryError or RuntimeError if there is no room."""
        own = [n for n, page in enumerate(self.pages) if page != SCRATCH_PAGE and self._pool.references(page) == 1]
        self._host |= {n: self._pool.to_host(self.pages[n]) for n in own}
        self._pool.release([self.pages[n] for n in own])
        for n in own:
            self.pages[n] = SCRATCH_PAGE

    def spilled_pages(self, length: int) -> int:
        """Pages that `restore` would take."""
        return sum(n < pages_of(length) for n in self._host)

    def restore(self, length: int) -> None:
        """Move the pages of the first `length` tokens back; raises OutOfPages, and then nothing has changed."""
        own = [n for n in self._host if n < pages_of(length)]
        for n, page in zip(own, self._pool.from_host([self._host[n] for n in own]), strict=True):
            self.pages[n] = page
            del self._host[n]

    @property
    def nbytes(self) -> int:
        """Bytes of its pages on devices; those that it shares count in full."""
        return (len(self.pages) - len(self._host)) * self._pool.page_bytes

    @property
    def host_bytes(self) -> int:
        """Bytes of its pages in host memory."""
        return len(self._host) * self._pool.page_bytes

    @property
    def _writes_shared(self) -> bool:
        """Whether the page that the next token goes to is another's too."""
        at = self.length // PAGE_TOKENS
        return at < len(self.pages) and self._pool.references(self.pages[at]) > 1


def in_one_piece(pages: Sequence[int]) -> bool:
    """Whether `pages`, of which there is one at least, follow on each other in the pool: they can be read without a copy."""
    return list(pages) == list(range(pages[0], pages[0] + len(pages)))


def _host_buffer(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Pinned, if that makes the way back to a GPU faster."""
    return torch.empty(shape, dtype=like.dtype, pin_memory=like.device.type == "cuda")
