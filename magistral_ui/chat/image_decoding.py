"""Decodes images in child processes (image_worker.py), with limits on memory and time for the whole app.

The memory is estimated from the header, before anything is decoded; the system kills a child that takes more than that.
"""

import atexit
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import psutil
from cachetools import LRUCache

from magistral_ui.bounded_process import BoundedProcess, ChildEnded, ProcessLimits
from magistral_ui.client import CLIENT
from magistral_ui.errors import TooManyRequests
from magistral_ui.fairness import FairShares, Quota

MAX_CHILDREN = 2
"""Images that are decoded at the same time."""
MAX_DECODING_BYTES = 512 * 2**20
"""Memory for all images being decoded, or a quarter of the free memory if that is less. An image that needs more is decoded
alone; two photos of 25 megapixels take 0.45 GB."""
MAX_WAITING = Quota(in_all=24, of_address=8)
"""Threads that wait for their turn; the page has 40 to answer requests."""
REFUSAL, RETRY_AFTER_SECONDS = "too_many_new_pictures", 10
"""The key of the error when no more may wait, and the seconds until a retry."""
HEADER_BYTES = 96 * 2**20
"""Memory for a header: PIL unpacks at most 64 MB of a PNG's texts."""
HEADER_SECONDS, PIXELS_PER_SECOND = 3, 4_000_000
"""Processor time that an image may take: ten times the usual."""
LIBRARY_BYTES = 256 * 2**20
"""Address space, most of it unused, that OpenCV takes when it first scales an image."""
IDLE_TIMEOUT = 10.0
"""Seconds after which an idle child, which takes 60 MB, is ended."""
CACHED_SIZES = 20_000
"""Images whose size, or refusal, is cached."""
VARIABLES = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "262144",  # freed memory goes back to the system at once
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

Size = tuple[int, int]
SizeCache = LRUCache[tuple[str, int], "Size | DecodingRefused"]
"""Sizes of images, or why they are refused, by digest and the most pixels allowed."""


class DecodingRefused(Exception):
    """The image cannot be used; if it has too many pixels, `size` is its size, as far as known."""

    def __init__(self, key: str, size: Size = (0, 0)) -> None:
        super().__init__(key, size)
        self.key, self.size = key, size


