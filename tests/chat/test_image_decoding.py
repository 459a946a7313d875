"""Decoding takes no more than was reckoned before, comes in turn, and leaves nothing behind."""

import hashlib
import io
import random
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from magistral_ui.bounded_process import BoundedProcess, ProcessLimits
from magistral_ui.chat import image_decoding
from magistral_ui.chat.image_decoding import Decoders, DecodingMemory, DecodingQueue, DecodingRefused
from magistral_ui.chat.image_worker import MAX_SINGLE_STEP_PIXELS, OVERHEAD_BYTES, ImageDecoder, scaled
from magistral_ui.chat.images import ImageFile, measure_image, read_image, shrunk_size
from magistral_ui.errors import ImageRefused, TooManyRequests
from magistral_ui.fairness import Quota
from tests.chat import heic
from tests.chat.test_images import chunk, encoded, plain

linux = pytest.mark.skipif(sys.platform != "linux", reason="only there the memory of a child is bounded and told")
SIDE = 2000
MOST = 120_000_000


def turned(orientation: int = 6) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def photo(mode: str = "RGB", side: int = SIDE) -> Image.Image:
    """A picture that is no single colour, quickly made."""
    image = Image.linear_gradient("L").resize((side, side), Image.Resampling.NEAREST)
    return Image.merge("RGBA", [image] * 4) if mode == "RGBA" else image.convert(mode)


def sixteen_bits() -> bytes:
    return encoded(Image.fromarray(np.asarray(photo("L")).astype(np.uint16) * 257), "PNG", compress_level=1)


def animated(format: str, mode: str, **options: Any) -> bytes:
    return encoded(photo(mode), format, save_all=True, append_images=[photo(mode).rotate(90)], **options)


FAST = {"compress_level": 1}
FILES: dict[str, Callable[[], bytes]] = {
    "PNG": lambda: encoded(photo(), "PNG", **FAST),
    "PNG, transparent and turned": lambda: encoded(photo("RGBA"), "PNG", exif=turned(), **FAST),
    "PNG, palette": lambda: encoded(photo("P"), "PNG", transparency=3, **FAST),
    "PNG, one bit": lambda: encoded(photo("1"), "PNG", **FAST),
    "PNG, 16 bits": sixteen_bits,
    "PNG, animated": lambda: animated("PNG", "RGB", **FAST),
    "JPEG, turned": lambda: encoded(photo(), "JPEG", exif=turned()),
    "JPEG, progressive": lambda: encoded(photo(), "JPEG", progressive=True, subsampling=0, quality=95),
    "JPEG, CMYK, progressive": lambda: encoded(photo("CMYK"), "JPEG", progressive=True),
    "WebP": lambda: encoded(photo("RGBA"), "WEBP", method=0, exif=turned()),
    "WebP, lossless": lambda: encoded(photo(), "WEBP", lossless=True, method=0, quality=0),
    "WebP, animated": lambda: animated("WEBP", "RGBA", method=0),
    "GIF, animated": lambda: animated("GIF", "P", disposal=2, transparency=3),
    "BMP": lambda: encoded(photo(), "BMP"),
    "AVIF": lambda: encoded(photo("RGBA"), "AVIF", speed=10, subsampling="4:4:4", quality=90),
}
REWRITE = {"longest": 1540, "shortest": 56, "resample": 3, "format": "PNG", "photo": 300_000, "quality": 92}


def peak(data: bytes, *call: Any) -> dict[str, Any]:
    """In a child: the memory that a call really takes, and what was reckoned."""
    pixels = ImageDecoder()
    facts, _ = pixels(data, "open")
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    told, _ = pixels(*call)
    return {**facts, "taken": _status("VmHWM") - before, "refused": told.get("refused")}


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


@pytest.fixture(scope="module")
def measured() -> Iterator[BoundedProcess]:
    with BoundedProcess(f"{__name__}:peak", variables=image_decoding.VARIABLES) as process:
        yield process


@linux
@pytest.mark.parametrize("kind", FILES)
def test_no_format_takes_more_than_is_reckoned_from_its_header(measured: BoundedProcess, kind: str) -> None:
    data = FILES[kind]()
    for purpose, call in (("check", ("check",)), ("whole", ("rewrite", {**REWRITE, "draft": False}))):
        told, _ = measured.call_with(data, *call, bounds=ProcessLimits(120, 2**31, beyond=True))
        assert told["refused"] is None
        # What is beside the pixels must not hide what they take.
        assert told["taken"] <= told[purpose] - OVERHEAD_BYTES // 2, (purpose, told)


