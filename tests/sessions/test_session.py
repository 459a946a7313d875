"""A visitor's session: what is said, what is refused, and that nobody has to watch."""

import random

import pytest

from magistral_ui.chat.conversation import AssistantMessage, UserMessage
from magistral_ui.chat.events import Answer, Finished, Notice, Reasoning
from magistral_ui.chat.pictures import Picture
from magistral_ui.chat.prompt import AssistantTurn, PromptChoices, SystemPart, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import Loading
from magistral_ui.engines.scripted import Pause, Script, ScriptedEngine
from magistral_ui.errors import (
    AlreadyAnswering,
    EmptyMessage,
    MagistralUIError,
    MessageGone,
    NotReady,
    TextTooLong,
    TooManyPictures,
)
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.session import Session

PARAMS = SamplingParams()
SHORT: Script = [Reasoning("hm"), Answer("yes")]
ENDLESS: Script = [Reasoning("hm"), Pause(30), Answer("too late")]


def ask(session: Session, text: str) -> None:
    assert session.say(text, (), PARAMS).generation.wait(5)


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


@pytest.mark.parametrize(
    ("text", "pictures", "error"),
    [("", 0, EmptyMessage), (" \n ", 0, EmptyMessage), ("x" * 11, 0, TextTooLong), ("ok", 3, TooManyPictures)],
)
def test_what_cannot_be_said_changes_nothing(text: str, pictures: int, error: type[MagistralUIError]) -> None:
    engine = ScriptedEngine(SHORT)
    session = Session(engine, Limits(pictures=2, text_length=10))
    with pytest.raises(error):
        session.say(text, [Picture(b"", 1, 1, "d")] * pictures, PARAMS)
    assert session.conversation.path() == ()
    assert engine.requests == []


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
    assert session.look()[1] is running
    session.stop()
    assert running.generation.wait(5)
    assert session.running is None
    assert len(session.conversation.path()) == 2


def test_stopping_keeps_what_was_written_and_frees_the_session() -> None:
    session = Session(ScriptedEngine(ENDLESS))
    running = session.say("one", (), PARAMS)
    session.stop()
    assert running.generation.wait(5)
    reply = session.conversation.last()
    assert isinstance(reply, AssistantMessage)
    assert reply.reply.finish_reason == "cancelled"
    assert "too late" not in reply.reply.answer
    ask_again = session.say("two", (), PARAMS)
    session.stop()
    assert ask_again.generation.wait(5)


def test_answer_now_reaches_the_running_generation() -> None:
    session = Session(ScriptedEngine([Pause(0.2), Reasoning("hm"), Answer("yes")]))
    running = session.say("one", (), PARAMS)
    session.answer_now()
    assert running.generation.answer_now_asked
    assert running.generation.wait(5)


def test_regenerating_adds_a_sibling_and_shows_it() -> None:
    session = Session(ScriptedEngine(lambda request: [Answer(f"seed {request.params.seed}")]))
    assert session.say("one", (), SamplingParams(seed=1)).generation.wait(5)
    first = session.conversation.last()
    assert isinstance(first, AssistantMessage)
    again = session.regenerate(first.id, SamplingParams(seed=2))
    assert again.generation.wait(5)
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


def test_a_new_chat_stops_the_old_one_and_forgets_its_reply() -> None:
    session = Session(ScriptedEngine(ENDLESS))
    running = session.say("one", (), PARAMS)
    session.new_chat()
    assert running.generation.wait(5)
    assert session.conversation.path() == ()
    assert session.running is None


def test_the_notices_of_a_reply_are_kept_with_their_values() -> None:
    session = Session(ScriptedEngine([Notice("max_tokens_lowered", {"limit": 7}), Answer("a"), Finished("length")]))
    running = session.say("one", (), PARAMS)
    assert running.generation.wait(5)
    reply = session.conversation.last()
    assert reply is not None
    written = session.written(reply.id)
    assert written.generation == running.generation.id
    assert [(notice.key, notice.values) for notice in written.notices] == [("max_tokens_lowered", {"limit": 7})]
