"""A GGUF model comes from a loopback Hub and answers, also where only the Hub shows what its repository holds; then offline."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from magistral_ui.chat.events import Answer
from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import Broken, GenerationRequest, Loading, ModelInfo, ModelRequest, Ready
from magistral_ui.engines.gguf.demo_file import demo_files
from magistral_ui.engines.switching.switchable import SwitchableEngine
from magistral_ui.engines.weights.library import ModelLibrary
from magistral_ui.errors import ModelRefused
from magistral_ui.models.cards import DEMO
from tests.hub.gguf_repositories import make_model
from tests.hub.server import Hub
from tests.waiting import TIMEOUT, until

NAME = "someone/sums"


@pytest.fixture
def files(hub: Hub, tmp_path: Path) -> Path:
    """The demo model as others publish theirs, and one in a quantization that is not ours to run."""
    made = tmp_path / "gguf"
    made.mkdir()
    model, mmproj = demo_files()
    shutil.copy(model, made / "Sums-BF16.gguf")
    shutil.copy(mmproj, made / "mmproj-Sums-BF16.gguf")
    make_model(made / "Sums-Q8_0.gguf", architecture="qwen3")
    (made / "README.md").write_text("# Sums", encoding="utf-8")
    hub.add(NAME, made)
    return made


@contextmanager
def running(model: str) -> Iterator[SwitchableEngine]:
    engine = SwitchableEngine(ModelRequest(model, device="cpu", threads=1, context_length=4_096))
    engine.start()
    try:
        until(lambda: not isinstance(engine.status(), Loading), "it loads")
        yield engine
    finally:
        engine.close()


def info(engine: SwitchableEngine) -> ModelInfo:
    status = engine.status()
    assert isinstance(status, Ready), status
    return status.info


def answer(engine: SwitchableEngine) -> str:
    prompt = Prompt(DEMO.system(), (UserTurn("What is 487 + 265?", (), 1),))
    params = SamplingParams(temperature=0.0, seed=1, max_tokens=400)
    reply = engine.submit(GenerationRequest(prompt, params, "ann/1"))
    assert reply.wait(TIMEOUT)
    return "".join(each.event.text for each in reply.take() if isinstance(each.event, Answer))


def test_it_is_downloaded_answers_and_starts_again_without_the_hub(
    hub: Hub, files: Path, offline: Callable[[], None]
) -> None:
    with running(f"{NAME}:bf16") as engine:
        told = info(engine)
        assert (told.engine, told.source, told.revision) == ("llama.cpp", f"{NAME}:BF16", hub.repositories[NAME].commit)
        assert engine.card.vision
        assert "752" in answer(engine)
        library = ModelLibrary(engine.repositories_in_use)
        (entry,) = (each for each in library.entries() if each.quantization)
        assert (entry.key, entry.state) == (f"{NAME}:BF16", "complete")
        with pytest.raises(ModelRefused):
            library.remove(entry.key)
    hub.asked.clear()
    offline()
    with running(NAME) as engine:
        assert info(engine).source == f"{NAME}:BF16"
        assert "752" in answer(engine)
    assert hub.asked == []


def test_a_repository_shows_only_on_the_hub_that_it_holds_gguf_files(hub: Hub, files: Path) -> None:
    (files / "Sums-Q8_0.gguf").unlink()
    with running(NAME) as engine:
        assert info(engine).source == f"{NAME}:BF16"
        assert "752" in answer(engine)


def test_another_architecture_is_refused_before_its_download(hub: Hub, files: Path) -> None:
    with running(f"{NAME}:Q8_0") as engine:
        status = engine.status()
        assert isinstance(status, Broken)
        assert (status.key, status.values["found"]) == ("not_a_mistral_model", "qwen3")
    assert [each.sent for each in hub.served if each.file == "Sums-Q8_0.gguf"] == [files_size(files)]


def files_size(files: Path) -> int:
    """The whole of a file that is smaller than the range that is asked for."""
    return (files / "Sums-Q8_0.gguf").stat().st_size
