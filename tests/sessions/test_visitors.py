"""Visitors: who is found by an id, and who is forgotten."""

from magistral_ui.chat.events import Answer
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.scripted import Pause, ScriptedEngine
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.visitors import Visitors


def test_a_visitor_finds_the_same_session_again_and_nobody_elses() -> None:
    visitors = Visitors(ScriptedEngine([Answer("a")]))
    one, mine = visitors.open()
    other, theirs = visitors.open()
    assert one != other
    assert mine is not theirs
    assert visitors.open(one) == (one, mine)
    assert visitors.find(other) is theirs


def test_an_id_that_the_server_did_not_make_is_never_taken() -> None:
    visitors = Visitors(ScriptedEngine([Answer("a")]))
    for made_up in ("", "me", "x" * 43, None, 7, ["list"], {"a": 1}):
        assert visitors.find(made_up) is None
        key, _ = visitors.open(made_up)
        assert key != made_up
        assert len(key) >= 40


def test_the_least_recently_used_idle_session_is_forgotten_first() -> None:
    visitors = Visitors(ScriptedEngine([Pause(30)]), Limits(visitors=3))
    busy, session = visitors.open()
    session.say("one", (), SamplingParams())
    old, _ = visitors.open()
    young, _ = visitors.open()
    visitors.find(old)
    new, _ = visitors.open()
    assert len(visitors) == 3
    assert visitors.find(young) is None
    assert all(visitors.find(key) for key in (busy, old, new))
    visitors.close()


def test_when_all_are_busy_the_oldest_is_stopped() -> None:
    visitors = Visitors(ScriptedEngine([Pause(30)]), Limits(visitors=1))
    _, session = visitors.open()
    running = session.say("one", (), SamplingParams())
    visitors.open()
    assert running.generation.wait(5)
    assert len(visitors) == 1


def test_a_guest_is_not_kept() -> None:
    visitors = Visitors(ScriptedEngine([Answer("a")]))
    visitors.guest().say("one", (), SamplingParams())
    assert len(visitors) == 0
