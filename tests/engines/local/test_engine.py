"""The engine's life: it loads behind the page, says what went wrong, serves, and ends."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.events import Failed, Finished
from magistral_ui.chat.prompt import PromptChoices, compose
from magistral_ui.chat.reply import ReplyBuilder
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import Broken, GenerationRequest, Loading, Ready
from magistral_ui.engines.local.engine import LocalEngine
from magistral_ui.errors import NotReady
from magistral_ui.models.cards import DEMO, MAGISTRAL_1_2
from tests.engines.following import follow


def wait_until_loaded(engine: LocalEngine) -> None:
    engine.start()
    for _ in range(3000):
        if not isinstance(engine.status(), Loading):
            return
        time.sleep(0.02)
    raise AssertionError("still loading")


@pytest.fixture(scope="module")
def demo() -> Iterator[LocalEngine]:
    engine = LocalEngine("demo")
    wait_until_loaded(engine)
    yield engine
    engine.close()


def ask(engine: LocalEngine, text: str, **params: object) -> ReplyBuilder:
    prompt = compose(Conversation().say(text), engine.card.system(), PromptChoices())
    chosen = SamplingParams(max_tokens=300, seed=1).changed(params)
    draft = ReplyBuilder()
    for event in follow(engine.submit(GenerationRequest(prompt, chosen, "ann"))):
        draft.feed(event)
    return draft


def test_the_demo_model_reasons_and_answers(demo: LocalEngine) -> None:
    status = demo.status()
    assert isinstance(status, Ready)
    assert status.info.context_length == DEMO.context_length
    draft = ask(demo, "What is 487 + 265?", temperature=0.0)
    assert isinstance(draft.last, Finished)
    assert draft.last.why == "stop"
    assert "752" in "".join(draft.answer)
    usage = draft.last.usage
    assert usage.reasoning_tokens > 10
    assert usage.completion_tokens == usage.reasoning_tokens + usage.answer_tokens


def test_nothing_is_served_before_it_is_loaded() -> None:
    engine = LocalEngine("demo")
    prompt = compose(Conversation().say("hi"), DEMO.system(), PromptChoices())
    assert isinstance(engine.status(), Loading)
    with pytest.raises(NotReady):
        engine.submit(GenerationRequest(prompt, SamplingParams(seed=1)))
    with pytest.raises(NotReady):
        engine.measure(prompt)
    engine.close()


@pytest.mark.parametrize("model", ["someone/Their-Model", "/somewhere/Their-Model/"])
def test_while_an_unknown_model_loads_its_own_name_is_shown(model: str) -> None:
    assert LocalEngine(model).card.name == "Their-Model"


def test_importing_the_engine_imports_no_torch() -> None:
    """The page is served before torch is there."""
    code = "import sys, magistral_ui.engines.local.engine; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_closing_while_loading_ends_soon() -> None:
    engine = LocalEngine("demo")
    engine.start()
    engine.close()
    assert not any(thread.is_alive() for thread in [engine._thread] if thread)


def test_closing_ends_what_is_written() -> None:
    engine = LocalEngine("demo")
    wait_until_loaded(engine)
    prompt = compose(Conversation().say("Count from 1 to 200"), DEMO.system(), PromptChoices())
    generation = engine.submit(GenerationRequest(prompt, SamplingParams(max_tokens=4000, seed=1), "ann"))
    engine.close()
    assert generation.ended
    assert not isinstance(list(follow(generation))[-1], Failed)


@pytest.mark.parametrize(
    ("spoil", "key"),
    [
        (lambda f: shutil.rmtree(f), "model_not_found"),
        (lambda f: (f / "config.json").write_text(json.dumps({"model_type": "llama"})), "not_a_mistral_model"),
        (lambda f: (f / "config.json").write_text("{"), "model_files_broken"),
        (lambda f: (f / "tekken.json").unlink(), "model_files_broken"),
        (lambda f: (f / "model.safetensors").unlink(), "model_files_broken"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}"), "model_files_broken"),
    ],
)
def test_a_wrong_folder_is_a_sentence(vision_folder: Path, tmp_path: Path, spoil, key: str) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "model"
    shutil.copytree(vision_folder, folder)
    spoil(folder)
    engine = LocalEngine(str(folder))
    wait_until_loaded(engine)
    status = engine.status()
    assert isinstance(status, Broken)
    assert status.key == key
    assert "model" in status.values
    engine.close()


def test_retry_after_mending(vision_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    engine = LocalEngine(str(folder))
    wait_until_loaded(engine)
    assert isinstance(engine.status(), Broken)
    shutil.copytree(vision_folder, folder)
    engine.retry()
    wait_until_loaded(engine)
    assert isinstance(engine.status(), Ready)
    assert engine.card.vision
    engine.close()


def test_text_only_folders_have_no_vision(text_folder: Path) -> None:
    engine = LocalEngine(str(text_folder))
    wait_until_loaded(engine)
    assert isinstance(engine.status(), Ready)
    assert not engine.card.vision
    assert engine.card.marks == "text"
    assert isinstance(ask(engine, "hello", max_tokens=5).last, Finished)
    engine.close()


def test_the_card_is_guessed_before_loading() -> None:
    assert LocalEngine("mistralai/Magistral-Small-2509").card is MAGISTRAL_1_2
    assert LocalEngine().card is DEMO
