"""Changing a turn: reasoning in other words, the same again, taken out and brought back, in or out of the context."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from magistral_ui.chat.conversation import AssistantMessage
from magistral_ui.chat.events import Answer, Failed, Finished, Notice, Reasoning
from magistral_ui.chat.prompt import AssistantTurn, PromptChoices, Resume, UserTurn
from magistral_ui.chat.reply import Reply
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest, Ready
from magistral_ui.engines.generation import RunningReply
from magistral_ui.errors import AlreadyAnswering, BadInput, MessageGone, TextTooLong
from magistral_ui.models.cards import MAGISTRAL_1_0
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.session import Session
from tests.scripted_engine import INFO, Pause, Script, ScriptedEngine

PARAMS = SamplingParams()


def words(request: GenerationRequest) -> Script:
    """What it was asked with: the same request gives the same words."""
    resume, said = request.prompt.resume, f"seed {request.params.seed}"
    if resume is None:
        return [Reasoning("let me see", 3), Answer(said)]
    return [Answer(said)] if resume.closed else [Reasoning(" and more", 2), Answer(said)]


def asked(engine: ScriptedEngine, *texts: str, limits: Limits | None = None) -> Session:
    session = Session(engine, limits)
    for text in texts:
        assert session.say(text, (), PARAMS).generation.wait(60)
    return session


def last(session: Session) -> tuple[int, Reply]:
    found = session.conversation.last()
    assert isinstance(found, AssistantMessage)
    return found.id, found.reply


@pytest.mark.parametrize("closed", [False, True])
def test_other_reasoning_is_gone_on_from_in_a_sibling(closed: bool) -> None:
    engine = ScriptedEngine(words)
    session = asked(engine, "one")
    old, _ = last(session)
    assert session.rethink(old, "let me think", closed, PARAMS).generation.wait(60)
    new, reply = last(session)
    assert engine.requests[-1].prompt.resume == Resume("let me think", closed)
    assert session.conversation.siblings(new) == (old, new)
    assert reply.reasoning == ("let me think" if closed else "let me think and more")
    assert reply.usage.reasoning_tokens == (3 if closed else 5)
    assert reply.provenance is not None
    assert reply.provenance.edited
    assert session.answer_again(new, PARAMS).generation.wait(60)
    again = last(session)[1].provenance
    assert again is not None
    assert again.edited


def test_reasoning_that_was_cut_short_can_be_thought_on_from() -> None:
    engine = ScriptedEngine([Reasoning("let me"), Finished("length")])
    session = asked(engine, "one")
    assert session.rethink(last(session)[0], "let", False, PARAMS).generation.wait(60)
    assert last(session)[1].reasoning == "letlet me"


@pytest.mark.parametrize(
    ("reasoning", "error"), [("", BadInput), (" \n", BadInput), ("x" * 21, TextTooLong), ("x" * 20, None)]
)
def test_reasoning_is_checked_as_a_message_is(reasoning: str, error: type[BadInput] | None) -> None:
    session = asked(ScriptedEngine(words), "one", limits=Limits(text_length=10))
    old, _ = last(session)
    if error is None:
        assert session.rethink(old, reasoning, False, PARAMS).generation.wait(60)
        return
    with pytest.raises(error):
        session.rethink(old, reasoning, False, PARAMS)
    assert last(session)[0] == old


def test_a_mark_that_is_text_cannot_be_typed_into_reasoning() -> None:
    engine = ScriptedEngine(words, card=MAGISTRAL_1_0)
    session = asked(engine, "one")
    assert session.rethink(last(session)[0], "a<think>b</think>c", False, PARAMS).generation.wait(60)
    assert engine.requests[-1].prompt.resume == Resume("abc", closed=False)


@pytest.mark.parametrize(
    "begin",
    [
        lambda session, old: None,
        lambda session, old: session.regenerate(old, PARAMS),
        lambda session, old: session.answer_again(old, PARAMS),
        lambda session, old: session.rethink(old, "hm", False, PARAMS),
        lambda session, old: session.rethink(old, "hm", True, PARAMS),
    ],
)
def test_a_replay_asks_exactly_the_same_again(begin: Callable[[Session, int], object]) -> None:
    engine = ScriptedEngine(words)
    session = Session(engine)
    choices = PromptChoices("Be brief.", "[THINK]Think![/THINK]", keep_reasoning=False)
    for text in ("one", "two"):
        assert session.say(text, (), PARAMS, choices).generation.wait(60)
    if begin(session, last(session)[0]) is not None and (running := session.running):
        assert running.generation.wait(60)
    old, reply = last(session)
    request = engine.requests[-1]
    assert session.replay(old).generation.wait(60)
    new, again = last(session)
    assert engine.requests[-1] == request
    assert engine.requests[-1].params.seed is not None
    assert session.conversation.siblings(new)[-2:] == (old, new)
    assert (again.reasoning, again.answer, again.params) == (reply.reasoning, reply.answer, reply.params)
    assert again.usage.reasoning_tokens == reply.usage.reasoning_tokens
    assert again.provenance == reply.provenance
    assert session.written(new).notices == (Notice("replay_same"),)
    assert again.notices == ("replay_same",)


def test_a_replay_of_a_reply_that_was_continued_writes_its_last_stretch_again() -> None:
    scripts = iter([[Reasoning("a"), Answer("b"), Finished("length")], *[[Answer("c")]] * 2])
    engine = ScriptedEngine(lambda request: next(scripts))
    session = asked(engine, "one")
    old, _ = last(session)
    assert session.resume(old, PARAMS).generation.wait(60)
    assert session.replay(old).generation.wait(60)
    new, reply = last(session)
    assert engine.requests[-1] == engine.requests[-2]
    assert (new != old, reply.reasoning, reply.answer) == (True, "a", "bc")


@pytest.mark.parametrize(
    ("before", "first", "second", "told"),
    [
        ("nothing", [Answer("a")], [Answer("b")], "replay_differs"),
        ("model", [Answer("a")], [Answer("b")], "replay_elsewhere"),
        ("model", [Answer("a")], [Answer("a")], "replay_same"),
        ("context", [Answer("a")], [Answer("b")], "replay_changed"),
        ("nothing", [Answer("a"), Finished("cancelled")], [Answer("ab")], None),
        ("nothing", [Notice("answered_now"), Answer("a")], [Answer("ab")], None),
    ],
)
def test_a_replay_tells_how_it_came_out(before: str, first: Script, second: Script, told: str | None) -> None:
    scripts = iter([[Reasoning("hm"), Answer("yes")], first, second])
    engine = ScriptedEngine(lambda request: next(scripts))
    session = asked(engine, "one", "two")
    if before == "model":
        engine.set_status(Ready(replace(INFO, precision="nf4")))
    if before == "context":
        session.keep_reasoning(session.conversation.path()[1].id, False)
    assert session.replay(last(session)[0]).generation.wait(60)
    new, _ = last(session)
    keys = [notice.key for notice in session.written(new).notices]
    assert [key for key in keys if key.startswith("replay")] == ([told] if told else [])


def test_what_is_not_known_cannot_be_replayed() -> None:
    session = asked(ScriptedEngine(words), "one")
    for message in (1, 99):
        with pytest.raises(MessageGone):
            session.replay(message)


def test_a_deleted_reply_gives_way_to_its_sibling_and_comes_back() -> None:
    session = asked(ScriptedEngine(words), "one")
    first, _ = last(session)
    assert session.regenerate(first, PARAMS).generation.wait(60)
    second, _ = last(session)
    whole = session.conversation
    assert session.delete(second) == 1
    assert last(session)[0] == first
    session.restore(second)
    assert session.conversation == whole
    session.restore(second)
    assert session.conversation == whole


def test_a_deleted_message_takes_what_follows_along_and_all_of_it_comes_back() -> None:
    session = asked(ScriptedEngine(words), "one", "two", "three")
    whole = session.conversation
    second = whole.path()[2].id
    assert session.delete(second) == 4
    assert [message.id for message in session.conversation.path()] == [m.id for m in whole.path()[:2]]
    session.restore(second)
    assert session.conversation == whole


def test_what_was_said_after_a_deletion_is_kept_when_it_is_undone() -> None:
    session = asked(ScriptedEngine(words), "one", "two")
    doomed = session.conversation.path()[2].id
    session.delete(doomed)
    assert session.say("instead", (), PARAMS).generation.wait(60)
    instead = session.conversation.path()[2].id
    session.restore(doomed)
    assert session.conversation.path()[2].id == doomed
    assert session.conversation.siblings(doomed) == (doomed, instead)


def test_only_the_last_deletion_is_undone_and_only_where_its_place_is() -> None:
    session = asked(ScriptedEngine(words), "one", "two")
    first, reply, second, _ = session.conversation.path()
    with pytest.raises(MessageGone):
        session.restore(second.id)
    session.delete(second.id)
    session.delete(reply.id)
    with pytest.raises(MessageGone):
        session.restore(second.id)
    session.restore(reply.id)
    session.delete(first.id)
    assert session.conversation.path() == ()
    with pytest.raises(MessageGone):
        session.restore(reply.id)
    session.restore(first.id)
    assert session.conversation.path()[0] == first
    for message in (99, -1):
        with pytest.raises(MessageGone):
            session.delete(message)


def test_a_message_whose_reply_was_deleted_can_be_answered() -> None:
    engine = ScriptedEngine(words)
    session = asked(engine, "one")
    said, reply = session.conversation.path()
    session.delete(reply.id)
    assert session.answer(said.id, PARAMS).generation.wait(60)
    assert [type(m) for m in session.conversation.path()] == [type(said), AssistantMessage]
    for message in (99, last(session)[0]):
        with pytest.raises(MessageGone):
            session.answer(message, PARAMS)


def test_the_reasoning_of_one_reply_is_left_out_of_the_context() -> None:
    engine = ScriptedEngine(words)
    session = asked(engine, "one")
    first, _ = last(session)

    def read() -> str | None:
        assert session.say("more", (), PARAMS).generation.wait(60)
        turn = engine.requests[-1].prompt.turns[1]
        assert isinstance(turn, AssistantTurn)
        return turn.reasoning

    assert read() == "let me see"
    session.keep_reasoning(first, False)
    assert read() is None
    session.keep_reasoning(first, None)
    assert read() == "let me see"
    for message in (1, 99):
        with pytest.raises(MessageGone):
            session.keep_reasoning(message, False)


@pytest.mark.parametrize(
    "change",
    [
        lambda session, said, reply: session.rethink(reply, "hm", False, PARAMS),
        lambda session, said, reply: session.replay(reply),
        lambda session, said, reply: session.answer(said, PARAMS),
        lambda session, said, reply: session.delete(said),
        lambda session, said, reply: session.restore(reply),
        lambda session, said, reply: session.keep_reasoning(reply, False),
    ],
)
def test_nothing_is_changed_while_a_reply_is_written(change: Callable[[Session, int, int], object]) -> None:
    scripts = iter([[Answer("a")], [Pause(30)]])
    engine = ScriptedEngine(lambda request: next(scripts))
    session = asked(engine, "one")
    said, reply = (message.id for message in session.conversation.path())
    running = session.say("two", (), PARAMS)
    before = session.conversation
    with pytest.raises(AlreadyAnswering):
        change(session, said, reply)
    assert session.conversation is before
    session.stop()
    assert running.generation.wait(60)


@pytest.mark.parametrize("begun", [[Reasoning("a", 2)], [Reasoning("a", 2), Answer("b", 3)], [Answer("b", 3)]])
def test_a_reply_that_failed_on_its_way_continues_from_what_was_written(begun: list[Reasoning | Answer]) -> None:
    failed = Failed("remote_cut", {"server": "there"})
    scripts = iter(
        [[*begun, failed], [failed], [Reasoning("c") if begun == [Reasoning("a", 2)] else Answer("c"), Answer("d")]]
    )
    engine = ScriptedEngine(lambda request: next(scripts))
    session = asked(engine, "one")
    message, before = last(session)
    assert (before.failure, before.finish_reason) == ("remote_cut", None)
    assert session.resume(message, PARAMS).generation.wait(60)
    assert last(session)[1].failure == "remote_cut", "the server is still away: nothing is lost by having tried"
    assert session.resume(message, PARAMS).generation.wait(60)
    resume = engine.requests[-1].prompt.resume
    assert resume == Resume(before.reasoning or None, before.reasoning_closed, before.answer)
    again, reply = last(session)
    assert (again, reply.failure, reply.finish_reason) == (message, None, "stop")
    assert (reply.reasoning + reply.answer) == before.reasoning + before.answer + "cd"
    with pytest.raises(MessageGone):
        session.resume(message, PARAMS)


def test_a_reply_that_failed_without_a_word_has_nothing_to_go_on_from() -> None:
    session = asked(ScriptedEngine([Failed("remote_unreachable", {"server": "there"})]), "one")
    with pytest.raises(MessageGone):
        session.resume(last(session)[0], PARAMS)


@pytest.mark.parametrize("change", [Session.regenerate, Session.answer_again, Session.replay, Session.answer])
def test_a_tab_that_still_shows_another_branch_changes_that_branch(change: Callable[..., RunningReply]) -> None:
    engine = ScriptedEngine(words)
    session = asked(engine, "one", "two")
    assert session.edit(1, "other", PARAMS).generation.wait(60)
    target, more = (3, (PARAMS,)) if change is Session.answer else (4, () if change is Session.replay else (PARAMS,))
    assert change(session, target, *more).generation.wait(60)
    shown = session.conversation.path()
    assert [each.id for each in shown[:3]] == [1, 2, 3]
    assert shown[-1].parent == 3
    assert [turn.text for turn in engine.requests[-1].prompt.turns if isinstance(turn, UserTurn)] == ["one", "two"]
