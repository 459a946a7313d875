"""The child is killed at random moments: replies that were being written keep their text, and the next one works."""

import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from magistral_ui.chat.events import Answer, Failed, Finished, Prefilling, Reasoning
from magistral_ui.engines.base import Broken, Loading, Ready
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.gguf import health, scheduler, supervisor
from magistral_ui.engines.gguf.engine import GGUFEngine
from magistral_ui.errors import NotReady
from tests.engines.contract import SOON, words
from tests.engines.following import follow
from tests.engines.gguf.demo import SUM, ask, loaded, request
from tests.waiting import until

KILLS = 50
LONG = "Count from 1 to 200."


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[GGUFEngine]:
    monkeypatch.setattr(supervisor, "CRASH_SECONDS", 0.0)  # it is started again however often it crashes
    monkeypatch.setattr(health, "LOOK_SECONDS", 0.5)
    engine = loaded(slots=2)
    yield engine
    engine.close()


def kill(engine: GGUFEngine) -> None:
    running = engine._running
    assert running is not None
    os.kill(running.server.pid, signal.SIGKILL)


def restarted(engine: GGUFEngine, pid: int) -> bool:
    running = engine._running
    return isinstance(engine.status(), Ready) and running is not None and running.server.pid != pid


def pid_of(engine: GGUFEngine) -> int:
    running = engine._running
    assert running is not None
    return running.server.pid


def wait_for_pieces(generation: Generation, count: int) -> None:
    for event in follow(generation):
        count -= isinstance(event, Reasoning | Answer)
        if count <= 0:
            return


def test_a_child_is_killed_at_random_moments(engine: GGUFEngine) -> None:
    chance = random.Random(5)
    text, short = "".join(words(ask(engine, LONG, max_tokens=2000))), words(ask(engine, SUM))
    for _ in range(KILLS):
        pid = pid_of(engine)
        writing = [engine.submit(request(engine, LONG, visitor=f"visitor {n}", max_tokens=2000)) for n in range(2)]
        waiting = engine.submit(request(engine, SUM, visitor="waiting"))
        until(lambda writing=writing: all(each.reasoning or prefills(each) for each in writing))  # type: ignore[misc]
        wait_for_pieces(writing[0], chance.choice([0, 0, 1, 2, 30, 100, 300]))
        seen = writing[0].reasoning + writing[0].answer
        kill(engine)
        for each in writing:
            end, kept = ended(each), each.reasoning + each.answer
            assert isinstance(end, Failed)
            assert end.key == "gguf_killed", "the reason is known"
            assert text.startswith(kept)
        assert (writing[0].reasoning + writing[0].answer).startswith(seen)
        until(lambda pid=pid: restarted(engine, pid))  # type: ignore[misc]
        assert isinstance(ended(waiting), Finished)
        assert (waiting.reasoning, waiting.answer) == short


def prefills(generation: Generation) -> bool:
    return any(isinstance(stamped.event, Prefilling) for stamped in generation.take())


def ended(generation: Generation) -> Finished | Failed:
    assert generation.wait(SOON)
    last = generation.take()[-1].event
    assert isinstance(last, Finished | Failed)
    return last


def test_those_who_wait_go_on_after_a_restart(engine: GGUFEngine) -> None:
    whole = words(ask(engine, SUM))
    writing = [engine.submit(request(engine, LONG, visitor=f"w{n}", max_tokens=2000)) for n in range(2)]
    for each in writing:
        wait_for_pieces(each, 1)
    waiting = engine.submit(request(engine, SUM, visitor="waiting"))
    kill(engine)
    assert [type(ended(each)) for each in writing] == [Failed, Failed]
    assert isinstance(ended(waiting), Finished)
    assert (waiting.reasoning, waiting.answer) == whole


def test_a_reply_that_is_asked_for_at_the_moment_of_a_crash_is_written(engine: GGUFEngine) -> None:
    for _ in range(5):
        pid = pid_of(engine)
        kill(engine)
        with suppress(NotReady):  # it has been noticed already
            generation = engine.submit(request(engine, SUM))
            assert isinstance(ended(generation), Finished)
            assert "752" in generation.answer
        until(lambda pid=pid: restarted(engine, pid))  # type: ignore[misc]


def test_while_it_starts_again_the_status_says_so(engine: GGUFEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    running = engine._running
    assert running is not None
    begin, restart = threading.Event(), running.restart
    monkeypatch.setattr(running, "restart", lambda: (begin.wait(SOON), restart()))
    kill(engine)
    until(lambda: isinstance(engine.status(), Loading))
    with pytest.raises(NotReady):
        engine.submit(request(engine, SUM))
    assert engine.measure(request(engine, SUM).prompt).total > 0
    restarting = engine.status()
    assert isinstance(restarting, Loading)
    assert [notice.key for notice in restarting.notices] == ["gguf_killed"]
    begin.set()
    until(lambda: isinstance(engine.status(), Ready))
    assert "752" in words(ask(engine, SUM))[1]


def test_a_child_that_hangs_is_started_again(engine: GGUFEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = pid_of(engine)
    writing = engine.submit(request(engine, LONG, max_tokens=2000))
    wait_for_pieces(writing, 1)
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(health, "ANSWER_TIMEOUT", 0.5)
    end = ended(writing)
    assert isinstance(end, Failed)
    assert end.key == "gguf_silent"
    monkeypatch.setattr(health, "ANSWER_TIMEOUT", SOON)
    until(lambda: restarted(engine, pid))
    assert "752" in words(ask(engine, SUM))[1]


def test_a_server_that_cannot_erase_a_slot_is_started_again(
    engine: GGUFEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(engine, SUM, visitor="gone")
    pid, body = pid_of(engine), scheduler.clearing_body
    monkeypatch.setattr(scheduler, "clearing_body", lambda slot, begin: {**body(slot, begin), "prompt": [10**8]})
    engine.forget("gone")
    until(lambda: restarted(engine, pid))
    assert "752" in words(ask(engine, SUM))[1]


def test_one_that_crashes_at_once_again_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = loaded(slots=1)
    waiting = None
    for _ in range(supervisor.MAX_CRASHES):
        pid = pid_of(engine)
        writing = engine.submit(request(engine, LONG, max_tokens=2000))
        wait_for_pieces(writing, 1)
        waiting = engine.submit(request(engine, SUM)) if _ == supervisor.MAX_CRASHES - 1 else None
        kill(engine)
        assert isinstance(ended(writing), Failed)
        until(lambda pid=pid: restarted(engine, pid) or isinstance(engine.status(), Broken))  # type: ignore[misc]
    assert isinstance(engine.status(), Broken)
    assert waiting is not None
    assert isinstance(ended(waiting), Failed)
    with pytest.raises(NotReady):
        engine.submit(request(engine, SUM))
    engine.retry()
    until(lambda: not isinstance(engine.status(), Loading))
    assert isinstance(engine.status(), Ready)
    engine.close()
