"""An image that a visitor sent: its bytes, and what image_decoding.py makes of them; it knows no paths or URLs."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from magistral_ui.chat.image_decoding import DecodingRefused, Size, decoders
from magistral_ui.errors import ImageRefused, ImagesRefused

BROWSER_TYPES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp", "image/avif"})
"""Formats that every browser can show; of other images, the page shows a thumbnail."""
MAX_BYTES = 50 * 2**20
MAX_PIXELS = 120_000_000
"""A 108-megapixel phone's photo is 12,000 × 9,000; PIL itself stops at 179 million."""
MAGIC_BYTES = {
    b"\x89PNG": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
}
MAX_SINGLE_STEP_PIXELS = 4_000_000
"""Pixels up to which an image is scaled in one step, see image_worker.py."""
FLOAT_BYTES = 4
"""Bytes per number in the array that a model reads."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """The bytes as they were sent, with width and height in pixels (upright) and the content's digest.

    Its pixels are decoded whenever they are needed, and not kept. Methods that need them may have to wait, and raise
    TooManyRequests if too many are waiting already.
    """

    data: bytes = field(repr=False)
    width: int
    height: int
    digest: str
    """Hexadecimal SHA-256 of `data`."""
    name: str = ""

    def rgb(self) -> Image.Image:
        """The image as people see it: first frame, turned as EXIF says, transparency over white, 8-bit RGB."""
        facts, data = self._ask("plain", more=6 * self.width * self.height)
        return Image.frombytes("RGB", tuple(facts["size"]), data)

    @property
    def media_type(self) -> str:
        return media_type(self.data)

    def thumbnail(self, side: int) -> bytes:
        """A JPEG of at most `side` × `side` pixels without any metadata."""
        return self.rewritten(longest=side, format="JPEG", draft=True)[0]

    def shrunk(self, side: int) -> "ImageFile":
        """The same image, lossless, with at most `side` × `side` pixels; itself if it is small enough."""
        if max(self.width, self.height) <= side:
            return self
        data, (width, height), _ = self.rewritten(longest=side, format="PNG", resample=Image.Resampling.LANCZOS)
        return ImageFile(data, width, height, hashlib.sha256(data).hexdigest(), self.name)

    def rewritten(
        self,
        *,
        longest: int,
        format: str,
        shortest: int = 0,
        photo: int = MAX_PIXELS,
        quality: int = 85,
        resample: Image.Resampling = Image.Resampling.BICUBIC,
        draft: bool = False,
    ) -> tuple[bytes, Size, str]:
        """The image as a new file without any metadata, with its size and format: JPEG or PNG.

        Its longer side has `shortest` to `longest` pixels; above `photo` pixels, it is a JPEG whatever the `format`. A `draft` is
        scaled down while it is decoded, if the format allows that.
        """
        wanted = {"longest": longest, "shortest": shortest, "photo": photo, "quality": quality}
        how = {**wanted, "format": format, "resample": int(resample), "draft": draft}
        facts, data = self._ask("rewrite", how)
        return data, (facts["size"][0], facts["size"][1]), facts["format"]

    def scaled(self, width: int, height: int) -> np.ndarray:
        """float32 (height, width, 3), 0 to 255, scaled as mistral-common does it."""
        _, data = self._ask("scale", width, height, more=self._scaling_bytes(width, height))
        return np.frombuffer(data, np.float32).reshape(height, width, 3)

    def fitted(
        self, size: Size, *, enlarged: Size = (0, 0), photo: int = MAX_PIXELS, quality: int = 92
    ) -> tuple[bytes, str]:
        """A file of exactly `size`, scaled as by `scaled`, with its format: JPEG above `photo` pixels, else PNG.

        If the image is smaller than `enlarged`, it gets that size first, without smoothing.
        """
        how = {"size": size, "enlarged": enlarged, "photo": photo, "quality": quality}
        facts, data = self._ask("fit", how, more=self._scaling_bytes(*size))
        return data, facts["format"]

    def _scaling_bytes(self, width: int, height: int) -> int:
        """Memory for scaling to this size, beyond that for plain RGB."""
        small = max(
            self.height * width, self.width * self.height if self.width * self.height < MAX_SINGLE_STEP_PIXELS else 0
        )
        return 3 * FLOAT_BYTES * (small + 3 * width * height)

    def _ask(self, what: str, *values: Any, more: int = 0) -> tuple[dict[str, Any], bytes]:
        with _refused_by_name(self.name):
            return decoders().call(self.data, what, *values, more=more)


def read_image(data: bytes, name: str = "", *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> ImageFile:
    """The image in `data`. Raises ImageRefused, with the file's `name` and the limit, if it cannot be used.

    The size is read from the header first, so that a decompression bomb is never unpacked. It may wait, like `ImageFile`.
    """
    return _read(data, name, max_bytes, max_pixels, sound=True)


def measure_image(
    data: bytes, name: str = "", *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS
) -> ImageFile:
    """The image in `data` from its header, which is enough to count its tokens; whether it is intact is not checked."""
    return replace(_read(data, name, max_bytes, max_pixels, sound=False), data=b"")


def _read(data: bytes, name: str, max_bytes: int, max_pixels: int, *, sound: bool) -> ImageFile:
    if len(data) > max_bytes:
        raise ImageRefused("picture_too_large", name=name, limit=max_bytes // 2**20)
    digest = hashlib.sha256(data).hexdigest()
    with _refused_by_name(name, max_pixels, begun=has_image_signature(data)):
        read_size = decoders().check if sound else decoders().size
        width, height = read_size(data, digest, max_pixels)
    return ImageFile(data, width, height, digest, name)


@contextmanager
def _refused_by_name(name: str, max_pixels: int = MAX_PIXELS, *, begun: bool = True) -> Iterator[None]:
    """Turns DecodingRefused into ImageRefused, with the file's name."""
    try:
        yield
    except DecodingRefused as error:
        if error.key == "picture_too_many_pixels":
            width, height = error.size
            limit = max_pixels // 10**6
            raise ImageRefused(error.key, name=name, width=width, height=height, limit=limit) from error
        broken = error.key == "picture_not_an_image" and begun
        raise ImageRefused("picture_broken" if broken else error.key, name=name) from error


