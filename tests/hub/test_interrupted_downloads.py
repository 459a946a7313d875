"""Downloads of a re-upload without a tokenizer: paused, removed, cut, killed, and changed on the Hub meanwhile."""

import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants as constants
import pytest

from magistral_ui.engines.weights import large_files, library
from magistral_ui.engines.weights.library import LibraryEntry, ModelLibrary
from magistral_ui.models.cards import MINISTRAL_3_3B, RE_UPLOADS
from tests.hub.checkpoints import make_repository
from tests.hub.held_downloads import let_go
from tests.hub.server import LARGE, Hub
from tests.waiting import until

CARD = MINISTRAL_3_3B
ORIGINAL = str(CARD.repository)
COPY = next(name for name, original in RE_UPLOADS.items() if original is CARD)
LENT = ("tekken.json", "SYSTEM_PROMPT.txt")
SCRIPT = """
import threading
from huggingface_hub import constants
from magistral_ui.engines.weights.hub import download
constants.DOWNLOAD_CHUNK_SIZE = 10_000
download({!r}, None, lambda _: None, threading.Event())
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("repository") / "original", CARD)


@pytest.fixture
def copy(hub: Hub, original: Path, tmp_path: Path) -> Path:
    bare = tmp_path / "copy"
    shutil.copytree(original, bare)
    for name in (*LENT, "consolidated.safetensors"):
        (bare / name).unlink()
    hub.add(ORIGINAL, original, CARD.revision or "")
    serve(hub, bare, "c" * 40)
    return bare


def serve(hub: Hub, folder: Path, commit: str) -> None:
    hub.add(COPY, folder, commit).card = {"base_model": ORIGINAL, "base_model_relation": "quantized"}


@pytest.fixture
def models(hub: Hub) -> Iterator[ModelLibrary]:
    models = ModelLibrary()
    yield models
    if hub.step:
        hub.step.set()
    models.close()


def entry(models: ModelLibrary, key: str = COPY) -> LibraryEntry:
    return next(each for each in models.entries() if each.key == key)


def partial_files() -> list[Path]:
    return list(Path(constants.HF_HUB_CACHE).rglob("*.partial"))


def begin(models: ModelLibrary, hub: Hub) -> None:
    """Half of a file has come, and the rest waits for `hub.step`."""
    hub.step = threading.Event()
    models.download(COPY)
    until(lambda: any(file.stat().st_size for file in partial_files()))


def complete(models: ModelLibrary) -> LibraryEntry:
    models.download(COPY)
    until(lambda: entry(models).state != "downloading")
    found = entry(models)
    assert (found.state, found.failure) == ("complete", None)
    assert found.done == found.total
    assert not partial_files()
    return found


def test_a_paused_download_says_how_much_of_all_there_is(
    models: ModelLibrary, hub: Hub, copy: Path, original: Path
) -> None:
    begin(models, hub)
    models.pause(COPY)
    assert entry(models).state == "paused"
    let_go(models, hub, COPY)
    sizes = [file.stat().st_size for file in copy.iterdir()] + [(original / "tekken.json").stat().st_size]
    paused = entry(models)
    assert paused.total == sum(size for size in sizes if size >= LARGE)
    assert 0 < paused.done < paused.total
    after_restart = entry(ModelLibrary())
    assert (after_restart.state, after_restart.total) == ("partial", paused.total)
    assert 0 < after_restart.done < after_restart.total
    complete(models)
    assert entry(models, CARD.key).state == "absent", "what it lends does not make a download of its original"
    assert entry(models, CARD.key).on_disk == 0


def test_pausing_and_resuming_at_once_loses_nothing(models: ModelLibrary, copy: Path) -> None:
    for _ in range(10):
        models.download(COPY)
        models.pause(COPY)
    complete(models)


@pytest.mark.usefixtures("copy")
def test_what_is_removed_while_it_comes_stays_away(
    models: ModelLibrary, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the download notices it only later."""
    monkeypatch.setattr(library, "JOIN_TIMEOUT", 0.1)
    begin(models, hub)
    models.remove(COPY)
    assert COPY not in {each.key for each in models.entries()}
    let_go(models, hub, COPY)
    assert not list(Path(constants.HF_HUB_CACHE).glob("models--*"))
    complete(models)


@pytest.mark.usefixtures("copy")
def test_a_disk_that_fills_up_is_said_and_the_rest_comes_later(
    models: ModelLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = large_files.http_get

    def fill(url: str, out: Any, **options: Any) -> None:
        out.write(b"")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(large_files, "http_get", fill)
    models.download(COPY)
    until(lambda: entry(models).state != "downloading")
    failure = entry(models).failure
    assert failure is not None
    assert failure.key == "disk_full"
    assert isinstance(failure.values["needed"], float)
    monkeypatch.setattr(large_files, "http_get", fetch)
    complete(models)


def test_a_hub_that_goes_away_is_said_and_the_rest_comes_later(models: ModelLibrary, hub: Hub, copy: Path) -> None:
    shards = [file.name for file in copy.glob("model-*.safetensors")]
    hub.repositories[COPY].cuts = {name: [20_000] + [0] * 20 for name in shards}
    models.download(COPY)
    until(lambda: entry(models).state != "downloading")
    cut = entry(models)
    assert cut.failure is not None
    assert (cut.state, cut.failure.key) == ("partial", "connection_lost")
    hub.repositories[COPY].cuts.clear()
    complete(models)


def test_a_repository_that_has_changed_meanwhile_leaves_nothing_behind(
    models: ModelLibrary, hub: Hub, copy: Path, tmp_path: Path
) -> None:
    begin(models, hub)
    models.pause(COPY)
    let_go(models, hub, COPY)
    assert partial_files()
    other = shutil.copytree(copy, tmp_path / "other")
    for shard in other.glob("model-*.safetensors"):
        content = shard.read_bytes()
        shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    serve(hub, other, "d" * 40)
    complete(models)
    (snapshot,) = Path(constants.HF_HUB_CACHE).glob("models--unsloth*/snapshots/*")
    assert snapshot.name == "d" * 40


@pytest.mark.usefixtures("copy")
def test_a_killed_process_leaves_a_download_that_resumes(models: ModelLibrary, hub: Hub) -> None:
    hub.step = threading.Event()
    where = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(constants.HF_HUB_CACHE), "HF_HUB_OFFLINE": "0"}
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(COPY)], env={**os.environ, **where}, stderr=subprocess.PIPE
    )
    try:
        until(lambda: any(file.stat().st_size for file in partial_files()))
    finally:
        child.kill()
        child.communicate()
    assert entry(models).state == "partial"
    hub.step.set()
    hub.step = None
    complete(models)


@pytest.mark.usefixtures("copy")
def test_what_is_complete_is_not_waited_for(models: ModelLibrary) -> None:
    complete(models)
    came = threading.Event()
    models.download(COPY, came.set)
    assert came.is_set()
