"""A visitor's session: what is said, what is refused, and that nobody has to watch."""

import random
from dataclasses import replace

import pytest

from magistral_ui.chat.conversation import AssistantMessage, UserMessage
from magistral_ui.chat.events import Answer, Finished, Notice, Reasoning
from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.prompt import AssistantTurn, PromptChoices, Resume, SystemPart, UserTurn
from magistral_ui.chat.reply import Reply
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import Loading, Ready
from magistral_ui.errors import (
    AlreadyAnswering,
    EmptyMessage,
    ImageRefused,
    MagistralUIError,
    MessageGone,
    NotReady,
    TextTooLong,
    TooManyImages,
)
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.session import Session
from tests.scripted_engine import INFO, Pause, Script, ScriptedEngine

PARAMS = SamplingParams()
SHORT: Script = [Reasoning("hm"), Answer("yes")]
ENDLESS: Script = [Reasoning("hm"), Pause(30), Answer("too late")]


def ask(session: Session, text: str) -> None:
    assert session.say(text, (), PARAMS).generation.wait(60)


def test_a_reply_is_in_the_conversation_though_nobody_watched() -> None:
    session = Session(ScriptedEngine(SHORT))
    ask(session, "well?")
    said, reply = session.conversation.path()
    assert isinstance(said, UserMessage)
    assert said.text == "well?"
    assert isinstance(reply, AssistantMessage)
    assert (reply.reply.reasoning, reply.reply.answer, reply.reply.finish_reason) == ("hm", "yes", "stop")
    assert session.running is None


def test_the_prompt_has_the_earlier_turns_the_card_and_the_instructions() -> None:
    engine = ScriptedEngine(SHORT)
    session = Session(engine, key="someone")
    ask(session, "one")
    session.say("two", (), PARAMS, PromptChoices(instructions="Be brief."))
    request = engine.requests[-1]
    assert [type(turn) for turn in request.prompt.turns] == [UserTurn, AssistantTurn, UserTurn]
    assert request.visitor == "someone"
    assert isinstance(request.prompt.system[-1], SystemPart)
    assert request.prompt.system[-1].text.endswith("Be brief.")
    assert request.prompt.system[0].text.startswith(engine.card.system()[0].text[:20])


def test_a_seed_is_drawn_and_kept_with_the_reply() -> None:
    session = Session(ScriptedEngine(SHORT), seeds=random.Random(7))
    ask(session, "one")
    reply = session.conversation.last()
    assert isinstance(reply, AssistantMessage)
    assert reply.reply.params is not None
    assert reply.reply.params.seed == random.Random(7).randrange(2**32)


def test_a_reply_tells_where_it_comes_from() -> None:
    engine, session = cut_then([Reasoning("hm"), Answer("yes")], [Answer(" and no")], SHORT)
    engine.set_status(Ready(replace(INFO, revision="abc", precision="nf4", device="cuda")))
    choices = PromptChoices("Be brief.", "[THINK]Think![/THINK]", keep_reasoning=False)
    assert session.say("one", (), PARAMS, choices).generation.wait(60)
    old, reply = last_reply(session)
    found = reply.provenance
    assert found is not None
    model = (found.model, found.source, found.revision, found.precision, found.device, found.engine)
    assert model == ("Scripted", "script", "abc", "nf4", "cuda", "script")
    assert (found.instructions, found.system_prompt) == ("Be brief.", "[THINK]Think![/THINK]")
    assert not found.keep_reasoning
    assert (found.begun_reasoning, found.begun_answer, found.begun_closed) == (0, 0, False)
    assert session.answer_again(old, PARAMS).generation.wait(60)
    again = last_reply(session)[1].provenance
    assert again is not None
    assert (again.begun_reasoning, again.begun_answer, again.begun_closed) == (2, 0, True)
    assert again.prompt not in ("", found.prompt)


@pytest.mark.parametrize(
    ("text", "images", "error"),
    [("", 0, EmptyMessage), (" \n ", 0, EmptyMessage), ("x" * 11, 0, TextTooLong), ("ok", 3, TooManyImages)],
)
def test_what_cannot_be_said_changes_nothing(text: str, images: int, error: type[MagistralUIError]) -> None:
    engine = ScriptedEngine(SHORT)
    session = Session(engine, Limits(pictures=2, text_length=10))
    with pytest.raises(error):
        session.say(text, [ImageFile(b"", 1, 1, "d")] * images, PARAMS)
    assert session.conversation.path() == ()
    assert engine.requests == []