def shrunk_size(width: int, height: int, side: int) -> Size:
    """What `ImageFile.shrunk` makes of a size, without an image; computed as PIL's `Image.thumbnail` does."""
    if max(width, height) <= side:
        return width, height
    ratio = width / height
    if ratio <= 1:
        return _nearest(side * ratio, lambda n: abs(ratio - n / side)), side
    return side, _nearest(side / ratio, lambda n: abs(ratio - side / n) if n else 0)


def _nearest(number: float, distance: Callable[[int], float]) -> int:
    return max(min(math.floor(number), math.ceil(number), key=distance), 1)


def media_type(data: bytes) -> str:
    """The media type, such as `image/png`, by the first bytes; empty if the format is not accepted."""
    brand, brands = data[8:12], data[8 : 8 + 64]
    if data[4:8] == b"ftyp":
        avif = brand in (b"avif", b"avis") or (brand in (b"mif1", b"msf1") and b"avi" in brands)
        return "image/avif" if avif else "image/heif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for mark, kind in MAGIC_BYTES.items() if data.startswith(mark)), "")


Sent = TypeVar("Sent")


def read_images(sent: Iterable[Sent], read: Callable[[Sent], ImageFile]) -> list[ImageFile]:
    """The image that `read` returns for each; if some are refused, one error names all of them."""
    images: list[ImageFile] = []
    refused: list[ImageRefused] = []
    for each in sent:
        try:
            images.append(read(each))
        except ImageRefused as error:
            refused.append(error)
    if len(refused) > 1:
        raise ImagesRefused(count=len(refused), names=", ".join(str(error.message.values["name"]) for error in refused))
    if refused:
        raise refused[0]
    return images


def has_image_signature(data: bytes) -> bool:
    """Whether a file that PIL cannot identify begins with the signature of an image format."""
    brands = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1")
    return data.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8")) or (
        (data[:4] == b"RIFF" and data[8:12] == b"WEBP") or (data[4:8] == b"ftyp" and data[8:12] in brands)
    )
