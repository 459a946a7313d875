"""Turns changed over a real model: what is written again is word for word the same, and a given beginning is gone on from."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from magistral_ui.chat.conversation import AssistantMessage
from magistral_ui.chat.events import Notice
from magistral_ui.chat.reply import Reply
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import Loading, Ready
from magistral_ui.engines.generation import RunningReply
from magistral_ui.engines.local.engine import LocalEngine
from magistral_ui.sessions.session import Session

COLD = SamplingParams(temperature=0.0, max_tokens=200)
WARM = SamplingParams(temperature=1.2, top_p=1.0, max_tokens=200, seed=7)
"""Warm enough that another seed gives other words; so warm that some seeds give no reasoning at all."""


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    engine = LocalEngine("demo", threads=1)
    engine.start()
    until = time.monotonic() + 120
    while isinstance(engine.status(), Loading) and time.monotonic() < until:
        time.sleep(0.02)
    assert isinstance(engine.status(), Ready), engine.status()
    yield engine
    engine.close()


def last(session: Session) -> tuple[int, Reply]:
    found = session.conversation.last()
    assert isinstance(found, AssistantMessage)
    return found.id, found.reply


def ended(running: RunningReply) -> None:
    assert running.generation.wait(60)


def regenerated(session: Session) -> None:
    ended(session.regenerate(last(session)[0], WARM))


def continued(session: Session) -> None:
    ended(session.regenerate(last(session)[0], replace(WARM, max_tokens=12)))
    old, reply = last(session)
    assert reply.finish_reason == "length"
    ended(session.resume(old, WARM))


def answered_again(session: Session) -> None:
    ended(session.answer_again(last(session)[0], WARM))


def rethought(session: Session) -> None:
    ended(session.rethink(last(session)[0], "Let me add: 4 8 7 and", False, WARM))


@pytest.mark.parametrize("change", [regenerated, continued, answered_again, rethought])
def test_a_replay_is_word_for_word_the_same(engine: LocalEngine, change: Callable[[Session], None]) -> None:
    session = Session(engine, key="replay")
    ended(session.say("What is 487 + 265?", (), COLD))
    ended(session.say("and plus 10?", (), COLD))
    change(session)
    old, reply = last(session)
    ended(session.replay(old))
    new, again = last(session)
    assert (again.reasoning, again.answer) == (reply.reasoning, reply.answer)
    assert new != old
    assert Notice("replay_same") in session.written(new).notices
    assert again.usage.reasoning_tokens == reply.usage.reasoning_tokens
    assert again.usage.answer_tokens == reply.usage.answer_tokens


def test_other_reasoning_leads_to_another_answer(engine: LocalEngine) -> None:
    session = Session(engine, key="rethink")
    ended(session.say("What is 487 + 265?", (), SamplingParams(temperature=0.0, max_tokens=400)))
    old, reply = last(session)
    assert "752" in reply.answer
    other = reply.reasoning.replace("752", "753")
    assert other != reply.reasoning
    ended(session.rethink(old, other, True, SamplingParams(temperature=0.0, max_tokens=400)))
    _, changed = last(session)
    assert changed.reasoning == other
    assert "753" in changed.answer
    assert changed.usage.reasoning_tokens == pytest.approx(reply.usage.reasoning_tokens, abs=2)
    ended(session.rethink(old, reply.reasoning[:20], False, SamplingParams(temperature=0.0, max_tokens=400)))
    _, thought_on = last(session)
    assert thought_on.reasoning.startswith(reply.reasoning[:20])
    assert len(thought_on.reasoning) > 20
    assert thought_on.answer


def test_the_twentieth_sum_comes_out_like_the_first(engine: LocalEngine) -> None:
    session = Session(engine, key="long")
    wrong = []
    for number in range(20):
        a, b = 101 + 37 * number % 800, 110 + 53 * number % 700
        ended(session.say(f"What is {a} + {b}?", (), SamplingParams(temperature=0.0)))
        if f"**{a + b}**" not in last(session)[1].answer:
            wrong.append((number, a, b, last(session)[1].answer))
    assert len(wrong) <= 1, wrong
