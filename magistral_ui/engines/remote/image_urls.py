"""Pictures as data URLs that every server takes: PNG or JPEG, neither too small nor larger than the model looks; no files."""

import base64
import threading
from operator import attrgetter

from cachetools import LRUCache, cachedmethod

from magistral_ui.chat.images import ImageFile
from magistral_ui.client import NO_CLIENT, serving

MAX_SIDE = 1_540
"""Pixels of the longer side beyond which Magistral makes a picture smaller itself."""
MIN_SIDE = 56
"""Pixels of the longer side: transformers fails on a picture of one image token, which is 28 × 28 pixels."""
MIN_JPEG_PIXELS = 640 * 480
"""Pixels from which JPEG is used: PNG would be many times larger."""
CACHE_BYTES = 64 * 2**20
"""Bytes of URLs that are kept, so that a conversation's pictures are not made anew for every turn."""


class ImageUrls:
    """Data URLs by the picture's content; thread-safe."""

    def __init__(self) -> None:
        self._urls: LRUCache[str, str] = LRUCache(CACHE_BYTES, len)
        self._lock = threading.Lock()

    @cachedmethod(attrgetter("_urls"), key=lambda _, image: image.digest, lock=attrgetter("_lock"))
    def __call__(self, image: ImageFile) -> str:
        """The data URL of `image`; the first call for a large photo takes tens of milliseconds."""
        with serving(NO_CLIENT):  # the visitor has waited and was counted before the reply began
            return data_url(image)


def data_url(image: ImageFile) -> str:
    """`image` re-encoded, so that no EXIF, animation or odd format reaches a server that cannot read it."""
    data, _, kind = image.rewritten(
        longest=MAX_SIDE, shortest=MIN_SIDE, format="PNG", photo=MIN_JPEG_PIXELS, quality=92
    )
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode('ascii')}"
