"""The demo model takes pictures of the sizes and formats that people upload; what it says of them is not judged here."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image, ImageDraw

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.events import Finished
from magistral_ui.chat.images import ImageFile, read_image
from magistral_ui.chat.prompt import PromptChoices, compose
from magistral_ui.chat.reply import ReplyBuilder
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.local.engine import LocalEngine
from tests.engines.following import follow
from tests.engines.local.test_engine import wait_until_loaded

SIZES = [(1, 1), (7, 5), (14, 14), (27, 29), (113, 112), (1, 900), (900, 1), (40, 2000), (1920, 1080), (4032, 3024)]
FORMATS: list[tuple[str, str, dict[str, Any]]] = [
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "P", {}),
    ("PNG", "1", {}),
    ("PNG", "I;16", {}),
    ("JPEG", "L", {}),
    ("JPEG", "CMYK", {}),
    ("JPEG", "RGB", {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"}),
    ("WEBP", "RGBA", {}),
    ("GIF", "P", {}),
    ("BMP", "RGB", {}),
    ("AVIF", "RGB", {}),
]


@pytest.fixture(scope="module")
def demo() -> Iterator[LocalEngine]:
    engine = LocalEngine("demo")
    wait_until_loaded(engine)
    yield engine
    engine.close()


def look(engine: LocalEngine, *images: ImageFile, max_tokens: int) -> ReplyBuilder:
    prompt = compose(Conversation().say("What is this?", images), engine.card.system(), PromptChoices())
    chosen = SamplingParams(max_tokens=max_tokens, seed=1, temperature=0.0)
    draft = ReplyBuilder()
    for event in follow(engine.submit(GenerationRequest(prompt, chosen, "ann"))):
        draft.feed(event)
    return draft


def sent(size: tuple[int, int], format: str = "PNG", mode: str = "RGB", **options: Any) -> ImageFile:
    image = Image.new("RGB", size, "white")
    width, height = size
    ImageDraw.Draw(image).ellipse((width // 4, height // 4, width * 3 // 4, height * 3 // 4), fill=(220, 30, 30))
    data = io.BytesIO()
    (image.convert("L").convert(mode) if mode == "I;16" else image.convert(mode)).save(data, format, **options)
    return read_image(data.getvalue())


@pytest.mark.parametrize("size", SIZES)
def test_any_size_is_looked_at(demo: LocalEngine, size: tuple[int, int]) -> None:
    assert isinstance(look(demo, sent(size), max_tokens=4).last, Finished)


@pytest.mark.parametrize(("format", "mode", "options"), FORMATS)
def test_any_format_is_looked_at(demo: LocalEngine, format: str, mode: str, options: dict[str, Any]) -> None:
    draft = look(demo, sent((160, 120), format, mode, **options), max_tokens=100)
    assert isinstance(draft.last, Finished)
    assert draft.last.why == "stop"
    assert draft.reasoning
    assert draft.answer


def test_images_of_unlike_sizes_go_together(demo: LocalEngine) -> None:
    assert isinstance(look(demo, sent((9, 300)), sent((300, 9)), sent((64, 64)), max_tokens=4).last, Finished)
