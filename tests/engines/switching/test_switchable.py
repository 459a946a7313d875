"""Switching, unloading and loading again, with real tiny models: replies, failures, and what stays in memory."""

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from magistral_ui.chat.events import Answer, Failed, Finished, Reasoning
from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest, Loading, ModelRequest, Ready, Unloaded
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.switching.switchable import SwitchableEngine
from magistral_ui.errors import ModelSwitching
from magistral_ui.models.cards import DEMO
from tests.waiting import TIMEOUT, until

"""Seconds for a load on a machine that does many things at once."""
SHORT = SamplingParams(max_tokens=8, seed=1)
LONG = SamplingParams(max_tokens=4_000, seed=1, temperature=2.0, top_p=1.0)


def ready(engine: SwitchableEngine) -> Ready:
    until(lambda: not isinstance(engine.status(), Loading), "it loads")
    status = engine.status()
    assert isinstance(status, Ready), status
    return status


def request(params: SamplingParams = SHORT) -> GenerationRequest:
    """Without a system prompt: some tokenizers have no reasoning marks."""
    return GenerationRequest(Prompt((), (UserTurn("17 + 25 = ?", (), 1),)), params, "ann/1")


def last(generation: Generation) -> object:
    assert generation.wait(TIMEOUT)
    return generation.take()[-1].event


@pytest.fixture
def engine() -> Iterator[SwitchableEngine]:
    engine = SwitchableEngine(ModelRequest("demo", device="cpu", threads=1))
    engine.start()
    ready(engine)
    yield engine
    engine.close()


def to(folder: Path) -> ModelRequest:
    return ModelRequest(str(folder), device="cpu", threads=1)


def test_it_switches_to_another_model_and_back(engine: SwitchableEngine, text_folder: Path) -> None:
    assert engine.switch(to(text_folder))
    assert ready(engine).info.source == text_folder.name
    assert engine.card is not DEMO
    assert isinstance(last(engine.submit(request())), Finished)
    assert engine.switch(ModelRequest("demo", device="cpu", threads=1))
    assert ready(engine).info.name == DEMO.name
    assert engine.last_failure is None
    assert isinstance(last(engine.submit(request())), Finished)


def test_a_failed_load_goes_back_and_says_why(engine: SwitchableEngine, tmp_path: Path) -> None:
    assert engine.switch(to(tmp_path / "none"))
    assert ready(engine).info.name == DEMO.name
    assert engine.last_failure is not None
    assert engine.last_failure.key == "model_not_found"
    assert engine.current.model == "demo"
    assert isinstance(last(engine.submit(request())), Finished)


def test_it_asks_before_it_stops_replies(engine: SwitchableEngine, text_folder: Path) -> None:
    reply = engine.submit(request(LONG))
    assert not engine.switch(to(text_folder))
    assert not engine.unload()
    assert isinstance(engine.status(), Ready)
    assert engine.switch(to(text_folder), "stop")
    with pytest.raises(ModelSwitching):
        engine.switch(to(text_folder))
    assert last(reply) == replace(last(reply), why="cancelled")  # type: ignore[type-var]
    assert ready(engine).info.source == text_folder.name


def test_it_waits_for_replies(engine: SwitchableEngine) -> None:
    reply = engine.submit(request(replace(LONG, max_tokens=60)))
    assert engine.unload("wait")
    ended = last(reply)
    assert isinstance(ended, Finished)
    assert ended.why != "cancelled"
    until(lambda: isinstance(engine.status(), Unloaded), "it unloads")


def test_a_switch_that_waits_is_replaced_and_that_is_said(engine: SwitchableEngine, text_folder: Path) -> None:
    reply = engine.submit(request(LONG))
    assert engine.switch(to(text_folder), "wait")
    assert str(text_folder) in engine.repositories_in_use()
    with pytest.raises(ModelSwitching):
        engine.unload("wait")
    assert not engine.switch(ModelRequest("demo", device="cpu", threads=1)), (
        "it is asked again what becomes of the reply"
    )
    assert engine.notice is None
    assert engine.switch(ModelRequest("demo", device="cpu", threads=1), "stop")
    assert engine.notice is not None
    assert engine.notice.key == "model_switch_replaced"
    assert engine.notice.values == {"model": str(text_folder), "other": DEMO.name}
    assert isinstance(last(reply), Finished)
    assert ready(engine).info.name == DEMO.name
    assert engine.notice is not None, "until the next switch, so that whoever asked sees it"
    assert engine.switch(to(text_folder))
    assert engine.notice is None
    assert ready(engine).info.source == text_folder.name


def test_a_switch_replaces_an_unload_that_waits(engine: SwitchableEngine, text_folder: Path) -> None:
    reply = engine.submit(request(replace(LONG, max_tokens=60)))
    assert engine.unload("wait")
    assert engine.switch(to(text_folder), "wait")
    assert isinstance(last(reply), Finished)
    assert ready(engine).info.source == text_folder.name
    assert engine.notice is None