def lying_avif() -> bytes:
    """Its header says 32 × 32, what is coded has 27 million pixels: PIL's decoder unpacks all of them, to make them small."""
    data = encoded(Image.new("RGB", (5200, 5200)), "AVIF", speed=10, subsampling="4:4:4")
    at = data.index(b"ispe") + 8
    return data[:at] + (32).to_bytes(4, "big") * 2 + data[at + 8 :]


@linux
def test_a_header_that_lies_gets_no_more_memory_than_it_asks_for(measured: BoundedProcess) -> None:
    data = lying_avif()
    told, _ = measured.call_with(data, "check", bounds=ProcessLimits(120, 2**31, beyond=True))
    assert told["size"] == [32, 32]
    assert told["taken"] > 1.5 * told["check"], "unbounded, it takes what it likes"
    with pytest.raises(ImageRefused) as refused:
        read_image(data, "lies.avif")
    assert refused.value.message.key == "picture_broken"
    assert read_image(encoded(plain("RGB", "red"), "PNG")).width == 6, "others are decoded as before"


def test_texts_in_a_png_that_unpack_to_very_much_are_refused() -> None:
    texts = b"".join(chunk(b"zTXt", f"{number}\0\0".encode() + zlib.compress(bytes(1_000_000))) for number in range(80))
    sound = encoded(plain("RGB", "red"), "PNG")
    with pytest.raises(ImageRefused):
        read_image(sound[:33] + texts + sound[33:])


@pytest.mark.parametrize("orientation", [1, 6, 8])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_the_header_is_enough_to_know_the_upright_size(format: str, orientation: int) -> None:
    data = encoded(plain("RGB", "red", (30, 20)), format, exif=turned(orientation))
    sized = measure_image(data, "a")
    assert (sized.width, sized.height) == ((30, 20) if orientation == 1 else (20, 30))
    assert sized.data == b"", "numbers are enough"
    assert sized.digest == read_image(data).digest


def test_a_png_that_tells_behind_its_pixels_how_to_turn_it_is_believed() -> None:
    data = encoded(plain("RGB", "red", (30, 20)), "PNG")
    late = data[:-12] + chunk(b"eXIf", turned().tobytes()[6:]) + data[-12:]
    for read in (measure_image, read_image):
        assert (read(late).width, read(late).height) == (20, 30)
    assert read_image(late).rgb().size == (20, 30)


def test_the_size_of_a_smaller_image_is_known_without_making_it() -> None:
    numbers = random.Random(7)
    for _ in range(300):
        size, side = (numbers.randint(1, 3000), numbers.randint(1, 3000)), numbers.choice([64, 512, 1024])
        image = Image.new("1", size)
        if max(size) > side:
            image.thumbnail((side, side))
        assert shrunk_size(*size, side) == image.size, size


def test_a_large_image_is_scaled_for_the_model_as_in_one_step() -> None:
    image = Image.effect_noise((2600, 1700), 90).convert("RGB")
    assert image.width * image.height > MAX_SINGLE_STEP_PIXELS
    import cv2

    whole = cv2.resize(np.array(image, dtype=np.float32), (1540, 1008), interpolation=cv2.INTER_CUBIC)
    assert np.abs(scaled(image, (1540, 1008)) - whole).max() < 0.001  # of 255


@pytest.fixture
def fresh() -> Iterator[Decoders]:
    made = Decoders()
    yield made
    made.close()


def noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that children get from now on."""
    calls: list[str] = []
    real = BoundedProcess.call_with

    def call_with(self: BoundedProcess, data: bytes, *arguments: Any, **more: Any) -> Any:
        calls.append(arguments[0])
        return real(self, data, *arguments, **more)

    monkeypatch.setattr(BoundedProcess, "call_with", call_with)
    return calls


def test_what_was_looked_at_once_is_known(fresh: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = noted(monkeypatch)
    sound, junk = encoded(plain("RGB", "red"), "PNG"), b"junk"
    digests = {data: hashlib.sha256(data).hexdigest() for data in (sound, junk)}
    for _ in range(3):
        assert fresh.size(sound, digests[sound], MOST) == (6, 4)
    assert calls == ["open"], "a size is in the header"
    for _ in range(3):
        assert fresh.check(sound, digests[sound], MOST) == (6, 4)
        with pytest.raises(DecodingRefused):
            fresh.check(junk, digests[junk], MOST)
    assert calls == ["open", "open", "check", "open"]


def test_a_child_that_has_ended_is_followed_by_another(fresh: Decoders) -> None:
    data = encoded(plain("RGB", "red"), "PNG")
    fresh.call(data, "check")
    child = fresh._idle[0][1]._child
    assert child is not None
    child.kill()
    child.wait()
    with pytest.raises(DecodingRefused):
        fresh.call(data, "check")
    assert fresh.call(data, "plain")[0]["size"] == [6, 4]


def test_children_end_when_there_is_nothing_to_do(fresh: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_decoding, "IDLE_TIMEOUT", 0.05)
    fresh.call(encoded(plain("RGB", "red"), "PNG"), "check")
    child = fresh._idle[0][1]._child
    assert child is not None
    assert child.wait(timeout=60) is not None
    assert fresh.call(encoded(plain("RGB", "red"), "PNG"), "plain")[0]["size"] == [6, 4]


def test_many_at_once_stay_within_the_room() -> None:
    made = Decoders(max_bytes=70_000_000)
    data = [encoded(Image.new("RGB", (1500, 1500 + each)), "PNG") for each in range(6)]
    with ThreadPoolExecutor(6) as threads:
        for told, _ in threads.map(lambda each: made.call(each, "check"), data):
            assert told["upright"][0] == 1500
    assert 0 < made.room.peak <= 70_000_000
    large = Decoders(max_bytes=1)
    assert large.call(data[0], "check")[0]["upright"] == [1500, 1500], "what is larger than the room comes alone"
    made.close()
    large.close()


def test_a_large_one_is_not_passed_by_for_ever() -> None:
    room, order = DecodingMemory(10), list[str]()
    held = room.of(6)
    held.__enter__()

    def want(name: str, cost: int) -> None:
        with room.of(cost):
            order.append(name)

    threads = [threading.Thread(target=want, args=each) for each in (("large", 9), ("small", 1))]
    for number, thread in enumerate(threads, 1):
        thread.start()
        until(lambda number=number: len(room._waiting) == number)
    assert order == [], "the small one would fit, but came later"
    held.__exit__(None, None, None)
    for thread in threads:
        thread.join(20)
    assert order[0] == "large"
    assert room.held == 0
    assert room.peak <= 10


def until(true: Callable[[], bool]) -> None:
    """Wait, at most a minute, which only a stuck test takes."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_turns_are_fair_and_a_reply_goes_first() -> None:
    turns, order, lock = DecodingQueue(1), list[str](), threading.Lock()
    held = turns.turn("many")
    held.__enter__()
    came = ["many", "many", "many", "few", ""]

    def want(party: str) -> None:
        with turns.turn(party), lock:
            order.append(party)

    threads = [threading.Thread(target=want, args=(party,)) for party in came]
    for number, thread in enumerate(threads, 1):
        thread.start()
        until(lambda number=number: len(turns._waiting) == number)
    held.__exit__(None, None, None)
    for thread in threads:
        thread.join(20)
    assert order == ["", "few", "many", "many", "many"]
    assert not turns._shares.running


def test_only_so_many_threads_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_decoding, "MAX_WAITING", Quota(of_address=0))
    turns = DecodingQueue(1)
    with pytest.raises(TooManyRequests) as refused, turns.turn("mine"):
        pass
    assert refused.value.message.values == {"seconds": image_decoding.RETRY_AFTER_SECONDS}
    with turns.turn(""):
        pass  # a reply that is being written is not broken off for want of a place


def test_each_kind_of_file_is_told_by_its_first_bytes() -> None:
    for format, kind in {
        "PNG": "png",
        "JPEG": "jpeg",
        "WEBP": "webp",
        "GIF": "gif",
        "BMP": "bmp",
        "AVIF": "avif",
    }.items():
        data = encoded(plain("RGB", "red"), format)
        assert (
            ImageFile(data, 6, 4, "").media_type
            == f"image/{kind}"
            == Image.open(io.BytesIO(data)).get_format_mimetype()
        )
    assert ImageFile(heic.PHOTO, 1, 1, "").media_type == "image/heif"


def scanned(side: int, times: int, between: bytes = b"") -> bytes:
    """A progressive JPEG whose last scan, which is a few bytes, comes so many more times, each behind `between`."""
    data = encoded(Image.new("L", (side, side), 100), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + (between + data[last:-2]) * times + data[-2:]


@pytest.mark.parametrize("between", [b"", b"\xff\xfe\x00\x06\xff\xd9\xff\xd9", b"\xff\xff"])
def test_a_jpeg_of_very_many_scans_is_refused_before_it_is_decoded(between: bytes) -> None:
    """A comment may hold the mark of an end, and marks may be filled up."""
    pixels = ImageDecoder()
    assert "refused" not in pixels(scanned(2000, 5, between), "open")[0]
    assert "refused" not in pixels("check")[0]
    assert "refused" not in pixels(scanned(64, 1000, between), "open")[0], "which costs nothing"
    assert pixels(scanned(2000, 400, between), "open")[0]["refused"] == "picture_broken"
