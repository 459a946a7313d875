"""At temperature 0, the replies of the GGUF engine are word for word those of the local engine, from as many prompt tokens."""

import io
import random
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image, ImageDraw

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.events import Event
from magistral_ui.chat.images import read_image
from magistral_ui.engines.gguf.engine import GGUFEngine
from magistral_ui.engines.local.engine import LocalEngine
from tests.engines.contract import all_events, words
from tests.engines.gguf.demo import finished, loaded, request
from tests.engines.test_contract_local import loaded as local_loaded

ROUNDS = 15
SIZES = [(112, 112), (100, 60), (60, 100), (200, 150), (640, 480), (30, 90), (333, 111)]
COLOURS = ["red", "green", "blue", "yellow", "black"]


@pytest.fixture(scope="module")
def engines() -> Iterator[tuple[LocalEngine, GGUFEngine]]:
    local, gguf = local_loaded(), loaded()
    yield local, gguf
    local.close()
    gguf.close()


def painted(rng: random.Random, disc: bool) -> bytes:
    width, height = rng.choice(SIZES)
    image = Image.new("RGB", (width, height), "white")
    draw, side = ImageDraw.Draw(image), min(width, height) * 0.35
    box = (width / 2 - side, height / 2 - side, width / 2 + side, height / 2 + side)
    (draw.ellipse if disc else draw.rectangle)(box, fill=rng.choice(COLOURS))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def test_sums(engines: tuple[LocalEngine, GGUFEngine]) -> None:
    rng = random.Random(3)
    sums = [f"What is {rng.randrange(1000)} {rng.choice('+-')} {rng.randrange(1000)}?" for _ in range(ROUNDS)]
    same(engines, [(each, {}) for each in sums])


def test_pictures(engines: tuple[LocalEngine, GGUFEngine]) -> None:
    rng = random.Random(4)
    images = [read_image(painted(rng, bool(number % 2)), "painted.png") for number in range(ROUNDS)]
    same(engines, [(Conversation().say("What colour is this?", (image,)), {}) for image in images])


def test_with_a_budget_and_a_repetition_penalty(engines: tuple[LocalEngine, GGUFEngine]) -> None:
    choices = ({"reasoning_budget": 20}, {"reasoning_budget": 0}, {"repetition_penalty": 1.3}, {"max_tokens": 9})
    same(engines, [("What is 487 + 265?", params) for params in choices])


def same(engines: tuple[LocalEngine, GGUFEngine], asked: list[tuple[Conversation | str, dict[str, Any]]]) -> None:
    """Each engine answers all at once, which changes no word and takes half of the time."""
    answers = []
    for engine in engines:
        running = [
            engine.submit(request(engine, said, visitor=f"visitor {number}", **params))
            for number, (said, params) in enumerate(asked)
        ]
        answers.append([all_events(each) for each in running])
    for expected, found in zip(*answers, strict=True):
        compare(expected, found)


def compare(expected: list[Event], found: list[Event]) -> None:
    assert words(found) == words(expected)
    one, other = finished(found).usage, finished(expected).usage
    assert (one.prompt_tokens, one.reasoning_tokens, one.answer_tokens) == (
        other.prompt_tokens,
        other.reasoning_tokens,
        other.answer_tokens,
    )
    assert [event for event in found if type(event).__name__ == "Notice"] == [
        event for event in expected if type(event).__name__ == "Notice"
    ]