def test_a_model_without_vision_does_not_continue_a_chat_with_images() -> None:
    engine = ScriptedEngine(SHORT)
    session = Session(engine)
    ask(session, "hello")
    session.say("Which colour?", [ImageFile(b"", 1, 1, "d", "red.png")], PARAMS).generation.wait(60)
    before = session.conversation
    engine.card = replace(engine.card, vision=False)  # as after a switch
    for act in (lambda: session.say("And now?", (), PARAMS), lambda: session.measure("And now?", ())):
        with pytest.raises(ImageRefused) as refused:
            act()
        assert (refused.value.message.key, refused.value.message.values["name"]) == ("picture_not_supported", "red.png")
    assert session.conversation == before
    first = next(each.id for each in before.path() if isinstance(each, AssistantMessage))
    assert session.regenerate(first, PARAMS).generation.wait(60), "the branch without the image goes on"


def test_an_engine_that_refuses_leaves_no_trace() -> None:
    session = Session(ScriptedEngine(SHORT, status=Loading()))
    with pytest.raises(NotReady):
        session.say("one", (), PARAMS)
    assert session.conversation.path() == ()
    assert session.running is None


def test_one_reply_at_a_time() -> None:
    session = Session(ScriptedEngine(ENDLESS))
    running = session.say("one", (), PARAMS)
    with pytest.raises(AlreadyAnswering):
        session.say("two", (), PARAMS)
    assert session.snapshot()[1] is running
    session.stop()
    assert running.generation.wait(60)
    assert session.running is None
    assert len(session.conversation.path()) == 2


def test_stopping_keeps_what_was_written_and_frees_the_session() -> None:
    session = Session(ScriptedEngine(ENDLESS))
    running = session.say("one", (), PARAMS)
    session.stop()
    assert running.generation.wait(60)
    reply = session.conversation.last()
    assert isinstance(reply, AssistantMessage)
    assert reply.reply.finish_reason == "cancelled"
    assert "too late" not in reply.reply.answer
    ask_again = session.say("two", (), PARAMS)
    session.stop()
    assert ask_again.generation.wait(60)


def test_answer_now_reaches_the_running_generation() -> None:
    session = Session(ScriptedEngine([Pause(0.2), Reasoning("hm"), Answer("yes")]))
    running = session.say("one", (), PARAMS)
    session.answer_now()
    assert running.generation.answer_now_requested
    assert running.generation.wait(60)


def test_regenerating_adds_a_sibling_and_shows_it() -> None:
    session = Session(ScriptedEngine(lambda request: [Answer(f"seed {request.params.seed}")]))
    assert session.say("one", (), SamplingParams(seed=1)).generation.wait(60)
    first = session.conversation.last()
    assert isinstance(first, AssistantMessage)
    again = session.regenerate(first.id, SamplingParams(seed=2))
    assert again.generation.wait(60)
    second = session.conversation.last()
    assert isinstance(second, AssistantMessage)
    assert second.reply.answer == "seed 2"
    assert session.conversation.siblings(second.id) == (first.id, second.id)


def test_regenerating_what_is_not_a_reply_is_refused() -> None:
    session = Session(ScriptedEngine(SHORT))
    ask(session, "one")
    for message in (1, 99, -1):
        with pytest.raises(MessageGone):
            session.regenerate(message, PARAMS)
    assert len(session.conversation.path()) == 2


def test_the_notices_of_a_reply_are_kept_with_their_values() -> None:
    session = Session(ScriptedEngine([Notice("max_tokens_lowered", {"limit": 7}), Answer("a"), Finished("length")]))
    running = session.say("one", (), PARAMS)
    assert running.generation.wait(60)
    reply = session.conversation.last()
    assert reply is not None
    written = session.written(reply.id)
    assert written.generation == running.generation.id
    assert [(notice.key, notice.values) for notice in written.notices] == [("max_tokens_lowered", {"limit": 7})]


def last_reply(session: Session) -> tuple[int, Reply]:
    last = session.conversation.last()
    assert isinstance(last, AssistantMessage)
    return last.id, last.reply


def cut_then(*more: Script) -> tuple[ScriptedEngine, Session]:
    """A session over an engine that plays one script after the other."""
    scripts = iter(more)
    engine = ScriptedEngine(lambda request: next(scripts))
    return engine, Session(engine)


@pytest.mark.parametrize(
    ("first", "more", "resume"),
    [
        ([Reasoning("a"), Finished("length")], [Reasoning("b"), Answer("c")], Resume("a", False)),
        ([Reasoning("a"), Answer("b"), Finished("cancelled")], [Answer("c")], Resume("a", True, "b")),
        ([Answer("b"), Finished("length")], [Answer("c")], Resume(None, True, "b")),
    ],
)
def test_a_reply_that_was_cut_continues_in_its_own_place(first: Script, more: Script, resume: Resume) -> None:
    engine, session = cut_then(first, more)
    ask(session, "one")
    old, cut = last_reply(session)
    running = session.resume(old, PARAMS)
    assert running.generation.wait(60)
    new, whole = last_reply(session)
    assert engine.requests[-1].prompt.resume == resume
    assert new == old
    assert session.conversation.siblings(new) == (old,)
    assert (whole.reasoning + whole.answer).endswith("c")
    assert (whole.reasoning + whole.answer).startswith(cut.reasoning or cut.answer)
    assert whole.usage.completion_tokens == cut.usage.completion_tokens + len(more)
    assert whole.usage.first_token_seconds == cut.usage.first_token_seconds
    assert (whole.reasoning_closed, whole.finish_reason) == (True, "stop")
    assert session.written(new).generation == running.generation.id


