"""llama.cpp with the demo model and with Mistral's whole vocabulary, as prompts with images need it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from magistral_ui.engines.gguf.child import MAX_IMAGE_TOKENS, MIN_IMAGE_TOKENS
from magistral_ui.models.folder import DEMO_FOLDER
from tests.engines.gguf.full_vocabulary import write_full_vocabulary
from tests.engines.gguf.prompted import Model, Server
from tests.engines.remote.conftest import start_llama_cpp
from tests.servers.gguf_files import write_gguf


@pytest.fixture(scope="package")
def demo_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_gguf(folder)
    return folder


def started(folder: Path, tekken: Path) -> Iterator[Model]:
    key = "a key"
    process = start_llama_cpp(
        folder, slots=2, image_min_tokens=MIN_IMAGE_TOKENS, image_max_tokens=MAX_IMAGE_TOKENS, api_keys=[key]
    )
    server = Server("127.0.0.1", process.port, key, {})
    yield Model(Server(server.host, server.port, key, server.ask("GET", "/props")), tekken)
    process.close()


@pytest.fixture(scope="package")
def demo(demo_files: Path) -> Iterator[Model]:
    yield from started(demo_files, DEMO_FOLDER / "tekken.json")


@pytest.fixture(scope="package")
def full_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tekken.json` and `model.gguf` with Mistral's whole vocabulary."""
    folder = tmp_path_factory.mktemp("full")
    write_full_vocabulary(folder)
    return folder


@pytest.fixture(scope="package")
def full(full_files: Path) -> Iterator[Model]:
    """A model with Mistral's whole vocabulary."""
    yield from started(full_files, full_files / "tekken.json")
