"""Reads each uploaded image once, however often the page asks how many tokens it takes; it does not know who sent them.

No decoded image is kept: only the sizes of images that are measured, and the files of the others.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

from cachetools import LRUCache, cachedmethod

from magistral_ui.chat.images import ImageFile, measure_image, read_image, read_images, shrunk_size
from magistral_ui.errors import ImageRefused
from magistral_ui.models.cards import ModelCard
from magistral_ui.sessions.limits import Limits

CACHE_BYTES = 128 * 2**20
"""Bytes of files to cache between attaching and sending."""
CACHED_SIZES = 5_000
"""Files whose size in pixels is cached, to measure messages."""

Read = Callable[..., ImageFile]


def read_files(paths: Sequence[str], limits: Limits) -> list[ImageFile]:
    """The images in uploaded files. Raises BadInput for files that are not images, or for too many."""
    limits.check_count(paths)
    return read_images(paths, lambda path: read_file(path, limits))


def read_file(path: str, limits: Limits, read: Read = read_image) -> ImageFile:
    """The image in an uploaded file, by `read_image` or `measure_image`. Raises ImageRefused if it is not an image."""
    name = Path(path).name
    try:
        data = Path(path).read_bytes()
    except OSError as error:  # uploads are deleted after a while
        raise ImageRefused("picture_broken", name=name) from error
    return read(data, name, max_bytes=limits.picture_bytes, max_pixels=limits.picture_pixels)


def check_seen(card: ModelCard, images: Sequence[ImageFile]) -> None:
    """Raises ImageRefused if the model cannot see images."""
    if images and not card.vision:
        raise ImageRefused("picture_not_supported", name=images[0].name)


class UploadCache:
    """Images by the path of their file, which Gradio names after its content, and by the requested size. Thread-safe."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._lock = limits, threading.Lock()
        self._known: LRUCache[tuple[str, int | None], ImageFile] = LRUCache(CACHE_BYTES, lambda image: len(image.data))
        self._sizes: LRUCache[str, ImageFile] = LRUCache(CACHED_SIZES)
        """Images without their bytes."""

    def measure(self, paths: Sequence[str], side: int | None = None) -> list[ImageFile]:
        """What `read` returns, but without the bytes and from the headers alone: enough to tell how many tokens they take."""
        self._limits.check_count(paths)
        return read_images(paths, lambda path: _shrunk(self._measure(str(path)), side))

    def count_new(self, paths: Sequence[str], *, measured: bool = False) -> int:
        """How many files `read` would have to read, or `measure` if they are only `measured`."""
        with self._lock:
            known = {path for path, side in self._known if side is None} | (self._sizes.keys() if measured else set())
        return len(set(paths) - known)

    def read(self, paths: Sequence[str], side: int | None = None) -> list[ImageFile]:
        """The images, none larger than `side` pixels. Raises what `read_files` raises."""
        self._limits.check_count(paths)
        return read_images(paths, lambda path: self._read(str(path), side))

    def _measure(self, path: str) -> ImageFile:
        with self._lock:
            known = self._known.get((path, None))
        return known or self._size(path)

    @cachedmethod(attrgetter("_sizes"), key=lambda _, path: path, lock=attrgetter("_lock"))
    def _size(self, path: str) -> ImageFile:
        return read_file(path, self._limits, measure_image)

    @cachedmethod(attrgetter("_known"), lock=attrgetter("_lock"))
    def _read(self, path: str, side: int | None) -> ImageFile:
        return read_file(path, self._limits) if side is None else self._read(path, None).shrunk(side)


def _shrunk(image: ImageFile, side: int | None) -> ImageFile:
    """The size of `image` as it is sent with at most `side` pixels."""
    if side is None:
        return image
    width, height = shrunk_size(image.width, image.height, side)
    if (width, height) == (image.width, image.height):
        return image
    return replace(image, width=width, height=height, digest=f"{image.digest}/{side}")
