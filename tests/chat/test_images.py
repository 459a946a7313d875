"""Pictures of every kind that people send are read as they look, and everything else gets its sentence's key."""

import hashlib
import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from magistral_ui.chat.image_worker import EXIF_TRANSPOSES
from magistral_ui.chat.images import ImageFile, read_image, read_images
from magistral_ui.errors import ImageRefused, ImagesRefused
from tests.chat import heic

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
Colour = tuple[int, ...]


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def plain(mode: str, colour: Any, size: tuple[int, int] = (6, 4)) -> Image.Image:
    return Image.new(mode, size, colour)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def palette_with_transparency() -> bytes:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putdata([0, 1])
    return encoded(image, "PNG", transparency=1)


def frames(format: str) -> bytes:
    first, second = plain("RGB", RED), plain("RGB", BLUE)
    options = {"lossless": True} if format == "WEBP" else {}
    return encoded(first, format, save_all=True, append_images=[second], **options)


def pixel(data: bytes, x: int = 0, y: int = 0) -> Colour:
    rgb = read_image(data).rgb()
    assert rgb.mode == "RGB"
    found = rgb.getpixel((x, y))
    assert isinstance(found, tuple)
    return found


def near(found: Colour, wanted: Colour) -> bool:
    return all(abs(a - b) <= 6 for a, b in zip(found, wanted, strict=True))


GREY16 = struct.pack(">B2H", 0, 0x0000, 0x8000)
RGB16 = struct.pack(">B3H", 0, 0xFFFF, 0x8000, 0x0000)