def test_what_was_not_cut_or_is_empty_cannot_go_on() -> None:
    _, session = cut_then(SHORT, [Finished("cancelled")])
    ask(session, "one")
    with pytest.raises(MessageGone):
        session.resume(last_reply(session)[0], PARAMS)
    ask(session, "two")
    with pytest.raises(MessageGone):
        session.resume(last_reply(session)[0], PARAMS)


def test_the_reply_that_continues_is_still_there_when_the_engine_refuses() -> None:
    engine, session = cut_then([Answer("b"), Finished("length")])
    ask(session, "one")
    old, _ = last_reply(session)
    engine.set_status(Loading())
    with pytest.raises(NotReady):
        session.resume(old, PARAMS)
    assert last_reply(session)[0] == old


def test_answering_again_keeps_the_reasoning_and_makes_a_sibling() -> None:
    engine, session = cut_then([Reasoning("hm"), Answer("yes")], [Answer("no")], SHORT)
    ask(session, "one")
    old, _ = last_reply(session)
    assert session.answer_again(old, PARAMS).generation.wait(60)
    new, reply = last_reply(session)
    assert engine.requests[-1].prompt.resume == Resume("hm", True)
    assert session.conversation.siblings(new) == (old, new)
    assert (reply.reasoning, reply.answer, reply.usage.reasoning_tokens) == ("hm", "no", 1)


def test_there_is_no_answering_again_without_reasoning() -> None:
    _, session = cut_then([Answer("yes")])
    ask(session, "one")
    with pytest.raises(MessageGone):
        session.answer_again(last_reply(session)[0], PARAMS)


def test_an_edited_message_is_a_branch_and_the_old_one_can_be_chosen_again() -> None:
    _, session = cut_then([Answer("a")], [Answer("b")])
    ask(session, "one")
    first, reply = session.conversation.path()
    assert session.edit(first.id, "two", PARAMS).generation.wait(60)
    second = session.conversation.path()[0]
    assert isinstance(second, UserMessage)
    assert second.text == "two"
    assert session.conversation.siblings(second.id) == (first.id, second.id)
    session.choose(first.id)
    assert session.conversation.path() == (first, reply)


def test_what_cannot_be_edited_or_chosen_changes_nothing() -> None:
    _, session = cut_then([Answer("a")])
    ask(session, "one")
    path = said, reply = session.conversation.path()
    with pytest.raises(EmptyMessage):
        session.edit(said.id, " ", PARAMS)
    for message in (reply.id, 99):
        with pytest.raises(MessageGone):
            session.edit(message, "two", PARAMS)
    with pytest.raises(MessageGone):
        session.choose(99)
    assert session.conversation.path() == path


def test_a_reply_without_reasoning_is_asked_for_without_the_template() -> None:
    engine = ScriptedEngine([Answer("4")])
    session = Session(engine)
    off, choices = SamplingParams(seed=1, reasoning_budget=0), PromptChoices(instructions="Be brief.")
    session.say("2+2?", (), off, choices).generation.wait(60)
    prompt = engine.requests[-1].prompt
    assert prompt.system == (SystemPart("Be brief."),)
    assert prompt.effort == "none"
    measured, seen, _ = session.measure("3+3?", (), choices, 0)
    assert seen.system == prompt.system
    assert measured.total < session.measure("3+3?", (), choices)[0].total
    reply = session.conversation.last_id
    session.replay(reply).generation.wait(60)
    assert engine.requests[-1].prompt.digest == prompt.digest
    assert engine.requests[-1].params.reasoning_budget == 0


def test_a_custom_prompt_stays_in_a_reply_without_reasoning() -> None:
    engine = ScriptedEngine([Answer("4")])
    choices = PromptChoices(system_prompt="Draft[THINK]so[/THINK]here.")
    Session(engine).say("2+2?", (), SamplingParams(reasoning_budget=0), choices).generation.wait(60)
    assert [part.text for part in engine.requests[-1].prompt.system] == ["Draft", "so", "here."]


def test_a_page_with_a_limit_on_reasoning_can_still_do_without() -> None:
    limits = Limits(reasoning_tokens=100)
    budgets = {budget: limits.bounded(SamplingParams(reasoning_budget=budget)).reasoning_budget for budget in (0, 50)}
    assert budgets == {0: 0, 50: 50}
    assert limits.bounded(SamplingParams()).reasoning_budget == 100
