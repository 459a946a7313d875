"""A pool of keys and values that is too small for all replies: they take turns, and none loses or doubles a token."""

from collections.abc import Iterator
from itertools import takewhile

import pytest

from magistral_ui.chat.events import Finished, Notice, Prefilling, Queued
from magistral_ui.engines.base import Ready
from magistral_ui.engines.gguf.engine import GGUFEngine
from magistral_ui.errors import PromptTooLong
from tests.engines.contract import all_events, words
from tests.engines.gguf.demo import ask, finished, loaded, preemptions, request

LONG = "Count from 1 to 200."


@pytest.fixture(scope="module")
def engine() -> Iterator[GGUFEngine]:
    engine = loaded(context=1_536, slots=4)
    yield engine
    engine.close()


def test_replies_that_do_not_fit_together_are_all_whole(engine: GGUFEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = words(ask(engine, LONG, max_tokens=2000))
    preempted = preemptions(monkeypatch)
    generations = [engine.submit(request(engine, LONG, visitor=f"visitor {n}", max_tokens=2000)) for n in range(6)]
    for each in generations:
        events = all_events(each)
        assert isinstance(events[-1], Finished), events[-1]
        assert words(events) == alone
    assert preempted


def test_who_waits_is_told_the_place(engine: GGUFEngine) -> None:
    generations = [engine.submit(request(engine, LONG, visitor=f"guest {n}", max_tokens=700)) for n in range(6)]
    told = [[event.position for event in all_events(each) if isinstance(event, Queued)] for each in generations]
    assert told[-1][0] > 1
    assert told[-1] == sorted(told[-1], reverse=True)


def test_nobody_moves_back_when_a_reply_is_preempted(engine: GGUFEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    preempted = preemptions(monkeypatch)
    generations = [engine.submit(request(engine, LONG, visitor=f"guest {n}", max_tokens=2000)) for n in range(8)]
    for each in generations:
        before = takewhile(lambda event: not isinstance(event, Prefilling), all_events(each))
        told = [event.position for event in before if isinstance(event, Queued)]
        assert told == sorted(told, reverse=True)
    assert preempted


def test_conversations_in_the_cache_make_room(engine: GGUFEngine) -> None:
    for n in range(6):
        last = ask(engine, " ".join(["word"] * 300), visitor=f"passer-by {n}", max_tokens=3)[-1]
        assert isinstance(last, Finished)


def test_a_visitor_s_long_reply_does_not_keep_another_waiting_for_its_end(engine: GGUFEngine) -> None:
    """Fairness counts replies, not requests: the one with none is served before the second one of the other."""
    many = [engine.submit(request(engine, LONG, visitor="greedy", max_tokens=700)) for _ in range(5)]
    other = engine.submit(request(engine, "What is 2 + 3?", visitor="modest", max_tokens=40))
    all_events(other)
    assert not all(each.ended for each in many)
    for each in many:
        each.stop()
        all_events(each)


def test_one_conversation_may_fill_the_pool() -> None:
    """Also where the other slots were used before."""
    engine = loaded(context=600, slots=2)
    try:
        status = engine.status()
        assert isinstance(status, Ready)
        assert status.info.context_length == 600
        for visitor in ("ann", "bob", "eve"):
            events = ask(engine, LONG, visitor=visitor, max_tokens=2_000)
            usage = finished(events).usage
            assert finished(events).why == "length"
            assert usage.prompt_tokens + usage.completion_tokens == 600
            assert Notice("max_tokens_lowered", {"limit": 600 - usage.prompt_tokens}) in events
        with pytest.raises(PromptTooLong):
            engine.submit(request(engine, "word " * 600))
    finally:
        engine.close()
