"""The engine's life: it finds a model's files, loads behind the page, says what went wrong, serves, and ends with its child."""

import shutil
from pathlib import Path

import psutil
import pytest

from magistral_ui.chat.events import Finished
from magistral_ui.engines.base import Broken, Loading, ModelRequest, Ready
from magistral_ui.engines.gguf.demo_file import demo_files
from magistral_ui.engines.gguf.engine import GGUFEngine
from magistral_ui.engines.gguf.running_gguf import RunningGGUF
from magistral_ui.engines.pace_recorder import MIN_MEASURED_TOKENS
from magistral_ui.errors import NotReady
from magistral_ui.models.cards import DEMO, MAGISTRAL_1_2
from tests.engines.contract import all_events, words
from tests.engines.gguf.demo import SUM, ask, loaded, loads, request
from tests.waiting import until


def started(request: ModelRequest) -> GGUFEngine:
    engine = GGUFEngine(request)
    engine.start()
    until(lambda: not isinstance(engine.status(), Loading), "still loading")
    return engine


def running(engine: GGUFEngine) -> RunningGGUF:
    assert engine._running is not None
    return engine._running


def test_a_lone_file_is_enough(tmp_path: Path) -> None:
    shutil.copy(demo_files()[0], tmp_path / "mine.gguf")
    engine = started(ModelRequest(str(tmp_path / "mine.gguf"), device="cpu", threads=1, context_length=2_000))
    try:
        status = engine.status()
        assert isinstance(status, Ready), status
        info = status.info
        assert (info.engine, info.precision, info.context_length) == ("llama.cpp", "BF16", 2_000)
        assert info.plan is not None
        assert engine.kv_bytes == info.plan.kv_bytes > 0
        assert engine.tokenizer is not None
        assert "752" in words(ask(engine, SUM))[1]
    finally:
        engine.close()


def test_what_is_not_there_is_said_and_can_be_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "later.gguf"
    engine = started(ModelRequest(str(file), device="cpu", threads=1))
    assert isinstance(engine.status(), Broken)
    with pytest.raises(NotReady):
        ask(engine, SUM)
    shutil.copy(demo_files()[0], file)
    engine.retry()
    until(lambda: not isinstance(engine.status(), Loading))
    assert isinstance(engine.status(), Ready)
    engine.close()


def test_the_model_is_guessed_until_it_is_known() -> None:
    assert GGUFEngine(ModelRequest("magistral-small-2509", precision="Q4_K_M")).card is MAGISTRAL_1_2
    assert GGUFEngine(ModelRequest()).card is DEMO
    for model in ("owner/name:Q4_K_M", "/models/name.gguf", "C:\\models\\name.gguf"):
        guess = GGUFEngine(ModelRequest(model)).card
        assert (guess.name, guess.demo, guess.repository) == ("name", False, None), "nobody waits for the demo model"


def test_the_child_ends_with_the_engine() -> None:
    engine = loaded(slots=1)
    child = psutil.Process(running(engine).server.pid)
    engine.close()
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert isinstance(engine.status(), Broken)
    with pytest.raises(NotReady):
        ask(engine, SUM)
    engine.retry()
    assert isinstance(engine.status(), Broken), "a closed engine loads nothing more"
    engine.close()


def test_it_can_be_closed_while_it_loads() -> None:
    for _ in range(3):
        engine = GGUFEngine(ModelRequest(DEMO.key), loads(2_048, 1))
        engine.start()
        engine.close()
        assert isinstance(engine.status(), Broken)


def test_an_unexpected_failure_is_said() -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError

    engine = GGUFEngine(ModelRequest(DEMO.key), fails)  # type: ignore[arg-type]
    engine.start()
    until(lambda: not isinstance(engine.status(), Loading))
    assert engine.status() == Broken("model_error", {"reason": "ZeroDivisionError"})
    engine.close()


def test_the_pace_of_a_reply_that_runs_alone_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[tuple[str, float]] = []
    monkeypatch.setattr(
        "magistral_ui.engines.gguf.running_gguf.record_pace",
        lambda _, precision, device, pace: kept.append((precision, pace)),
    )
    engine = loaded(slots=1)
    try:
        running(engine)._paced = True  # not of the demo model
        assert len(words(ask(engine, SUM))[0]) > MIN_MEASURED_TOKENS
        assert [precision for precision, pace in kept if pace > 0] == ["BF16"]
    finally:
        engine.close()


def test_a_reply_of_a_visitor_who_is_forgotten_leaves_nothing_behind() -> None:
    engine = loaded(slots=1)
    try:
        first = engine.submit(request(engine, "Count from 1 to 200.", max_tokens=2_000))
        waiting = engine.submit(request(engine, SUM, visitor="bob"))
        engine.forget("bob")
        first.stop()
        assert isinstance(all_events(waiting)[-1], Finished)
        tokenizer = engine.tokenizer
        assert tokenizer is not None
        until(lambda: all(visitor != "bob" for visitor, *_ in tokenizer._replies), "its reply is remembered")
        prompt = request(engine, SUM).prompt
        until(lambda: engine.measure(prompt, "bob").reused == 0, "its tokens are still in the slot")
        assert engine.measure(prompt, "ann").reused == 0
    finally:
        engine.close()
