"""Visitors: who is found by a place, and who is forgotten."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from magistral_ui.chat.conversation import UserMessage
from magistral_ui.chat.events import Answer
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.errors import Overloaded
from magistral_ui.sessions import session_store
from magistral_ui.sessions.history import catalog
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.session import Session
from magistral_ui.sessions.visitors import Visitors
from tests.scripted_engine import Pause, ScriptedEngine


def say(session: Session, text: str = "one") -> None:
    assert session.say(text, (), SamplingParams()).generation.wait(60)


def test_a_visitor_finds_the_same_session_again_and_nobody_elses() -> None:
    visitors = Visitors(ScriptedEngine([Answer("a")]))
    one, mine = visitors.open()
    other, theirs = visitors.open()
    assert one["visitor"] != other["visitor"]
    assert mine is not theirs
    assert visitors.open(one) == (one, mine)
    assert visitors.find(other) is theirs


MADE_UP: list[Any] = ["", "me", "x" * 43, None, 7, ["list"], {"a": 1}, {"visitor": 1}, {"visitor": ""}]
MADE_UP += [{"visitor": "me"}, {"visitor": "me", "conversation": "x"}, {"visitor": "\ud800", "conversation": "\ud800"}]


@pytest.mark.parametrize("place", MADE_UP, ids=repr)
def test_a_place_that_the_server_did_not_make_is_never_taken(place: Any) -> None:
    visitors = Visitors(ScriptedEngine([Answer("a")]))
    visitors.open()
    assert visitors.find(place) is None
    fresh, session = visitors.open(place)
    assert len(fresh["visitor"]) >= 40
    assert len(fresh["conversation"]) >= 20
    assert fresh["conversation"] == session.id
    assert not isinstance(place, dict) or fresh["visitor"] != place.get("visitor")


def test_a_conversation_is_its_visitors_only() -> None:
    visitors = Visitors(ScriptedEngine([Answer("a")]))
    mine, session = visitors.open()
    theirs, _ = visitors.open()
    stolen = {"visitor": theirs["visitor"], "conversation": mine["conversation"]}
    assert visitors.find(stolen) is None
    place, other = visitors.open(stolen)
    assert other is not session
    assert place["conversation"] != mine["conversation"]
    assert place["visitor"] == theirs["visitor"]


def test_a_visitor_has_many_conversations() -> None:
    visitors = Visitors(ScriptedEngine([Answer("a")]))
    first, session = visitors.open()
    say(session)
    second, other = visitors.begin(first)
    assert (second["visitor"], second["conversation"]) == (first["visitor"], other.id)
    assert other is not session
    assert visitors.begin(second) == (second, other), "an empty one is not left behind"
    assert visitors.find(first) is session
    assert visitors.find(second) is other


def test_who_names_no_conversation_gets_the_latest() -> None:
    visitors = Visitors(ScriptedEngine([Answer("a")]))
    first, session = visitors.open()
    say(session)
    _, other = visitors.begin(first)
    say(other)
    bare = {"visitor": first["visitor"]}
    assert visitors.open(bare)[1] is other
    visitors.find(first)
    assert visitors.open(bare)[1] is session
    assert visitors.find(bare) is None
    assert visitors.open({**bare, "conversation": "gone"})[1] not in (session, other)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions may go as soon as nobody uses them."""
    monkeypatch.setattr(session_store, "GRACE_SECONDS", 0.0)


@pytest.mark.usefixtures("at_once")
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
    assert all(visitors.find(place) for place in (busy, old, new))
    visitors.close()


def test_who_has_just_come_is_spared_but_not_beyond_twice_the_bound() -> None:
    visitors = Visitors(ScriptedEngine([Answer("a")]), Limits(visitors=2))
    places = [visitors.open()[0] for _ in range(6)]
    assert len(visitors) == 4
    assert all(visitors.find(place) for place in places[2:])


@pytest.mark.usefixtures("at_once")
def test_a_session_that_was_dropped_takes_no_words() -> None:
    visitors = Visitors(ScriptedEngine([Answer("a")]), Limits(visitors=1))
    _, session = visitors.open()
    visitors.open()
    with pytest.raises(Overloaded):
        session.say("one", (), SamplingParams())
    assert len(visitors) == 1


@pytest.mark.usefixtures("at_once")
def test_a_session_that_somebody_works_with_is_not_dropped() -> None:
    visitors = Visitors(ScriptedEngine([Answer("a")]), Limits(visitors=1))
    place, session = visitors.open()
    with session._lock:
        begun = threading.Thread(target=visitors.open)
        begun.start()
        begun.join()
    assert visitors.find(place) is session


@pytest.mark.usefixtures("at_once")
def test_when_all_are_busy_nobody_is_stopped_for_a_newcomer() -> None:
    visitors = Visitors(ScriptedEngine([Pause(30)]), Limits(visitors=1))
    place, session = visitors.open()
    running = session.say("one", (), SamplingParams())
    visitors.open()
    assert not running.generation.stop_requested
    assert visitors.find(place) is session
    running.generation.stop()
    assert running.generation.wait(60)
    session.save()
    visitors.listing(place)  # what is written is written
    visitors.open()
    assert len(visitors) == 1
    visitors.close()


def test_the_engine_counts_a_visitors_conversations_as_one_party() -> None:
    engine = ScriptedEngine([Answer("a")])
    visitors = Visitors(engine)
    first, session = visitors.open()
    say(session)
    say(visitors.begin(first)[1])
    keys = [request.visitor for request in engine.requests]
    assert len(set(keys)) == 2
    assert len({key.split("/")[0] for key in keys}) == 1
    assert first["visitor"] not in keys[0], "the secret stays here"


def test_a_guest_is_not_kept() -> None:
    visitors = Visitors(ScriptedEngine([Answer("a")]))
    visitors.temporary_session().say("one", (), SamplingParams())
    assert len(visitors) == 0


@pytest.fixture
def unsaved() -> Iterator[Visitors]:
    """Visitors whose conversations are not saved by time alone."""
    visitors = Visitors(ScriptedEngine([Answer("pears, indeed")]))
    visitors._autosave.close()
    yield visitors
    visitors.close()


def test_a_search_finds_what_was_said_just_now(unsaved: Visitors) -> None:
    place, session = unsaved.open()
    say(session)
    found = unsaved.search(place, "indeed").result(60)
    assert [entry.id for entry in found.entries] == [session.id]


def test_a_deleted_conversation_comes_back_with_what_was_said_just_now(unsaved: Visitors) -> None:
    place, session = unsaved.open()
    say(session)
    assert unsaved.remove(place, session.id)
    assert unsaved.find(place) is None
    assert unsaved.change(place, session.id, catalog.restore)
    restored = unsaved.find(place)
    assert restored is not None
    assert [
        each.text if isinstance(each, UserMessage) else each.reply.answer for each in restored.conversation.path()
    ] == [
        "one",
        "pears, indeed",
    ]


def test_conversations_are_listed_by_when_they_changed_and_not_by_when_they_were_saved(unsaved: Visitors) -> None:
    place, first = unsaved.open()
    say(first)
    place, second = unsaved.begin(place)
    say(second)
    second.save()
    first.save()
    assert [each.id for each in unsaved.listing(place)] == [second.id, first.id]
