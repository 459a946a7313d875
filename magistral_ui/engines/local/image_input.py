"""Turns images into image tokens and pixels with mistral-common; the number of tokens follows from an image's size alone."""

import threading
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
from cachetools import LRUCache, cachedmethod
from mistral_common.protocol.instruct.chunk import ImageChunk
from mistral_common.tokens.tokenizers.image import DATASET_MEAN, DATASET_STD, normalize
from PIL import Image

from magistral_ui.chat.images import ImageFile
from magistral_ui.models.image_grid import ImageGrid

IMAGE_CACHE_BYTES = 256 * 2**20
"""For prepared images of all visitors: nine of the largest (1540 × 1540 pixels)."""


@dataclass(eq=False, slots=True)
class ImageInput:
    """An image on its way into the model: its tokens, and its pixels until they have become features."""

    image: ImageFile
    tokens: list[int]
    pixels: np.ndarray | None
    """float32 (3, height, width); dropped once there are features."""
    features: Any = None
    """(image tokens, hidden), on the model's device, as an array of the library that runs the model."""


@dataclass(frozen=True, slots=True)
class ImageSpan:
    """Where an image's tokens are in the prompt: ids[start : start + len(input.tokens)]."""

    start: int
    input: ImageInput


class ImageProcessor:
    """One model's image preparation; thread-safe. Remembers, per visitor, what it has prepared."""

    def __init__(self, image_encoder: Any, longest_side: int = 0) -> None:
        """`image_encoder` is mistral-common's, or None for a model without vision.

        Images are scaled down to `longest_side` pixels, or to what the model takes, if that is less or no side is given.
        """
        if image_encoder and 0 < longest_side < image_encoder.image_config.max_image_size:
            image_encoder.image_config.max_image_size = longest_side
        self._encoder = image_encoder
        self.grid = _grid_of(image_encoder)
        self._prepared: LRUCache[tuple[str, str], ImageInput] = LRUCache(IMAGE_CACHE_BYTES, _cost)
        self._lock = threading.Lock()
        self.image_token: int | None = image_encoder.image_token if image_encoder else None

    @cachedmethod(
        attrgetter("_prepared"), key=lambda _, image, visitor: (visitor, image.digest), lock=attrgetter("_lock")
    )
    def prepare(self, image: ImageFile, visitor: str) -> ImageInput:  # noqa: ARG002
        """The image, ready for the model; decoding and scaling a large one takes a good part of a second."""
        return self._tiny(image) if max(image.width, image.height) <= self.grid.unit else self._scaled(image)

    def _scaled(self, image: ImageFile) -> ImageInput:
        """As mistral-common would prepare it, but scaled by the decoder, so that no larger image gets into this process."""
        pixels = image.scaled(*self.grid.pixels(image.width, image.height))
        prepared = normalize(pixels, DATASET_MEAN, DATASET_STD)
        return ImageInput(image, self.outline(image, "").tokens, prepared)

    def _tiny(self, image: ImageFile) -> ImageInput:
        pixels = image.rgb()
        larger = pixels.resize(self.grid.enlarged(*pixels.size), Image.Resampling.NEAREST)
        encoded = self._encoder(ImageChunk(image=larger))
        return ImageInput(image, encoded.tokens, encoded.image)

    def outline(self, image: ImageFile, visitor: str) -> ImageInput:  # noqa: ARG002
        """The image's tokens alone, which are known without decoding it."""
        columns, rows = self.grid.of(image.width, image.height)
        ids = self._encoder.special_ids
        tokens = ([ids.img] * columns + [ids.img_break]) * rows
        tokens[-1] = ids.img_end
        return ImageInput(image, tokens, None)

    def forget(self, visitor: str) -> None:
        with self._lock:
            for key in [key for key in self._prepared if key[0] == visitor]:
                del self._prepared[key]


def _grid_of(image_encoder: Any) -> ImageGrid:
    if image_encoder is None:
        return ImageGrid()
    config = image_encoder.image_config
    return ImageGrid(int(config.image_patch_size * config.spatial_merge_size), int(config.max_image_size))


def _cost(image: ImageInput) -> int:
    """Bytes of the file and its pixels; the features that replace the pixels later are about as large."""
    return len(image.image.data) + (0 if image.pixels is None else image.pixels.nbytes)
