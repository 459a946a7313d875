"""Reads uploaded pictures, each once, however often the page asks what they would cost; it does not know who sent them."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from magistral_ui.chat.pictures import Picture, read_all, read_picture
from magistral_ui.errors import PictureRefused, TooManyPictures
from magistral_ui.models.cards import ModelCard
from magistral_ui.sessions.limits import Limits

KEPT_BYTES = 128 * 2**20
"""Bytes of files that are kept between attaching and sending."""

Key = tuple[str, int | None]


def read_files(paths: Sequence[str], limits: Limits) -> list[Picture]:
    """The pictures in uploaded files; BadInput for files that are none, or for too many."""
    if len(paths) > limits.pictures:
        raise TooManyPictures(count=len(paths), limit=limits.pictures)
    return read_all(paths, lambda path: read_file(path, limits))


def read_file(path: str, limits: Limits) -> Picture:
    """The picture in an uploaded file; PictureRefused for one that is none."""
    name = Path(path).name
    try:
        data = Path(path).read_bytes()
    except OSError as error:  # uploads are deleted after a while
        raise PictureRefused("picture_broken", name=name) from error
    return read_picture(data, name, max_bytes=limits.picture_bytes, max_pixels=limits.picture_pixels)


def check_seen(card: ModelCard, pictures: Sequence[Picture]) -> None:
    """Raises PictureRefused where the model sees no pictures."""
    if pictures and not card.vision:
        raise PictureRefused("picture_not_supported", name=pictures[0].name)


class Uploads:
    """Pictures by the path of their file, which Gradio names after its content, and by the size that was asked for."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._lock = limits, threading.Lock()
        self._known: OrderedDict[Key, Picture | PictureRefused] = OrderedDict()

    def read(self, paths: Sequence[str], side: int | None = None) -> list[Picture]:
        """The pictures, none larger than `side` pixels; what `read_files` raises."""
        if len(paths) > self._limits.pictures:
            raise TooManyPictures(count=len(paths), limit=self._limits.pictures)
        return read_all(paths, lambda path: self._read(str(path), side))

    def _read(self, path: str, side: int | None) -> Picture:
        with self._lock:
            known = self._known.get((path, side))
        if known is None:
            try:
                known = read_file(path, self._limits) if side is None else self._read(path, None).shrunk(side)
            except PictureRefused as error:
                known = error
            self._keep((path, side), known)
        if isinstance(known, PictureRefused):
            raise known
        return known

    def _keep(self, key: Key, picture: Picture | PictureRefused) -> None:
        with self._lock:
            self._known[key] = picture
            self._known.move_to_end(key)
            while len(self._known) > 1 and sum(map(_bytes, self._known.values())) > KEPT_BYTES:
                self._known.popitem(last=False)


def _bytes(picture: Picture | PictureRefused) -> int:
    return len(picture.data) if isinstance(picture, Picture) else 1024