class Decoders:
    """Child processes that decode one image at a time each. Any thread may call, and waits for its turn."""

    def __init__(self, max_bytes: int | None = None) -> None:
        max_bytes = max_bytes or min(MAX_DECODING_BYTES, psutil.virtual_memory().available // 4)
        self.turns, self.room = DecodingQueue(MAX_CHILDREN), DecodingMemory(max_bytes)
        self._lock = threading.Lock()
        self._idle: list[tuple[float, BoundedProcess]] = []
        self._idle_timer: threading.Timer | None = None
        self._sizes: SizeCache = LRUCache(CACHED_SIZES)
        """What headers say; `_checked` has what decoding has shown."""
        self._checked: SizeCache = LRUCache(CACHED_SIZES)
        self._here = threading.local()

    def size(self, data: bytes, digest: str, max_pixels: int) -> Size:
        """Size of the upright image in `data`, from its header if possible. Raises DecodingRefused, also above `max_pixels`."""
        known = self._known((digest, max_pixels), self._checked, self._sizes)
        return known or self._remember(self._sizes, (digest, max_pixels), data, check=False)

    def check(self, data: bytes, digest: str, max_pixels: int) -> Size:
        """The same, after decoding the image to see whether it is intact, which is done once per content."""
        known = self._known((digest, max_pixels), self._checked)
        return known or self._remember(self._checked, (digest, max_pixels), data, check=True)

    def call(self, data: bytes, what: str, *values: Any, more: int = 0) -> tuple[dict[str, Any], bytes]:
        """What `ImageDecoder` returns for a call, which takes `more` bytes than plain RGB does. Raises DecodingRefused."""
        try:
            with self._child() as child:
                facts = self._open(child, data)
                return self._ask(child, facts["whole"] + more, facts["size"], what, *values)
        except ChildEnded as error:
            raise DecodingRefused("picture_broken") from error

    @property
    def seconds(self) -> float:
        """Processor time that decoding for this thread has taken so far."""
        return getattr(self._here, "seconds", 0.0)

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for _, child in idle:
            child.close()

    def _known(self, key: tuple[str, int], *caches: SizeCache) -> Size | None:
        with self._lock:
            found = next((known for cache in caches if (known := cache.get(key)) is not None), None)
        return None if found is None else _size_or_raise(found)

    def _remember(self, cache: SizeCache, key: tuple[str, int], data: bytes, *, check: bool) -> Size:
        found: Size | DecodingRefused
        try:
            found = self._size(data, key[1], check=check)
        except DecodingRefused as error:
            found = DecodingRefused(error.key, error.size)
        except ChildEnded as error:  # perhaps for an unrelated reason, so it is not cached
            raise DecodingRefused("picture_broken") from error
        with self._lock:
            cache[key] = found
        return _size_or_raise(found)

    def _size(self, data: bytes, max_pixels: int, *, check: bool) -> Size:
        with self._child() as child:
            facts = self._open(child, data, max_pixels)
            if check or facts["upright"] is None:  # some formats have it after the pixels
                facts, _ = self._ask(child, facts["check"], facts["size"], "check")
            width, height = facts["upright"]
            return width, height

    def _open(self, child: BoundedProcess, data: bytes, max_pixels: int | None = None) -> dict[str, Any]:
        if not data:
            raise DecodingRefused("picture_not_an_image")
        bounds = ProcessLimits(HEADER_SECONDS, HEADER_BYTES + 3 * len(data), beyond=True)
        facts = self._accepted(child.call_with(data, "open", bounds=bounds))[0]
        width, height = facts["size"]
        if max_pixels is not None and width * height > max_pixels:
            raise DecodingRefused("picture_too_many_pixels", (width, height))
        return facts

    def _ask(self, child: BoundedProcess, cost: int, size: Size, *call: Any) -> tuple[dict[str, Any], bytes]:
        seconds = HEADER_SECONDS + size[0] * size[1] // PIXELS_PER_SECOND
        space = cost + (LIBRARY_BYTES if call[0] in ("scale", "fit") else 0)
        with self.room.of(cost):
            return self._accepted(child.call_with(b"", *call, bounds=ProcessLimits(seconds, space, beyond=True)))

    def _accepted(self, answer: tuple[dict[str, Any], bytes]) -> tuple[dict[str, Any], bytes]:
        self._here.seconds = self.seconds + answer[0]["seconds"]
        if "refused" in answer[0]:
            raise DecodingRefused(answer[0]["refused"])
        return answer

    @contextmanager
    def _child(self) -> Iterator[BoundedProcess]:
        with self.turns.turn(CLIENT.get().address):
            with self._lock:
                child = self._idle.pop()[1] if self._idle else None
            if child is None:
                child = BoundedProcess(
                    "magistral_ui.chat.image_worker:ImageDecoder",
                    wall_seconds=120,
                    starts=float("inf"),
                    variables=VARIABLES,
                )
            try:
                yield child
            finally:
                with self._lock:
                    self._idle.append((time.monotonic(), child))
                    self._start_idle_timer()

    def _start_idle_timer(self) -> None:
        """End idle children after a while. With the lock held."""
        if self._idle_timer is None:
            self._idle_timer = threading.Timer(IDLE_TIMEOUT, self._close_idle)
            self._idle_timer.daemon = True
            self._idle_timer.start()

    def _close_idle(self) -> None:
        with self._lock:
            self._idle_timer = None
            until = time.monotonic() - IDLE_TIMEOUT
            resting = [child for since, child in self._idle if since <= until]
            self._idle = [each for each in self._idle if each[0] > until]
            if self._idle:
                self._start_idle_timer()
        for child in resting:
            child.close()


class DecodingQueue:
    """Admits a few threads at a time: replies being written first, then clients by their fair shares."""

    def __init__(self, places: int) -> None:
        self._free, self._changed = places, threading.Condition()
        self._waiting: list[str] = []
        """The clients' addresses, in order of arrival."""
        self._shares = FairShares()

    @contextmanager
    def turn(self, address: str) -> Iterator[None]:
        """Wait for a place and hold it. Raises TooManyRequests if too many are waiting; a reply (no `address`) always waits."""
        self._take(address)
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._shares.end(address, self._waiting)
                self._changed.notify_all()

    def _take(self, address: str) -> None:
        waiter = _Waiter(address)
        with self._changed:
            if address and MAX_WAITING.reached([("", each) for each in self._waiting], "", address):
                raise TooManyRequests(REFUSAL, seconds=RETRY_AFTER_SECONDS)
            self._waiting.append(waiter)
            self._changed.wait_for(lambda: self._free and self._next() is waiter)
            self._waiting = [each for each in self._waiting if each is not waiter]
            self._free -= 1
            self._shares.begin(address)
            self._changed.notify_all()

    def _next(self) -> str:
        return min(self._waiting, key=lambda each: (each != "", *self._shares.rank(each)))


class _Waiter(str):
    """A waiting address; two with the same address are equal, but not identical."""

    __slots__ = ()


class DecodingMemory:
    """A budget of bytes; a thread that needs more than all of it runs alone."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.held, self.peak = max_bytes, 0, 0
        self._changed = threading.Condition()
        self._waiting: list[object] = []

    @contextmanager
    def of(self, cost: int) -> Iterator[None]:
        """Wait until `cost` bytes are free, and hold them. First come, first served, so that large requests do not starve."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(
                lambda: self._waiting[0] is ticket and (not self.held or self.held + cost <= self.max_bytes)
            )
            del self._waiting[0]
            self._changed.notify_all()
            self.held += cost
            self.peak = max(self.peak, self.held)
        try:
            yield
        finally:
            with self._changed:
                self.held -= cost
                self._changed.notify_all()


@cache
def decoders() -> Decoders:
    """The decoders of this process, shared by all pages and engines in it, as its memory is."""
    made = Decoders()
    atexit.register(made.close)
    return made


def _size_or_raise(found: Size | DecodingRefused) -> Size:
    if isinstance(found, DecodingRefused):
        raise DecodingRefused(found.key, found.size)  # a copy: a traceback would keep the image's bytes in the cache
    return found
