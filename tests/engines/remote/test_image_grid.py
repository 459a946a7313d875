"""Images for llama.cpp servers cost what is said before they are sent, however the server was started."""

import asyncio
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.images import ImageFile, read_image
from magistral_ui.chat.prompt import PromptChoices, compose
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.remote import image_grid_probe
from magistral_ui.engines.remote.dialects import LLAMA_CPP, VLLM
from magistral_ui.engines.remote.engine import RemoteEngine
from magistral_ui.engines.remote.http_client import ServerClient
from magistral_ui.engines.remote.image_grid_probe import DEFAULT
from magistral_ui.engines.remote.server_address import ServerAddress
from magistral_ui.models.cards import MAGISTRAL_1_0, MAGISTRAL_1_2
from magistral_ui.models.image_grid import PIXTRAL, ImageGrid
from tests.engines.contract import all_events
from tests.engines.remote.conftest import connected, start_llama_cpp
from tests.servers.gguf_files import write_quick_mmproj

SIZES = [(1, 1), (28, 28), (56, 56), (60, 100), (200, 30), (640, 480), (1024, 768), (30, 1540), (4000, 3000)]
STARTED: dict[str, tuple[dict[str, object], ImageGrid]] = {
    "as it comes": ({}, ImageGrid(fewest=9, most=1024)),
    "with all tokens": ({"image_min_tokens": 1, "image_max_tokens": 3025}, ImageGrid(most=3025)),
    "with few tokens": ({"image_max_tokens": 300}, ImageGrid(fewest=9, most=289)),
    "with many for small ones": ({"image_min_tokens": 64}, ImageGrid(fewest=64, most=1024)),
}


@pytest.fixture(scope="module")
def quick_folder(gguf_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model with a quick tower: here images are only counted."""
    folder = tmp_path_factory.mktemp("quick")
    for name in ("model.gguf", "chat_template.jinja"):
        shutil.copy(gguf_folder / name, folder / name)
    write_quick_mmproj(folder / "mmproj.gguf")
    return folder


@pytest.fixture(scope="module", params=STARTED)
def started(quick_folder: Path, request: pytest.FixtureRequest) -> Iterator[tuple[RemoteEngine, ImageGrid]]:
    settings, grid = STARTED[request.param]
    server = start_llama_cpp(quick_folder, slots=1, **settings)
    engine = connected(server.base_url)
    yield engine, grid
    engine.close()
    server.close()


def painted(size: tuple[int, int]) -> ImageFile:
    data = io.BytesIO()
    Image.new("RGB", size, "red").save(data, "PNG")
    return read_image(data.getvalue())


def test_how_the_server_divides_images_is_found_out(started: tuple[RemoteEngine, ImageGrid]) -> None:
    engine, grid = started
    profile = engine.profile
    assert profile is not None
    assert (profile.image_grid, profile.counts_images) == (grid, True)


def test_an_image_costs_what_was_said(started: tuple[RemoteEngine, ImageGrid]) -> None:
    engine, _ = started
    for size in SIZES:
        image = painted(size)
        prompt = compose(Conversation().say("What is this?", [image]), (), PromptChoices())
        measure = engine.measure(prompt)
        params = SamplingParams(temperature=0.0, max_tokens=1)
        usage = getattr(all_events(engine.submit(GenerationRequest(prompt, params, "ann")))[-1], "usage")  # noqa: B009
        assert (measure.total, measure.estimated) == (usage.prompt_tokens, False), size


def test_a_server_that_cannot_count_images_gets_what_every_server_takes(
    gguf_folder: Path, connect: Callable[..., RemoteEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(*_: object) -> None:
        return None

    monkeypatch.setattr(image_grid_probe, "_costs", none)
    server = start_llama_cpp(gguf_folder, slots=1)
    try:
        engine = connect(server.base_url)
        assert engine.profile is not None
        assert (engine.profile.image_grid, engine.profile.counts_images) == (DEFAULT, False)
        prompt = compose(Conversation().say("What is this?", [painted((4000, 3000))]), (), PromptChoices())
        assert engine.measure(prompt).estimated
    finally:
        server.close()


def test_only_a_square_has_a_square_s_tokens() -> None:
    assert image_grid_probe._square(256) is None
    assert image_grid_probe._square(PIXTRAL.tokens(1540, 1540)) == 3025


@pytest.mark.parametrize(
    ("costs", "grid"),
    [
        ([12, 170, 1056], ImageGrid(fewest=9, most=1024)),
        ([6, 170, 3080], ImageGrid(most=3025)),
        ([256, 256, 256], None),
        ([6, 162, 3080], None),
        ([6, 170, 1000], None),
        (None, DEFAULT),
    ],
)
def test_only_a_model_that_divides_images_as_mistral_s_do_gets_them_scaled(
    monkeypatch: pytest.MonkeyPatch, costs: list[int] | None, grid: ImageGrid | None
) -> None:
    async def said(*_: object) -> list[int] | None:
        return costs

    monkeypatch.setattr(image_grid_probe, "_costs", said)
    server = ServerClient(ServerAddress("http://127.0.0.1:9/v1"))
    found = asyncio.run(image_grid_probe.image_grid(server, LLAMA_CPP, MAGISTRAL_1_2, "x", loaded=True))
    assert found == (grid, costs is not None and grid is not None)
    for dialect, card in ((VLLM, MAGISTRAL_1_2), (LLAMA_CPP, MAGISTRAL_1_0)):
        assert asyncio.run(image_grid_probe.image_grid(server, dialect, card, "x", loaded=True)) == (None, False)
