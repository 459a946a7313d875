"""A picture that someone sent: checked before it is decoded, then made plain RGB; it knows bytes, no paths, no URLs."""

import hashlib
import io
import struct
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

import numpy as np
import pi_heif
from PIL import Image, UnidentifiedImageError

from magistral_ui.errors import PictureRefused, PicturesRefused

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF", "HEIF")
"""PIL opens MPO, the double pictures of some cameras, as JPEG. TIFF is left out: a container for dozens of codecs, with the
longest list of holes of all that PIL opens, and no browser but Safari shows it."""
FOR_BROWSERS = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp", "image/avif"})
"""What every browser shows by itself; of the others it gets a thumbnail."""
MAX_BYTES = 50 * 2**20
MAX_PIXELS = 120_000_000
"""A 108-megapixel phone's photo is 12,000 × 9,000; PIL itself stops at 179 million."""
# What PIL's decoders raise for truncated and damaged files.
DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    ArithmeticError,
    LookupError,
    TypeError,
    RuntimeError,
    struct.error,
)
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How to turn a picture upright, by its EXIF orientation."""


@dataclass(frozen=True, slots=True)
class Picture:
    """The bytes as they were sent, with width and height in pixels (after turning) and the content's digest."""

    data: bytes = field(repr=False)
    width: int
    height: int
    digest: str
    """Hexadecimal SHA-256 of `data`."""
    name: str = ""

    def rgb(self) -> Image.Image:
        """The picture as people see it: first frame, turned as EXIF says, transparency over white, 8-bit RGB."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = _open(self.data)
            image.load()
            turn = _turn(image)
            return _plain(image if turn is None else image.transpose(turn))

    @property
    def media_type(self) -> str:
        """Such as `image/png`, read from the bytes."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            format = _open(self.data).format or ""
        return "image/jpeg" if format == "MPO" else Image.MIME[format]

    def thumbnail(self, side: int) -> bytes:
        """A JPEG of at most `side` × `side` pixels without any metadata."""
        image = self.rgb()
        image.thumbnail((side, side))
        out = io.BytesIO()
        image.save(out, "JPEG", quality=85)
        return out.getvalue()

    def shrunk(self, side: int) -> "Picture":
        """The same picture, lossless, with at most `side` × `side` pixels; itself where it is as small already."""
        if max(self.width, self.height) <= side:
            return self
        image = self.rgb()
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        image.save(out, "PNG", compress_level=1)
        data = out.getvalue()
        return Picture(data, image.width, image.height, hashlib.sha256(data).hexdigest(), self.name)


def read_picture(data: bytes, name: str = "", *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> Picture:
    """The picture in `data`; PictureRefused, with the file's `name` and the broken limit, where there is none to use.

    The size is read from the header first, so that a decompression bomb is never unpacked.
    """
    if len(data) > max_bytes:
        raise PictureRefused("picture_too_large", name=name, limit=max_bytes // 2**20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _open(data) as image:
                if image.width * image.height > max_pixels:
                    raise PictureRefused(
                        "picture_too_many_pixels",
                        name=name,
                        width=image.width,
                        height=image.height,
                        limit=max_pixels // 10**6,
                    )
                image.load()
                lies = _turn(image) in (TURNS[5], TURNS[6], TURNS[7], TURNS[8])
                width, height = (image.height, image.width) if lies else image.size
        except Image.DecompressionBombError as error:
            raise PictureRefused(
                "picture_too_many_pixels", name=name, width=0, height=0, limit=max_pixels // 10**6
            ) from error
        except UnidentifiedImageError as error:
            key = "picture_broken" if _begins_as_one(data) else "picture_not_an_image"
            raise PictureRefused(key, name=name) from error
        except DAMAGE as error:
            raise PictureRefused("picture_broken", name=name) from error
    return Picture(data, width, height, hashlib.sha256(data).hexdigest(), name)


Sent = TypeVar("Sent")


def read_all(sent: Iterable[Sent], read: Callable[[Sent], Picture]) -> list[Picture]:
    """What `read` makes of each; where some are refused, all of these are told at once, by name."""
    pictures: list[Picture] = []
    refused: list[PictureRefused] = []
    for each in sent:
        try:
            pictures.append(read(each))
        except PictureRefused as error:
            refused.append(error)
    if len(refused) > 1:
        raise PicturesRefused(count=len(refused), names=", ".join(str(error.values["name"]) for error in refused))
    if refused:
        raise refused[0]
    return pictures


def _open(data: bytes) -> Image.Image:
    """What PIL makes of the header; nothing is unpacked yet."""
    _register_heif()
    return Image.open(io.BytesIO(data), formats=FORMATS)


def _begins_as_one(data: bytes) -> bool:
    """Whether a file that PIL cannot make out begins like a picture of one of the formats."""
    brands = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1")
    return data.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8")) or (
        (data[:4] == b"RIFF" and data[8:12] == b"WEBP") or (data[4:8] == b"ftyp" and data[8:12] in brands)
    )


@cache
def _register_heif() -> None:
    """Let PIL open HEIC and HEIF, the photos of phones. libheif holds what it unpacks to the size that the header names."""
    pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How to turn `image` upright. Not ImageOps.exif_transpose: it fails on damaged EXIF beside sound pixels."""
    try:
        orientation = image.getexif().get(ORIENTATION)
    except DAMAGE:
        return None
    return TURNS.get(orientation) if isinstance(orientation, int) else None


def _plain(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image, dtype=np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):  # 16-bit grey kept in wide numbers
        return Image.fromarray((np.asarray(image).clip(0, 65535) / 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        coloured = image.convert("RGBA")
        ground = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(ground, coloured).convert("RGB")
    return image.convert("RGB")
