"""Which engine a request gets: by what it names and what is installed, or once a repository turns out to hold only GGUF files."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from magistral_ui.engines.base import Broken, Loading, ModelRequest, Ready
from magistral_ui.engines.gguf.engine import GGUFEngine
from magistral_ui.engines.local import running_model
from magistral_ui.engines.switching import open_engine as opening
from magistral_ui.engines.switching.either_engine import EitherEngine
from magistral_ui.engines.switching.open_engine import (
    LoadableEngine,
    check_settings,
    is_for_gguf,
    open_engine,
    open_gguf,
)
from magistral_ui.errors import BadSetting, HoldsGGUF, LibraryMissing, MagistralUIError, ModelNotFound
from tests.scripted_engine import ScriptedEngine
from tests.servers.gguf_files import write_gguf
from tests.waiting import TIMEOUT, until


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "has_torch", lambda: False)


@pytest.mark.parametrize(
    ("model", "precision"),
    [("ann/Model-GGUF", "auto"), ("ann/model:Q4_K_M", "auto"), ("ministral-3-8b", "Q4_K_M")],
)
def test_what_names_gguf_files_gets_their_engine(model: str, precision: str) -> None:
    assert isinstance(open_engine(ModelRequest(model, precision=precision)), GGUFEngine)


@pytest.mark.parametrize("model", [None, "auto", "demo", "ministral-3-8b", "ann/model"])
def test_everything_else_gets_the_local_engine_where_torch_is_installed(model: str | None) -> None:
    assert isinstance(open_engine(ModelRequest(model)), EitherEngine)


@pytest.mark.parametrize("model", [None, "auto", "demo", "ministral-3-8b", "ann/model"])
@pytest.mark.usefixtures("without_torch")
def test_without_torch_a_gguf_file_of_it_is_looked_for(model: str | None) -> None:
    assert isinstance(open_engine(ModelRequest(model)), GGUFEngine)


@pytest.mark.usefixtures("without_torch")
def test_without_torch_safetensors_get_a_sentence(text_folder: Path) -> None:
    wanted = (ModelRequest(str(text_folder)), ModelRequest("ministral-3-8b", precision="nf4"))
    for request, other in zip(wanted, ("FILE.gguf", None), strict=True):
        with pytest.raises(LibraryMissing) as refused:
            open_engine(request)
        assert refused.value.message.key == "torch_missing"
        assert refused.value.message.values["model"] == request.shown_name
        assert other is None or refused.value.message.values["other"] == other


def test_without_torch_a_gguf_file_beside_safetensors_runs(
    text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(text_folder, tmp_path / "both")
    write_gguf(folder)
    assert isinstance(open_engine(ModelRequest(str(folder))), EitherEngine)
    monkeypatch.setattr(opening, "has_torch", lambda: False)
    assert isinstance(open_engine(ModelRequest(str(folder))), GGUFEngine)


def test_without_llama_cpp_gguf_files_get_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "has_llama_cpp", lambda: False)
    with pytest.raises(LibraryMissing) as refused:
        open_engine(ModelRequest("ann/Model-GGUF"))
    assert refused.value.message.key == "llama_cpp_missing"


def test_settings_of_the_other_engine_are_refused() -> None:
    with pytest.raises(BadSetting) as refused:
        check_settings(ModelRequest("ann/Model-GGUF", precision="nf4"))
    assert refused.value.message.key == "precision_not_for_gguf"
    with pytest.raises(BadSetting) as refused:
        check_settings(ModelRequest("demo", kv_type="q8_0"))
    assert refused.value.message.key == "kv_type_needs_gguf"
    check_settings(ModelRequest("ann/Model-GGUF:Q4_K_M", kv_type="q8_0"))
    check_settings(ModelRequest("ministral-3-8b", precision="nf4"))


class Loaded(ScriptedEngine):
    """Another engine, which is ready once it is started."""

    tokenizer, kv_bytes = None, 0

    def __init__(self) -> None:
        super().__init__(lambda _: ())
        self.started = 0

    def start(self) -> None:
        self.started += 1

    def wait_closed(self, over: threading.Event) -> None:
        pass


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Callable[[MagistralUIError], None]:
    """Lets local engines fail to load, with the error that it is called with."""

    def fail(error: MagistralUIError) -> None:
        def load(*_: object) -> None:
            raise error

        monkeypatch.setattr(running_model, "load_model", load)

    return fail


def either(gguf: Callable[[ModelRequest], Any], chosen: ModelRequest | None = None) -> EitherEngine:
    return EitherEngine(ModelRequest("ann/model"), lambda asked: chosen or asked, is_for_gguf, gguf)


def test_a_repository_with_only_gguf_files_is_opened_by_their_engine(local: Callable[..., None]) -> None:
    local(HoldsGGUF(model="ann/model"))
    other = Loaded()
    engine = either(lambda _: other)
    assert isinstance(engine.status(), Loading)
    engine.start()
    until(lambda: isinstance(engine.status(), Ready), "the other engine is asked")
    assert other.started == 1
    engine.close()
    engine.wait_closed(threading.Event())


def test_the_machine_s_choice_may_be_a_gguf_file(local: Callable[..., None]) -> None:
    local(ModelNotFound(model="nothing in safetensors is loaded"))
    other, asked = Loaded(), list[ModelRequest]()
    chosen = ModelRequest("ann/Model-GGUF:Q4_K_M", chosen_because="model_chosen_cpu_fits")

    def gguf(request: ModelRequest) -> Loaded:
        asked.append(request)
        return other

    engine = either(gguf, chosen)
    engine.start()
    until(lambda: isinstance(engine.status(), Ready), "the other engine is asked")
    assert asked == [chosen]
    assert engine.request == chosen, "with it, the model is found again after it was unloaded"
    engine.close()


def test_any_other_failure_stays_one(local: Callable[..., None]) -> None:
    local(ModelNotFound(model="ann/model"))
    engine = either(open_gguf)
    engine.start()
    until(lambda: isinstance(engine.status(), Broken), "it says why")
    assert engine.status() == Broken("model_not_found", {"model": "ann/model"})


def test_where_the_other_engine_cannot_run_that_is_said(local: Callable[..., None]) -> None:
    def missing(_: ModelRequest) -> LoadableEngine:
        raise LibraryMissing("llama_cpp_missing")

    local(HoldsGGUF(model="ann/model"))
    engine = either(missing)
    engine.start()
    until(lambda: isinstance(engine.status(), Broken), "it says why")
    assert engine.status() == Broken("llama_cpp_missing")


def test_an_engine_that_was_closed_meanwhile_starts_no_other(local: Callable[..., None]) -> None:
    local(HoldsGGUF(model="ann/model"))
    opened, closed, other = threading.Event(), threading.Event(), Loaded()

    def gguf(_: ModelRequest) -> Loaded:
        opened.set()
        closed.wait(TIMEOUT)
        return other

    engine = either(gguf)
    engine.start()
    assert opened.wait(TIMEOUT)
    closing = threading.Thread(target=engine.close)
    closing.start()
    until(lambda: engine._closed, "it is being closed")
    closed.set()
    closing.join(TIMEOUT)
    engine.wait_closed(threading.Event())
    assert not other.started
