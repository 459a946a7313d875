"""The real client of the Hub, pointed at a hub on loopback and at a cache of its own."""

import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants as constants
import huggingface_hub.file_download as file_download
import pytest
from huggingface_hub.utils import close_session

from tests.hub.server import Hub, serving


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """Runs meanwhile; the client finds it where HF_ENDPOINT would have named it."""
    with serving() as running:
        point_at(monkeypatch, running.url, tmp_path / "cache")
        yield running
    close_session()


def point_at(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """As the environment variables would, which the client reads only once, on import."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(cache.with_name("assets")))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)  # what is lost at most when a line is cut
    monkeypatch.delenv("HF_TOKEN", raising=False)
    hasty = SimpleNamespace(**{**vars(time), "sleep": lambda _: None})
    monkeypatch.setattr(file_download, "time", hasty)  # it would wait between its own attempts
    close_session()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it to switch downloading off, as HF_HUB_OFFLINE=1 would."""
    return lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of a repository, as mistralai lays them out; the weights are noise."""
    made = tmp_path / "repository"
    made.mkdir()
    for name in ("config.json", "generation_config.json", "model.safetensors.index.json", "params.json"):
        (made / name).write_text(f'{{"name": "{name}"}}', encoding="utf-8")
    (made / "SYSTEM_PROMPT.txt").write_text("Think.", encoding="utf-8")
    (made / "README.md").write_text("# Magistral", encoding="utf-8")
    (made / "tekken.json").write_text("{}" + " " * 20_000, encoding="utf-8")
    for part in (1, 2, 3):
        (made / f"model-0000{part}-of-00003.safetensors").write_bytes(noise(part, 300_000))
    (made / "consolidated.safetensors").write_bytes(noise(9, 900_000))
    return made


@cache
def noise(seed: int, size: int) -> bytes:
    return bytes((i * i + seed * 7) % 251 for i in range(size))
