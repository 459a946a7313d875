"""The tree of messages stays sound whatever is done to it, and every change leaves the old value as it was."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magistral_ui.chat.conversation import AssistantMessage, Conversation, UserMessage
from magistral_ui.chat.reply import Reply


def talk(*words: str) -> Conversation:
    """A conversation in which user and model take turns."""
    conversation = Conversation()
    for number, each in enumerate(words):
        conversation = conversation.with_reply(Reply(answer=each)) if number % 2 else conversation.say(each)
    return conversation


def shown(conversation: Conversation) -> list[str]:
    return [m.text if isinstance(m, UserMessage) else m.reply.answer for m in conversation.path()]


def test_an_empty_conversation_shows_nothing() -> None:
    assert Conversation().path() == ()
    assert Conversation().last() is None
    assert Conversation().last_user() is None
    with pytest.raises(ValueError, match="no user message"):
        Conversation().with_reply(Reply())


def test_an_edit_is_a_sibling_and_the_old_branch_comes_back_whole() -> None:
    before = talk("a", "b", "c", "d")
    first = before.path()[0].id
    edited = before.edit(first, "A").with_reply(Reply(answer="B"))
    assert shown(edited) == ["A", "B"]
    assert shown(before) == ["a", "b", "c", "d"]
    assert shown(edited.choose(first)) == ["a", "b", "c", "d"]
    assert edited.siblings(first) == (first, edited.path()[0].id)


def test_a_second_reply_to_the_same_words_is_a_sibling_of_the_first() -> None:
    once = talk("a", "b")
    twice = once.with_reply(Reply(answer="b2"))
    assert shown(twice) == ["a", "b2"]
    assert len(twice.siblings(twice.path()[1].id)) == 2
    assert shown(twice.choose(once.path()[1].id)) == ["a", "b"]


def test_a_reply_lands_under_the_message_it_was_written_for() -> None:
    conversation = talk("a", "b", "c")
    target = conversation.path()[2].id
    elsewhere = conversation.edit(conversation.path()[0].id, "A")
    late = elsewhere.with_reply(Reply(answer="d"), to=target)
    assert shown(late) == ["A"]
    assert shown(late.choose(conversation.path()[0].id)) == ["a", "b", "c", "d"]


def test_an_id_is_never_given_twice() -> None:
    conversation = talk("a", "b", "c")
    gone = conversation.path()[2].id
    again = conversation.without(gone).say("other words")
    assert again.path()[-1].id != gone
    with pytest.raises(KeyError):
        again.with_reply(Reply(answer="late"), to=gone)


def test_deleting_shows_a_sibling_only_where_the_deleted_was_shown() -> None:
    conversation = talk("a", "b").with_reply(Reply(answer="b2"))
    first, second = conversation.siblings(conversation.path()[1].id)
    assert shown(conversation.without(second)) == ["a", "b"]
    assert shown(conversation.without(first)) == ["a", "b2"]
    cut = conversation.at(conversation.path()[0].id)
    assert shown(cut) == ["a"]
    assert shown(cut.without(second)) == ["a"]


def test_words_after_a_cut_begin_a_branch() -> None:
    conversation = talk("a", "b", "c", "d")
    answer = conversation.path()[1].id
    assert shown(conversation.at(answer).say("C")) == ["a", "b", "C"]
    assert shown(conversation.at(answer).say("C").choose(conversation.path()[2].id)) == ["a", "b", "c", "d"]


def test_cutting_after_a_message_of_another_branch_shows_that_branch() -> None:
    conversation = talk("a", "b", "c", "d").edit(1, "A").with_reply(Reply(answer="B"))
    assert shown(conversation.at(3)) == ["a", "b", "c"]
    assert shown(conversation.at(1)) == ["a"]
    assert conversation.at(3).last_user() == conversation.messages[3]


def test_only_assistant_messages_have_reasoning_to_keep_and_only_users_are_edited_or_answered() -> None:
    conversation = talk("a", "b")
    user, assistant = (m.id for m in conversation.path())
    kept = conversation.keep_reasoning(assistant, False).path()[1]
    assert isinstance(kept, AssistantMessage)
    assert kept.keep_reasoning is False
    with pytest.raises(ValueError, match="only an assistant"):
        conversation.keep_reasoning(user, True)
    with pytest.raises(ValueError, match="not a user"):
        conversation.edit(assistant, "x")
    with pytest.raises(ValueError, match="not a user"):
        conversation.with_reply(Reply(), to=assistant)


CHANGES = st.lists(
    st.tuples(st.sampled_from(["say", "edit", "reply", "choose", "keep", "at", "without", "undo"]), st.integers(0, 99)),
    max_size=25,
)


@given(CHANGES)
def test_any_changes_leave_a_sound_tree(changes: list[tuple[str, int]]) -> None:
    conversation, ids = Conversation(), set[int]()
    for change, number in changes:
        before = conversation
        messages, chosen = dict(before.messages), dict(before.chosen)
        conversation = changed(conversation, change, number)
        assert (dict(before.messages), dict(before.chosen)) == (messages, chosen), "a value was changed in place"
        fresh = set(conversation.messages) - set(messages)
        assert not fresh & ids, "an id was given twice"
        ids |= fresh
        sound(conversation)


def changed(conversation: Conversation, change: str, number: int) -> Conversation:
    def pick(kind: type[Any]) -> int | None:
        of_kind = [m.id for m in conversation.messages.values() if isinstance(m, kind)]
        return of_kind[number % len(of_kind)] if of_kind else None

    user, assistant, any_message = pick(UserMessage), pick(AssistantMessage), pick(object)
    match change:
        case "say":
            return conversation.say(f"words {number}")
        case "edit" if user:
            return conversation.edit(user, "other words")
        case "reply" if user:
            return conversation.with_reply(Reply(answer=f"answer {number}"), to=user)
        case "choose" if any_message:
            return conversation.choose(any_message)
        case "keep" if assistant:
            return conversation.keep_reasoning(assistant, bool(number % 2))
        case "at" if any_message:
            return conversation.at(any_message)
        case "without" if any_message:
            return conversation.without(any_message)
        case "undo" if any_message:
            restored = conversation.without(any_message).restored(any_message, conversation)
            assert restored == conversation.choose(any_message)
            return restored
    return conversation


def sound(conversation: Conversation) -> None:
    messages = conversation.messages
    for key, message in messages.items():
        assert key == message.id <= conversation.last_id
        if message.parent is not None:
            assert messages[message.parent].id < message.id
        if isinstance(message, AssistantMessage):
            assert isinstance(messages[message.parent], UserMessage), "a reply follows a user's words"
        assert message.id in conversation.siblings(message.id)
    for parent, child in conversation.chosen.items():
        assert messages[child].parent == parent
    path = conversation.path()
    if messages:
        assert path, "a conversation with messages shows some"
    assert len({m.id for m in path}) == len(path)
    for earlier, later in pairwise(path):
        assert later.parent == earlier.id
        assert isinstance(later, UserMessage) or isinstance(earlier, UserMessage)