def test_while_one_loads_nothing_else_begins(engine: SwitchableEngine, text_folder: Path) -> None:
    assert engine.switch(to(text_folder))
    for act in (engine.unload, lambda: engine.switch(to(text_folder))):
        with pytest.raises(ModelSwitching):
            act()
    assert {str(text_folder)} <= engine.repositories_in_use()
    ready(engine)


def test_the_first_load_can_be_replaced_but_not_unloaded(text_folder: Path) -> None:
    engine = SwitchableEngine(ModelRequest("demo", device="cpu", threads=1))
    try:
        with pytest.raises(ModelSwitching):
            engine.unload()
        engine.start()
        assert engine.switch(to(text_folder))
        assert ready(engine).info.source == text_folder.name
    finally:
        engine.close()


def test_two_owners_at_once_get_one_switch(engine: SwitchableEngine, text_folder: Path) -> None:
    both = threading.Barrier(2)

    def press() -> bool:
        both.wait(TIMEOUT)
        try:
            return engine.switch(to(text_folder))
        except ModelSwitching:
            return False

    with ThreadPoolExecutor(2) as pool:
        assert sorted(each.result() for each in [pool.submit(press), pool.submit(press)]) == [False, True]
    assert ready(engine).info.source == text_folder.name


def test_while_it_waits_for_replies_it_says_so(engine: SwitchableEngine) -> None:
    reply = engine.submit(request(LONG))
    assert engine.unload("wait")
    assert engine.status() == Loading("waiting")
    reply.stop()
    until(lambda: isinstance(engine.status(), Unloaded), "it unloads")


def test_a_message_loads_it_again(engine: SwitchableEngine) -> None:
    assert engine.unload()
    until(lambda: isinstance(engine.status(), Unloaded), "it unloads")
    assert engine.card.demo
    assert engine.measure(request().prompt, "ann/1").total > 10
    reply, other = engine.submit(request()), engine.submit(request())
    assert isinstance(engine.status(), Loading)
    assert engine.running() == [reply, other]
    assert isinstance(last(reply), Finished)
    assert isinstance(last(other), Finished)
    assert any(isinstance(each.event, Reasoning | Answer) for each in reply.take())
    ready(engine)


def test_a_reply_that_waits_can_be_stopped(engine: SwitchableEngine) -> None:
    assert engine.unload()
    until(lambda: isinstance(engine.status(), Unloaded), "it unloads")
    reply = engine.submit(request())
    reply.stop()
    assert last(reply) == replace(last(reply), why="cancelled")  # type: ignore[type-var]
    ready(engine)
    assert isinstance(last(engine.submit(request())), Finished)


def test_if_it_cannot_be_loaded_again_the_reply_says_why(text_folder: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(text_folder, folder)
    engine = SwitchableEngine(to(folder))
    engine.start()
    ready(engine)
    assert engine.unload()
    until(lambda: isinstance(engine.status(), Unloaded), "it unloads")
    shutil.rmtree(folder)
    failed = last(engine.submit(request()))
    assert isinstance(failed, Failed)
    assert failed.key == "model_not_found"
    until(lambda: isinstance(engine.status(), Unloaded), "it may be tried again")
    shutil.copytree(text_folder, folder)
    assert isinstance(last(engine.submit(request())), Finished)
    engine.close()


def test_it_unloads_when_nobody_has_asked_for_long(engine: SwitchableEngine) -> None:
    engine.idle.look()
    assert isinstance(engine.status(), Ready), "0 minutes: never"
    engine.idle.minutes = 5
    engine.idle.look()
    assert isinstance(engine.status(), Ready), "not idle for so long"
    engine.idle._used -= 301
    busy, engine._busy = engine._busy, True
    engine.idle.look()
    engine._busy = busy
    engine.idle.look()
    assert isinstance(engine.status(), Ready), "the time that loading takes does not count"
    engine.idle._used -= 301
    engine.idle.look()
    until(lambda: isinstance(engine.status(), Unloaded), "it unloads")


def test_closing_ends_replies_that_wait(engine: SwitchableEngine) -> None:
    assert engine.unload()
    until(lambda: isinstance(engine.status(), Unloaded), "it unloads")
    reply = engine.submit(request())
    engine.close()
    assert isinstance(last(reply), Finished)


def modules() -> int:
    gc.collect()
    return sum(issubclass(type(each), torch.nn.Module) for each in gc.get_objects())


@pytest.mark.parametrize(("frozen", "times"), [(False, 3), (True, 3)])
def test_switching_again_and_again_leaks_nothing(engine: SwitchableEngine, frozen: bool, times: int) -> None:
    """Also where everything was exempt from garbage collection after the first load, as app.py does it."""
    kept = []
    if frozen:
        gc.collect()
        gc.freeze()
    try:
        for number in range(times):
            kept.append(engine.submit(request()))
            assert isinstance(last(kept[-1]), Finished)
            until(lambda: not engine.running(), "it ends")
            assert engine.switch(ModelRequest("demo", device="cpu", threads=1))
            ready(engine)
            gc.unfreeze()  # what is frozen is not listed
            if number == 0:
                first = modules()
            if frozen:
                gc.freeze()
        gc.unfreeze()
        assert modules() <= first
    finally:
        gc.unfreeze()
