"""What the model will read: instructions are added and never replace, reasoning is kept or left out as chosen."""

from dataclasses import replace

import pytest

from magistral_ui.chat.conversation import AssistantMessage, Conversation
from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.prompt import (
    AssistantTurn,
    Prompt,
    PromptChoices,
    Resume,
    SystemPart,
    UserTurn,
    compose,
    split_system_prompt,
    with_instructions,
)
from magistral_ui.chat.reply import Reply

MARKS = ("[THINK]", "[/THINK]")
SYSTEM = (SystemPart("Think like this:"), SystemPart("casually", reasoning=True), SystemPart("Then answer."))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ()),
        ("\n", ()),
        ("no marks", (SystemPart("no marks"),)),
        ("a[THINK]b[/THINK]c\n", (SystemPart("a"), SystemPart("b", True), SystemPart("c"))),
        ("a[THINK]b[/THINK]", (SystemPart("a"), SystemPart("b", True))),
        ("[THINK]b[/THINK]c", (SystemPart("b", True), SystemPart("c"))),
        ("a[THINK]b", (SystemPart("a[THINK]b"),)),
        ("a[/THINK]b[THINK]c", (SystemPart("a[/THINK]b[THINK]c"),)),
        (
            "a[THINK]b[/THINK]c[THINK]d[/THINK]",
            (SystemPart("a"), SystemPart("b", True), SystemPart("c[THINK]d[/THINK]")),
        ),
        ("a\n\n", (SystemPart("a\n"),)),
    ],
)
def test_a_system_prompt_is_cut_at_its_first_pair_of_marks(text: str, parts: tuple[SystemPart, ...]) -> None:
    assert split_system_prompt(text, MARKS) == parts


def test_instructions_are_added_behind_the_reasoning_prompt() -> None:
    assert with_instructions(SYSTEM, "  Be brief.\n") == (*SYSTEM[:2], SystemPart("Then answer.\n\nBe brief."))
    assert with_instructions(SYSTEM[:2], "Be brief.") == (*SYSTEM[:2], SystemPart("Be brief."))
    assert with_instructions((), "Be brief.") == (SystemPart("Be brief."),)
    assert with_instructions(SYSTEM, " \n") == SYSTEM


def conversation(**reply: str) -> Conversation:
    return Conversation().say("hello").with_reply(Reply(**reply)).say("more")


def turn(prompt_of: Conversation, choices: PromptChoices) -> object:
    return compose(prompt_of, SYSTEM, choices).turns[1]


@pytest.mark.parametrize("general", [True, False])
@pytest.mark.parametrize("own", [True, False, None])
def test_a_message_s_own_choice_about_its_reasoning_wins(general: bool, own: bool | None) -> None:
    talked = conversation(reasoning="hm", answer="hi")
    assistant = talked.path()[1]
    assert isinstance(assistant, AssistantMessage)
    talked = talked.keep_reasoning(assistant.id, own)
    kept = general if own is None else own
    expected = AssistantTurn("hi", "hm" if kept else None, assistant.id, "" if kept else "hm")
    assert turn(talked, PromptChoices(keep_reasoning=general)) == expected


@pytest.mark.parametrize("answer", ["", " \n"])
def test_reasoning_without_an_answer_is_kept_since_an_empty_turn_is_refused(answer: str) -> None:
    kept = turn(conversation(reasoning="hm", answer=answer), PromptChoices(keep_reasoning=False))
    assert isinstance(kept, AssistantTurn)
    assert kept.reasoning == "hm"


@pytest.mark.parametrize("answer", ["", " \n"])
def test_a_reply_without_a_word_is_left_out(answer: str) -> None:
    turns = compose(conversation(answer=answer), SYSTEM, PromptChoices()).turns
    assert [t.text for t in turns if isinstance(t, UserTurn)] == ["hello", "more"]
    assert len(turns) == 2


def test_only_the_chosen_branch_is_read() -> None:
    talked = conversation(answer="hi")
    edited = talked.edit(talked.path()[0].id, "good day")
    prompt = compose(edited, SYSTEM, PromptChoices(instructions="Be brief."), Resume("hm", closed=False))
    assert prompt.turns == (UserTurn("good day", (), edited.path()[0].id),)
    assert prompt.system == with_instructions(SYSTEM, "Be brief.")
    assert prompt.resume == Resume("hm", closed=False)


def test_a_prompt_ends_with_a_user_message() -> None:
    for talked in (Conversation(), Conversation().say("a").with_reply(Reply(answer="b"))):
        with pytest.raises(ValueError, match="ends with a user message"):
            compose(talked, SYSTEM, PromptChoices())


def test_prompts_that_read_the_same_have_the_same_digest_and_others_have_not() -> None:
    red, blue = ImageFile(b"", 1, 1, "red"), ImageFile(b"", 1, 1, "blue")
    asked = Prompt(SYSTEM, (UserTurn("hi", (red,), message=1),))
    assert asked.digest == replace(asked, turns=(UserTurn("hi", (red,), message=7),)).digest
    others = (
        replace(asked, system=SYSTEM[:2]),
        replace(asked, turns=(UserTurn("hi", (blue,)),)),
        replace(asked, turns=(UserTurn("hi", (red,)), AssistantTurn("yes"))),
        replace(asked, turns=(UserTurn("hi", (red,)), AssistantTurn("yes", "hm"))),
        replace(asked, resume=Resume("hm", closed=False)),
        replace(asked, resume=Resume("hm", closed=True)),
    )
    assert len({each.digest for each in (asked, *others)}) == len(others) + 1
