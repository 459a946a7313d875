"""A picture that someone sent: checked before it is decoded, then made plain RGB; it knows bytes, no paths, no URLs."""

import hashlib
import io
import warnings
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from magistral_ui.errors import PictureRefused

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "AVIF")
MAX_BYTES = 50 * 2**20
MAX_PIXELS = 120_000_000
"""A 108-megapixel phone's photo is 12,000 × 9,000; PIL itself stops at 179 million."""


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
            image: Image.Image = Image.open(io.BytesIO(self.data), formats=FORMATS)
            image.load()
            return _plain(ImageOps.exif_transpose(image))

    def thumbnail(self, side: int) -> bytes:
        """A JPEG of at most `side` × `side` pixels without any metadata."""
        image = self.rgb()
        image.thumbnail((side, side))
        out = io.BytesIO()
        image.save(out, "JPEG", quality=85)
        return out.getvalue()


def read_picture(data: bytes, name: str = "", *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> Picture:
    """The picture in `data`; PictureRefused, with the file's `name` and the broken limit, where there is none to use.

    The size is read from the header first, so that a decompression bomb is never unpacked.
    """
    if len(data) > max_bytes:
        raise PictureRefused("picture_too_large", name=name, limit=max_bytes // 2**20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise PictureRefused(
                        "picture_too_many_pixels",
                        name=name,
                        width=image.width,
                        height=image.height,
                        limit=max_pixels // 10**6,
                    )
                image.load()
                turned = ImageOps.exif_transpose(image)
        except Image.DecompressionBombError as error:
            raise PictureRefused(
                "picture_too_many_pixels", name=name, width=0, height=0, limit=max_pixels // 10**6
            ) from error
        except UnidentifiedImageError as error:
            raise PictureRefused("picture_not_an_image", name=name) from error
        except (OSError, ValueError, SyntaxError, EOFError, OverflowError, ArithmeticError) as error:
            # What PIL's decoders raise for truncated and damaged files.
            raise PictureRefused("picture_broken", name=name) from error
    return Picture(data, turned.width, turned.height, hashlib.sha256(data).hexdigest(), name)


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
