"""Decodes one image after another in a child process: first the header, then whatever is requested of its pixels.

It runs in a process with hard limits (bounded_process.py), since headers can lie and decoders have vulnerabilities.
"""

import io
import re
import struct
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pi_heif
from PIL import AvifImagePlugin, Image, UnidentifiedImageError

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF", "HEIF")
"""PIL opens MPO, the double images of some cameras, as JPEG. TIFF is left out: a container for dozens of codecs, with the longest
list of vulnerabilities of all that PIL opens, and no browser but Safari shows it."""
# What PIL's decoders raise for truncated and damaged files.
DECODE_ERRORS = (
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
EXIF_ORIENTATION = 0x0112
EXIF_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How to turn an image upright, by its EXIF orientation."""
SWAPS_SIDES = frozenset({EXIF_TRANSPOSES[5], EXIF_TRANSPOSES[6], EXIF_TRANSPOSES[7], EXIF_TRANSPOSES[8]})
STRIP_ROWS = 256
"""Rows of an image that are converted together, so that only they are in memory twice."""
MAX_SINGLE_STEP_PIXELS = 4_000_000
"""Pixels up to which an image is scaled for the model in one step, as mistral-common does it. A larger one is scaled first in
width and then in height: the same but for the last bit of some numbers, with a tenth of the memory."""
BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "LA": 4, "PA": 4, "I;16": 2, "I;16B": 2, "I;16L": 2}
"""Bytes per pixel in PIL's memory; 4 in all other modes."""
DECODERS = {"PNG": 0, "GIF": 2, "BMP": 2, "WEBP": 15, "AVIF": 18, "HEIF": 16}
"""Bytes per pixel that a format's decoder takes besides PIL's own: measured 0, 1, 1, 14, 10 and 7, the last two with 8 bits per
channel, so nearly doubled for 10 and 12 bits."""
USUAL_SCANS, SCANNED_PIXELS = 20, 1_000_000_000
"""Scans of a JPEG, of which cameras and programs write a dozen at most; with more than these, the pixels of all scans together.
A scan may be a few bytes long, yet it covers the whole image, which takes a second for this many pixels."""
NEXT_MARK = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
"""The next marker of a JPEG, after coded data."""
OVERHEAD_BYTES = 32 * 2**20
"""Bytes in addition to the pixels: tables, strips, and output."""


class ImageDecoder:
    """Answers calls about one image: `open` with its bytes, then at most one other call, which frees it."""

    def __init__(self) -> None:
        warnings.simplefilter("ignore")
        pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
        Image.init()
        self._image: Image.Image | None = None
        with suppress(OSError):  # if memory runs out anyway, this process is killed first
            Path("/proc/self/oom_score_adj").write_text("1000")

    def __call__(self, *arguments: Any) -> tuple[Any, bytes]:
        """`data, "open"`, or the name of a call and its values. The answer contains the processor time taken."""
        began = time.process_time()
        try:
            value, data = self._answer(*arguments)
        except Image.DecompressionBombError:
            value, data = {"refused": "picture_too_many_pixels"}, b""
        except UnidentifiedImageError:
            value, data = {"refused": "picture_not_an_image"}, b""
        except DECODE_ERRORS:
            value, data = {"refused": "picture_broken"}, b""
        return {**value, "seconds": time.process_time() - began}, data

    def _answer(self, *arguments: Any) -> tuple[dict[str, Any], bytes]:
        self._image, image = None, self._image
        match arguments:
            case (bytes() as data, "open"):
                self._image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
                if self._image.format in ("JPEG", "MPO"):
                    check_scans(data, self._image.width * self._image.height)
                return facts(self._image, data), b""
            case ("check",) if image is not None:
                return check(image), b""
            case ("plain",) if image is not None:
                found = upright(image)
                del image
                return {"size": found.size}, found.tobytes()
            case ("rewrite", wanted) if image is not None:
                found = upright(image, wanted["longest"] if wanted.pop("draft") else None)
                del image
                return rewritten(found, **wanted)
            case ("scale", width, height) if image is not None:
                found = upright(image)
                del image
                return {}, scaled(found, (width, height)).tobytes()
            case ("fit", wanted) if image is not None:
                found = upright(image)
                del image
                return fitted(found, **wanted)
        raise LookupError


def facts(image: Image.Image, data: bytes) -> dict[str, Any]:
    """What the header says: the size, that of the upright image if already known, and the bytes that decoding takes."""
    upright = None if image.format == "PNG" and _has_late_chunks(data) else _upright_size(image)
    check, whole = needed(image, len(data))
    return {"size": image.size, "upright": upright, "check": check, "whole": whole}


def check_scans(data: bytes, pixels: int) -> None:
    """Raises ValueError for a JPEG with more scans over its `pixels` than anybody needs, before decoding any of them."""
    most = max(USUAL_SCANS, SCANNED_PIXELS // max(1, pixels))
    at = scans = 0
    while (mark := NEXT_MARK.search(data, at)) and mark[1] != b"\xd9":
        at = mark.end()
        if mark[1] not in (b"\xd8", b"\x01"):  # the others have a length
            at += int.from_bytes(data[at : at + 2], "big")
        scans += mark[1] == b"\xda"
        if scans > most:
            raise ValueError("too many scans")


def needed(image: Image.Image, length: int) -> tuple[int, int]:
    """Bytes of memory to check whether an image of `length` bytes is intact, and to convert it to plain RGB."""
    pixels = image.width * image.height
    own = BYTES_PER_PIXEL.get(image.mode, 4)
    around = OVERHEAD_BYTES + 3 * length
    if image.format in ("JPEG", "MPO"):
        # A progressive one is kept whole as coefficients of two bytes until the last scan has come.
        waiting = 2 * len(image.getbands()) if image.info.get("progressive") or image.info.get("progression") else 0
        return around + pixels * (waiting + 1), around + pixels * max(waiting + own + 1, own + 9)
    decoded = own + DECODERS[image.format or "HEIF"]
    return around + pixels * decoded, around + pixels * max(decoded + 5, own + 9)


def check(image: Image.Image) -> dict[str, Any]:
    """Decode all of it, and return the size of the upright image. Raises DECODE_ERRORS."""
    upright = _upright_size(image) if image.format != "PNG" else None
    if image.format in ("JPEG", "MPO"):
        image.draft(image.mode, (1, 1))  # all coded data is read anyway
    image.load()
    return {"upright": upright or _upright_size(image)}


def upright(image: Image.Image, draft: int | None = None) -> Image.Image:
    """The image as people see it: first frame, turned as EXIF says, transparency over white, 8-bit RGB.

    With a `draft`, it may be scaled down to save memory, but no side that was longer than `draft` gets shorter than that.
    """
    if draft and image.format in ("JPEG", "MPO"):
        image.draft(image.mode, (draft, draft))
    image.load()
    turn, found = _turn(image), _plain(image)
    return found if turn is None else found.transpose(turn)


def rewritten(
    image: Image.Image,
    *,
    longest: int,
    shortest: int,
    resample: int,
    format: str,
    photo: int,
    quality: int,
) -> tuple[dict[str, Any], bytes]:
    """A new file without metadata, its longer side `shortest` to `longest` pixels; JPEG above `photo` pixels, else `format`."""
    longer = max(image.size)
    if longer > longest:
        image.thumbnail((longest, longest), Image.Resampling(resample))
    elif longer < shortest:
        scale = shortest / longer
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.NEAREST)
    return written(image, format, photo, quality)


def fitted(
    image: Image.Image, *, size: tuple[int, int], enlarged: tuple[int, int], photo: int, quality: int
) -> tuple[dict[str, Any], bytes]:
    """A new file of exactly `size`, with the pixels of `scaled` in 8 bits; JPEG above `photo` pixels, else PNG."""
    if max(enlarged) > max(image.size):
        image = image.resize(enlarged, Image.Resampling.NEAREST)
    pixels = np.rint(scaled(image, size)).clip(0, 255).astype(np.uint8)
    return written(Image.fromarray(pixels), "PNG", photo, quality)


def written(image: Image.Image, format: str, photo: int, quality: int) -> tuple[dict[str, Any], bytes]:
    kind = "JPEG" if image.width * image.height > photo else format
    options: dict[str, Any] = {"JPEG": {"quality": quality}, "PNG": {"compress_level": 1}}[kind]
    out = io.BytesIO()
    image.save(out, kind, **options)
    return {"size": image.size, "format": kind}, out.getvalue()


def scaled(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """float32 (height, width, 3) of `size`, by OpenCV's cubic interpolation, as mistral-common scales an image."""
    import cv2

    if image.width * image.height <= MAX_SINGLE_STEP_PIXELS:
        return np.asarray(cv2.resize(np.array(image, dtype=np.float32), size, interpolation=cv2.INTER_CUBIC))
    wide = np.empty((image.height, size[0], 3), np.float32)
    for top, strip in _strips(image):
        rows = np.array(strip, dtype=np.float32)
        wide[top : top + strip.height] = cv2.resize(rows, (size[0], strip.height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(cv2.resize(wide, size, interpolation=cv2.INTER_CUBIC))


def _has_late_chunks(data: bytes) -> bool:
    """Whether a PNG has chunks after its pixels, which PIL reads only once it has decoded them."""
    at, seen = 8, False
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        at += length + 12
        seen = seen or kind == b"IDAT"
        if seen and kind not in (b"IDAT", b"IEND"):
            return True
    return False


def _upright_size(image: Image.Image) -> tuple[int, int]:
    return (image.height, image.width) if _turn(image) in SWAPS_SIDES else image.size


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How to turn `image` upright, without decoding it. Not ImageOps.exif_transpose: intact pixels may have damaged EXIF."""
    try:
        orientation = Image.Image.getexif(image).get(EXIF_ORIENTATION)  # a PNG's own method would decode the image
    except DECODE_ERRORS:
        return None
    return EXIF_TRANSPOSES.get(orientation) if isinstance(orientation, int) else None


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    for top in range(0, image.height, STRIP_ROWS):
        yield top, image.crop((0, top, image.width, min(top + STRIP_ROWS, image.height)))


def _plain(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    out = Image.new("RGB", image.size)
    for top, strip in _strips(image):
        out.paste(_plain_strip(strip), (0, top))
    return out


def _plain_strip(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image, dtype=np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):  # 16-bit grey kept in wide numbers
        return Image.fromarray((np.asarray(image).clip(0, 65535) / 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        coloured = image.convert("RGBA")
        ground = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(ground, coloured).convert("RGB")
    return image.convert("RGB")
