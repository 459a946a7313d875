"""Exported Markdown keeps everything in its place: nothing that was said can leave its own part, or load anything."""

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.events import Usage
from magistral_ui.chat.reply import Reply
from magistral_ui.export.bounds import PREFIX_LENGTH
from magistral_ui.export.document import EXPORT_CPU_SECONDS, Document
from magistral_ui.export.markdown import contained, export_markdown, fenced, inline
from magistral_ui.i18n.texts import text
from tests.export.conversations import DOCUMENTS, sample

FENCES = ["```", "~~~", "````", "`", "``"]
TAGS = ["<!--", "-->", "<pre>", "<details>", "</details>", "<![CDATA[", "<?", "<a>", "<b", ">"]
MARKS = ["\\", "![a](b)", "$", "$$", "\\(", "\\)", "\\[", "\\]", "#", "-", "1.", "# x", "---", "a"]
SPACES = [" ", "    ", "\n", "\n\n"]
HOSTILE = st.text(alphabet="ab \n`~<>/!-[]()$\\*#&=|?:\t", max_size=40) | st.lists(
    st.sampled_from([*FENCES, *TAGS, *MARKS, *SPACES, "> ", "- "]), max_size=14
).map("".join)
COMMONMARK = MarkdownIt("commonmark")


def tokens(markdown: str) -> list[Token]:
    found = COMMONMARK.parse(markdown)
    return [*found, *(child for token in found for child in token.children or ())]


def headings(markdown: str) -> list[str]:
    found = COMMONMARK.parse(markdown)
    return [found[i + 1].content for i, token in enumerate(found) if token.type == "heading_open" and token.level == 0]


def test_a_conversation_reads_like_this() -> None:
    usage = Usage(0, 0, 843, 60, 0.4, 12.3, 15.0)
    reply = Reply(
        "First.\nThen.\n\n```\nx\n```", "It is **752**.", usage=usage, finish_reason="stop", model="Magistral"
    )
    document = replace(sample(), conversation=Conversation().say("What is\n487 + 265?").with_reply(reply))
    assert export_markdown([document], text).split("\n") == [
        "# A sum",
        "",
        "*2026-11-24 15:30 UTC · Exported from Magistral UI*",
        "",
        "## You",
        "",
        "What is  ",
        "487 + 265?",
        "",
        "## Answer",
        "",
        "<details>",
        "<summary>Thought for 12.3 s · 843 tokens</summary>",
        "",
        "> First.  ",
        "> Then.",
        ">",
        "> ```",
        "> x",
        "> ```",
        "",
        "</details>",
        "",
        "It is **752**.",
        "",
        "*Magistral · 903 tokens*",
        "",
    ]


def test_images_are_named_and_only_the_chosen_branch_is_written() -> None:
    markdown = export_markdown([sample()], text)
    assert "*Image 1: sum.png, 64 × 48*" in markdown
    assert "and plus 20?" in markdown
    assert "and plus 10?" not in markdown


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (r"so \(x^2\) and \[a<b\]", r"so $x^2$ and $$a\lt b$$"),
        (r"$a<b$ but $5 and <b> $10", r"$a\lt b$ but $5 and \<b> $10"),
        ("`<b>` and <b>", r"`<b>` and \<b>"),
        ("a < b, 1 <2", "a < b, 1 <2"),
        ("![x](http://a/b.png)", r"\![x](http://a/b.png)"),
        ("```c\na<b>\n```", "```c\na<b>\n```"),
        ("```c\nopen", "```c\nopen\n```"),
        ("~~~~\na\n~~~\nb", "~~~~\na\n~~~\nb\n~~~~"),
        (r"\<b> \\<b>", r"\<b> \\\<b>"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("<!-- open", r"\<!-- open"),
    ],
)
def test_what_a_viewer_would_take_as_something_else_is_rewritten(written: str, expected: str) -> None:
    assert contained(written) == expected


def test_what_cannot_be_rewritten_is_shown_in_a_fence() -> None:
    # A code span over two lines hides the tag from whoever reads line by line, and the other way round.
    written = "\\` <b> `"
    assert "<b>" in written
    assert not [token for token in tokens(contained(written)) if token.type == "html_inline"]
    assert fenced("a\n```\nb````") == "`````text\na\n```\nb````\n`````"


@settings(max_examples=300)
@given(HOSTILE, st.booleans())
@example("[a\n]: <b>", False)
@example("- ```\n\n  x", False)
@example("a\n    <b>", True)
@example("`a\n<b>`", False)
def test_nothing_leaves_its_place(said: str, keep_lines: bool) -> None:
    markdown = contained(said, keep_lines)
    found = tokens(f"{markdown}\n\n# behind\n")
    assert not {token.type for token in found} & {"html_block", "html_inline", "image"}
    assert headings(f"{markdown}\n\n# behind\n")[-1] == "behind"


@settings(max_examples=100)
@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
def test_the_parts_of_a_conversation_stay_apart(title: str, said: str, reasoning: str, answer: str) -> None:
    conversation = Conversation().say(said).with_reply(Reply(reasoning, answer, model=title)).say("last")
    markdown = export_markdown([Document(conversation, title)], text)
    blocks = [token.content for token in COMMONMARK.parse(markdown) if token.type == "html_block"]
    ours = ["<details>\n<summary>Reasoning</summary>\n", "</details>\n"]
    assert blocks == (ours if reasoning.strip() else [])
    assert not {token.type for token in tokens(markdown)} & {"html_inline", "image"}
    assert headings(markdown)[-1] == "You"
    assert COMMONMARK.parse(markdown)[-2].content == "last"


@given(st.text(max_size=40))
def test_a_line_of_words_stays_one_line_of_the_same_words(words: str) -> None:
    found = COMMONMARK.parse(f"# {inline(words)}")
    content = "".join(child.content for child in found[1].children or ())
    assert content.split() == words.replace("\x00", "\ufffd").split()


@settings(max_examples=25)
@given(DOCUMENTS, DOCUMENTS)
def test_any_conversations_can_be_written(first: Document, second: Document) -> None:
    markdown = export_markdown([first, second], text)
    assert markdown.count("<details>") == markdown.count("</details>")


def test_a_formula_that_is_left_open_does_not_look_beyond_the_next() -> None:
    assert contained(r"\(a \(b\) \[c \[d\\[2pt] e\]") == r"\(a $b$ \[c $$d\\[2pt] e$$"


def test_what_is_too_long_or_comes_too_late_stands_in_a_fence() -> None:
    assert contained("*a* " * PREFIX_LENGTH) == fenced("*a* " * PREFIX_LENGTH)
    talk = Conversation().say("*a*").with_reply(Reply("*b*", "*c*"))
    times = iter([0.0, 1.0, EXPORT_CPU_SECONDS, EXPORT_CPU_SECONDS])
    markdown = export_markdown([Document(talk, "t")], text, clock=lambda: next(times))
    assert fenced("*c*") in markdown
    assert "> ```text\n> *b*\n> ```" in markdown
    assert fenced("*a*") not in markdown