KINDS: dict[str, tuple[bytes, Colour]] = {
    "1x1": (encoded(plain("RGB", RED, (1, 1)), "PNG"), RED),
    "alpha, clear": (encoded(plain("RGBA", (255, 0, 0, 0)), "PNG"), WHITE),
    "alpha, half": (encoded(plain("RGBA", (255, 0, 0, 128)), "PNG"), (255, 127, 127)),
    "alpha, webp": (encoded(plain("RGBA", (255, 0, 0, 0)), "WEBP", lossless=True, exact=True), WHITE),
    "grey and alpha": (encoded(plain("LA", (0, 128)), "PNG"), (127, 127, 127)),
    "grey": (encoded(plain("L", 90), "PNG"), (90, 90, 90)),
    "bilevel": (encoded(plain("1", 1), "PNG"), WHITE),
    "palette": (encoded(plain("RGB", GREEN).convert("P"), "PNG"), GREEN),
    "palette with transparency": (palette_with_transparency(), RED),
    "16-bit RGB": (png(1, 1, 16, 2, RGB16), (255, 128, 0)),
    "16-bit grey": (png(2, 1, 16, 0, GREY16), (0, 0, 0)),
    "CMYK": (encoded(plain("CMYK", (0, 255, 255, 0)), "JPEG", quality=95), RED),
    "JPEG": (encoded(plain("RGB", BLUE), "JPEG", quality=95), BLUE),
    "camera's double picture": (
        encoded(plain("RGB", RED), "MPO", save_all=True, append_images=[plain("RGB", BLUE)], quality=95),
        RED,
    ),
    "animated GIF": (frames("GIF"), RED),
    "animated WebP": (frames("WEBP"), RED),
    "BMP": (encoded(plain("RGB", GREEN), "BMP"), GREEN),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_read_as_people_see_it(kind: str) -> None:
    data, colour = KINDS[kind]
    assert near(pixel(data), colour)


def test_transparent_palette_entries_are_white() -> None:
    assert pixel(palette_with_transparency(), 1) == WHITE


def test_16_bit_grey_keeps_its_brightness() -> None:
    assert pixel(png(2, 1, 16, 0, GREY16), 1) == (128, 128, 128)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_upright(orientation: int) -> None:
    upright = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6) * 10)  # all pixels differ
    undo = {turn: turn for turn in EXIF_TRANSPOSES.values()} | {
        EXIF_TRANSPOSES[6]: EXIF_TRANSPOSES[8],
        EXIF_TRANSPOSES[8]: EXIF_TRANSPOSES[6],
    }
    taken = upright if orientation == 1 else upright.transpose(undo[EXIF_TRANSPOSES[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read_image(encoded(taken, "PNG", exif=exif))
    assert (image.width, image.height) == (6, 4)
    assert np.array_equal(np.asarray(image.rgb())[:, :, 0], np.asarray(upright))


def test_a_phone_s_heic_is_read_turned_upright_once() -> None:
    image = read_image(heic.PHOTO, "IMG_0001.HEIC")
    assert (image.width, image.height, image.media_type) == (32, 64, "image/heif")
    assert near(pixel(image.data, 16, 8), RED)
    assert near(pixel(image.data, 16, 56), BLUE)
    assert b"taken at home" in image.data
    assert b"taken at home" not in image.thumbnail(64)
    small = image.shrunk(32)
    assert (small.width, small.height, small.media_type) == (16, 32, "image/png")


def test_a_heic_that_lies_about_its_size_is_not_unpacked() -> None:
    size = struct.pack(">II", 64, 64)  # of what is coded; what is seen is cut out of it
    at = heic.PHOTO.index(b"ispe") + 8
    assert heic.PHOTO[at : at + 4] == size[:4]
    for claimed in (struct.pack(">II", 30_000, 30_000), struct.pack(">II", 8, 8)):
        with pytest.raises(ImageRefused):
            read_image(heic.PHOTO[:at] + claimed + heic.PHOTO[at + 8 :], "bomb.heic")


def test_all_files_that_are_refused_are_named_at_once() -> None:
    files = {"a.svg": b"<svg/>", "good.png": SOUND, "half.jpg": PHOTO[: len(PHOTO) // 2]}
    with pytest.raises(ImagesRefused) as refused:
        read_images(files.items(), lambda file: read_image(file[1], file[0]))
    assert refused.value.message.values == {"count": 2, "names": "a.svg, half.jpg"}
    with pytest.raises(ImageRefused) as one:
        read_images([("a.svg", b"<svg/>")], lambda file: read_image(file[1], file[0]))
    assert one.value.message.key == "picture_not_an_image"
    assert [each.name for each in read_images([("good.png", SOUND)], lambda file: read_image(file[1], file[0]))] == [
        "good.png"
    ]


def test_damaged_exif_does_not_spoil_a_sound_photo() -> None:
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff" + b"\xff" * 40
    image = read_image(encoded(plain("RGB", BLUE), "JPEG", exif=exif))
    assert (image.width, image.height) == (6, 4)
    assert near(pixel(image.data), BLUE)


def test_an_image_knows_its_size_name_and_digest() -> None:
    data = encoded(plain("RGB", RED), "PNG")
    assert read_image(data, "red.png") == ImageFile(data, 6, 4, hashlib.sha256(data).hexdigest(), "red.png")


def test_a_thumbnail_is_small_and_says_nothing_of_the_photo() -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    data = encoded(plain("RGB", RED, (300, 200)), "JPEG", exif=exif)
    assert b"taken at home" in data
    small = read_image(data).thumbnail(64)
    assert b"taken at home" not in small
    assert Image.open(io.BytesIO(small)).size == (64, 43)


SOUND = encoded(Image.effect_noise((64, 64), 80).convert("RGB"), "PNG")
PHOTO = encoded(Image.effect_noise((64, 64), 80).convert("RGB"), "JPEG")


@pytest.mark.parametrize(
    ("data", "key"),
    [
        (b"", "picture_not_an_image"),
        (b"just words, renamed to .png", "picture_not_an_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "picture_not_an_image"),
        (b"%PDF-1.7\n", "picture_not_an_image"),
        (SOUND[: len(SOUND) // 2], "picture_broken"),
        (PHOTO[: len(PHOTO) // 2], "picture_broken"),
        (SOUND[:200] + bytes(200) + SOUND[400:], "picture_broken"),
        (SOUND[:20], "picture_broken"),
        (PHOTO[:30], "picture_broken"),
        (heic.PHOTO[:-9], "picture_broken"),
        (heic.PHOTO[:40], "picture_broken"),
        (encoded(plain("RGB", RED), "TIFF"), "picture_not_an_image"),
    ],
    ids=[
        *("empty", "text", "svg", "pdf", "half a PNG", "half a JPEG", "damaged PNG", "a PNG's beginning"),
        *("a JPEG's beginning", "most of a HEIC", "a HEIC's beginning", "TIFF"),
    ],
)
def test_what_is_no_sound_image_is_refused_by_name(data: bytes, key: str) -> None:
    with pytest.raises(ImageRefused) as refused:
        read_image(data, "holiday.png")
    assert refused.value.message.key == key
    assert refused.value.message.values["name"] == "holiday.png"


@pytest.mark.parametrize("side", [11_000, 30_000, 60_000])
def test_a_bomb_is_refused_without_being_unpacked(side: int) -> None:
    packer = zlib.compressobj()
    row = bytes(side // 8 + 2)
    rows = b"".join(packer.compress(row) for _ in range(1000)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    tracemalloc.start()
    with pytest.raises(ImageRefused) as refused:
        read_image(bomb, "bomb.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused.value.message.key == "picture_too_many_pixels"
    assert refused.value.message.values["limit"] == 120
    assert peak < 4 * 2**20


def test_the_largest_phone_s_photo_is_allowed() -> None:
    # 108 megapixels; one bit per pixel keeps the test quick.
    rows = zlib.compress(bytes(9000 * (12_000 // 8 + 1)))
    header = struct.pack(">IIBBBBB", 12_000, 9_000, 1, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    image = read_image(data)
    assert (image.width, image.height) == (12_000, 9_000)


def test_too_many_bytes_are_refused_unread() -> None:
    with pytest.raises(ImageRefused) as refused:
        read_image(SOUND, "big.png", max_bytes=len(SOUND) - 1)
    assert refused.value.message.key == "picture_too_large"
    assert read_image(SOUND, max_bytes=len(SOUND)).width == 64


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_of_any_kind_is_fitted_as_people_see_it(kind: str) -> None:
    data, colour = KINDS[kind]
    file, format = read_image(data).fitted((56, 28), enlarged=(56, 37))
    assert format == "PNG"
    image = Image.open(io.BytesIO(file))
    assert (image.size, image.mode) == ((56, 28), "RGB")
    assert near(image.getpixel((1, 1)), colour)


def test_a_fitted_image_is_upright_and_tells_nothing_of_the_photo() -> None:
    file, _ = read_image(heic.PHOTO).fitted((28, 56))
    image = Image.open(io.BytesIO(file))
    assert near(image.getpixel((14, 6)), RED)
    assert near(image.getpixel((14, 50)), BLUE)
    assert b"taken at home" not in file


def test_a_fitted_image_has_the_pixels_of_the_scaled_one() -> None:
    noise = read_image(encoded(Image.effect_noise((90, 70), 80).convert("RGB"), "PNG"))
    file, _ = noise.fitted((112, 84))
    exact = noise.scaled(112, 84).clip(0, 255)
    assert np.abs(np.asarray(Image.open(io.BytesIO(file)), np.float32) - exact).max() <= 0.5


def test_a_large_fitted_photo_is_a_jpeg_where_that_is_wanted() -> None:
    photo = read_image(encoded(plain("RGB", RED, (90, 70)), "PNG"))
    file, format = photo.fitted((112, 84), photo=112 * 84 - 1)
    assert format == "JPEG"
    assert Image.open(io.BytesIO(file)).size == (112, 84)
