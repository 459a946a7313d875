"""Switching between safetensors in this process and GGUF files in llama.cpp's: in any order, unloaded, and after failures."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from magistral_ui.chat.events import Answer, Finished
from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest, Loading, ModelInfo, ModelRequest, Ready, Unloaded
from magistral_ui.engines.gguf.demo_file import demo_files
from magistral_ui.engines.switching.switchable import SwitchableEngine
from magistral_ui.errors import LibraryMissing
from magistral_ui.models.cards import DEMO
from tests.engines.gguf.children import started
from tests.waiting import TIMEOUT, until

LOCAL = ModelRequest("demo", device="cpu", threads=1)
LONG = SamplingParams(max_tokens=4_000, seed=1, temperature=2.0, top_p=1.0)


@pytest.fixture(scope="module")
def gguf() -> ModelRequest:
    """The demo model's GGUF file, named as anybody's."""
    return replace(LOCAL, model=str(demo_files()[0]))


@pytest.fixture
def engine(gguf: ModelRequest) -> Iterator[SwitchableEngine]:
    engine = SwitchableEngine(gguf)
    engine.start()
    loaded(engine)
    yield engine
    engine.close()


def loaded(engine: SwitchableEngine) -> ModelInfo:
    until(lambda: not isinstance(engine.status(), Loading), "it loads")
    status = engine.status()
    assert isinstance(status, Ready), status
    return status.info


def request(params: SamplingParams | None = None) -> GenerationRequest:
    prompt = Prompt(DEMO.system(), (UserTurn("What is 487 + 265?", (), 1),))
    return GenerationRequest(prompt, params or SamplingParams(temperature=0.0, seed=1, max_tokens=400), "ann/1")


def answer(engine: SwitchableEngine) -> str:
    reply = engine.submit(request())
    assert reply.wait(TIMEOUT)
    assert isinstance(reply.take()[-1].event, Finished), reply.take()[-1]
    return "".join(each.event.text for each in reply.take() if isinstance(each.event, Answer))


def test_it_switches_from_one_kind_to_the_other_and_back(engine: SwitchableEngine, gguf: ModelRequest) -> None:
    for wanted, library in ((gguf, "llama.cpp"), (LOCAL, "transformers"), (gguf, "llama.cpp"), (gguf, "llama.cpp")):
        if engine.current != wanted:
            assert engine.switch(wanted)
        assert loaded(engine).engine == library
        assert "752" in answer(engine)
        assert engine.last_failure is None


def test_a_reply_is_waited_for_or_stopped(engine: SwitchableEngine) -> None:
    children = started()  # other tests' may be among them
    for child in children:
        child.suspend()  # or else the reply may be complete before it is stopped
    try:
        reply = engine.submit(request(LONG))
        assert not engine.switch(LOCAL), "its owner is asked first"
        assert engine.switch(LOCAL, "stop")
    finally:
        for child in children:
            child.resume()
    assert reply.wait(TIMEOUT)
    last = reply.take()[-1].event
    assert isinstance(last, Finished)
    assert last.why == "cancelled"
    assert loaded(engine).engine == "transformers"


@pytest.mark.parametrize("kind", ["gguf", "local"])
def test_what_cannot_be_loaded_leads_back(
    engine: SwitchableEngine, gguf: ModelRequest, kind: str, tmp_path: Path
) -> None:
    if kind == "local":
        assert engine.switch(LOCAL)
        loaded(engine)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(Path(str(gguf.model)).read_bytes()[:100_000])
    for wanted in (replace(LOCAL, model=str(broken)), replace(LOCAL, model=str(tmp_path / "none"))):
        assert engine.switch(wanted)
        assert loaded(engine).engine == ("llama.cpp" if kind == "gguf" else "transformers")
        assert engine.last_failure is not None
        assert "752" in answer(engine)


def test_unloading_ends_the_child_and_the_next_message_starts_it_again(engine: SwitchableEngine) -> None:
    assert engine.held_bytes() > 0
    before = len(started())  # other tests' may be among them
    assert before
    assert engine.unload()
    until(lambda: isinstance(engine.status(), Unloaded), "it unloads")
    assert engine.held_bytes() == 0
    assert len(started()) == before - 1
    assert engine.measure(request().prompt, "ann/1").total > 10, "its tokenizer stays"
    assert "752" in answer(engine)
    assert loaded(engine).engine == "llama.cpp"


def test_an_idle_model_of_a_gguf_file_is_unloaded(engine: SwitchableEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.idle, "minutes", 1)
    monkeypatch.setattr(engine.idle, "_used", engine.idle._used - 61)
    engine.idle.look()
    until(lambda: isinstance(engine.status(), Unloaded), "it is unloaded")


def test_a_switch_to_what_is_not_installed_changes_nothing(gguf: ModelRequest) -> None:
    def opener(wanted: ModelRequest) -> object:
        from magistral_ui.engines.switching.open_engine import open_engine

        if wanted == LOCAL:
            raise LibraryMissing(model="demo", other="FILE.gguf")
        return open_engine(wanted)

    engine = SwitchableEngine(gguf, opener=opener)  # type: ignore[arg-type]
    try:
        engine.start()
        loaded(engine)
        with pytest.raises(LibraryMissing):
            engine.switch(LOCAL)
        assert engine.current == gguf
        assert isinstance(engine.status(), Ready)
    finally:
        engine.close()
