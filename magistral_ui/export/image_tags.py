"""Draws pictures into an HTML file, each made small once; it does not know the conversation around them."""

import base64
from contextlib import suppress
from html import escape

from magistral_ui.chat.images import ImageFile
from magistral_ui.errors import ImageRefused, TooManyRequests
from magistral_ui.export import captions
from magistral_ui.export.document import Texts, TimeBudget

MAX_SIDE = 1600
"""Pixels of a picture's longer side: enough to read a screenshot, and the file stays small. Made anew, so without a
camera's metadata, which tells where a photo was taken."""
MAX_IMAGE_CHARACTERS = 100_000_000
"""Characters of all pictures in one file: one picture may be shown in very many messages."""


class ImageTags:
    """Draws the pictures of one file; where there is no room or time for one any more, its name is there."""

    def __init__(self, words: Texts, patience: TimeBudget, room: int = MAX_IMAGE_CHARACTERS) -> None:
        self._words, self._patience, self._room = words, patience, room
        self._made: dict[str, str] = {}

    def html(self, image: ImageFile, number: int) -> str:
        """The picture, as the `number`th of its message."""
        name = escape(captions.image_name(image, number, self._words))
        data = self._data(image)
        if len(data) > self._room or not data:
            return f'<span class="note">{name}</span>'
        self._room -= len(data)
        size = f'width="{image.width}" height="{image.height}"'
        return f'<img src="data:image/jpeg;base64,{data}" alt="{name}" title="{name}" {size}>'

    def _data(self, image: ImageFile) -> str:
        if image.digest not in self._made and not self._patience.is_over:
            with suppress(ImageRefused, TooManyRequests):
                self._made[image.digest] = base64.b64encode(image.thumbnail(MAX_SIDE)).decode("ascii")
        return self._made.get(image.digest, "")
