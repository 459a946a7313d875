"""The readers give the same however a stream is cut, and show characters whole; only an unopened closing mark takes back."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magistral_ui.chat.events import Answer, Reasoning, Reclassified
from magistral_ui.chat.quoted_marks import MarkContext
from magistral_ui.chat.reasoning import Channel, ReasoningPiece, TextReader, TextTokenReader, TokenIdReader
from tests.chat.joined import joined

BEGIN, END, PAD = 256, 257, 258  # a toy vocabulary: every byte is a token, and three control tokens follow


def bytes_of(token: int) -> bytes:
    return bytes([token]) if token < 256 else b""


def token_reader(channel: Channel = "before") -> TokenIdReader:
    return TokenIdReader(BEGIN, END, bytes_of, channel)


def spelled(text: str) -> list[int]:
    return list(text.encode())


def read(reader: TokenIdReader | TextTokenReader, tokens: list[int]) -> list[ReasoningPiece]:
    return [*(piece for token in tokens for piece in reader.feed(token)), *reader.finish()]


WORDS = st.text(alphabet=st.sampled_from("ab \n<>/[]THINKthink€é😀👩‍💻ก"), max_size=12)


@given(WORDS, WORDS)
def test_reasoning_and_answer_are_told_apart_by_token(thought: str, answer: str) -> None:
    pieces = read(token_reader(), [BEGIN, *spelled(thought), END, *spelled(answer)])
    # Line breaks next to marks are left out, as they are of a server's text: the same reply reads the same everywhere.
    assert joined(pieces) == (thought.strip("\r\n"), answer.lstrip("\r\n"))
    assert all("\ufffd" not in piece.text for piece in pieces if not isinstance(piece, Reclassified))
    assert sum(p.tokens for p in pieces if isinstance(p, Reasoning)) == len(thought.encode()) + 2
    assert sum(p.tokens for p in pieces if isinstance(p, Answer)) == len(answer.encode())


def test_a_mark_typed_as_text_is_text() -> None:
    typed = "[THINK]a[/THINK]b"
    assert joined(read(token_reader(), spelled(typed))) == ("", typed)
    assert joined(read(token_reader(), [BEGIN, *spelled("so [/THINK] it"), END, *spelled(typed)])) == (
        "so [/THINK] it",
        typed,
    )


def test_every_token_gives_an_event_at_once() -> None:
    reader = token_reader()
    for token in [BEGIN, *spelled("é"), END, *spelled("€"), PAD]:
        assert sum(piece.tokens for piece in reader.feed(token) if not isinstance(piece, Reclassified)) == 1


@pytest.mark.parametrize(
    ("tokens", "channel"),
    [
        ([], "before"),
        (spelled(" \n"), "before"),
        ([BEGIN], "reasoning"),
        ([BEGIN, END], "answer"),
        (spelled("a"), "answer"),
    ],
)
def test_the_channel_says_where_the_next_token_goes(tokens: list[int], channel: Channel) -> None:
    reader = token_reader()
    for token in tokens:
        reader.feed(token)
    assert reader.channel == channel


def test_stray_marks_are_dropped_and_reasoning_may_open_later() -> None:
    assert joined(read(token_reader(), [END, *spelled("a"), END, *spelled("b")])) == ("", "ab")
    assert joined(read(token_reader(), [BEGIN, *spelled("a"), BEGIN, *spelled("b"), END])) == ("ab", "")
    assert joined(read(token_reader(), [*spelled("a"), BEGIN, *spelled("b"), END, *spelled("c")])) == ("b", "ac")


def test_a_closing_mark_without_an_opening_one_makes_reasoning_of_what_came_before() -> None:
    assert joined(read(token_reader(), [*spelled("\nso 5\n"), END, *spelled("\n\n5")])) == ("so 5", "5")
    assert joined(read(token_reader(), [*spelled("a"), END, *spelled("b"), END, *spelled("c")])) == ("a", "bc")
    resumed = token_reader()
    for token in spelled("It is"):
        resumed.feed(token)
    resumed.mark_resumed()  # what was an answer before stays one
    assert joined(read(resumed, [*spelled(" 5"), END, *spelled(".")])) == ("", " 5.")


@pytest.mark.parametrize(("channel", "split"), [("reasoning", ("a", "b")), ("answer", ("", "ab"))])
def test_a_resumed_reply_continues_where_it_was(channel: Channel, split: tuple[str, str]) -> None:
    assert joined(read(token_reader(channel), [*spelled("a"), END, *spelled("b")])) == split


@given(st.lists(st.integers(0, 258).filter(lambda token: token not in (10, 13)), max_size=40))
def test_any_tokens_decode_as_the_bytes_between_control_tokens(tokens: list[int]) -> None:
    marks = [token for token in tokens if token in (BEGIN, END)]
    if marks[:1] == [END]:  # then reasoning was open from the first token on
        tokens = [BEGIN, *tokens]
    runs: list[tuple[bool, bytearray]] = [(False, bytearray())]
    for token in tokens:
        inside = runs[-1][0]
        if token > 255:
            runs.append(((inside or token == BEGIN) and token != END, bytearray()))
        else:
            runs[-1][1].append(token)
    reasoning = "".join(run.decode(errors="replace") for inside, run in runs if inside)
    answer = "".join(run.decode(errors="replace") for inside, run in runs if not inside)
    assert joined(read(token_reader(), tokens)) == (reasoning, answer)


# Textual marks: the reference reads the whole text at once.


def reference(text: str, channel: Channel = "before") -> tuple[str, str]:
    if channel == "before":
        start = text.lstrip()
        if not start.startswith("<think>"):
            return unopened(text)
        text, channel = start.removeprefix("<think>").lstrip("\r\n"), "reasoning"
    if channel == "answer":
        return "", text
    reasoning, mark, answer = text.partition("</think>")
    return reasoning.rstrip("\r\n"), answer.lstrip("\r\n") if mark else ""


def unopened(text: str) -> tuple[str, str]:
    """The first closing mark that is meant makes reasoning of all before it; marks that opened in the text close there."""
    opened = named = 0
    for mark in re.finditer("</?think>", text):
        before, after = text[: mark.start()], text[mark.end() :]
        passage = MarkContext()
        passage.feed(before)
        spoken_of = passage.quotes(after, True)
        if passage.in_code:
            continue
        if mark[0] == "<think>":
            opened, named = (opened, named + 1) if spoken_of else (opened + 1, named)
        elif opened:
            opened -= 1
        elif named and before.rpartition("\n")[2].strip():
            named -= 1
        elif not spoken_of:
            thought = before if before.strip() else ""
            return thought.strip("\r\n"), after.lstrip("\r\n")
    return "", text


TEXT = st.lists(
    st.sampled_from(
        [
            "<think>",
            "</think>",
            "<",
            "</",
            "think",
            ">",
            "\n",
            "\r\n",
            " ",
            "a",
            "b",
            "€",
            "</thin",
            "<thi",
            "`",
            ".",
            "```\n",
        ]
    ),
    max_size=14,
).map("".join)
CHANNELS = st.sampled_from(["before", "reasoning", "answer"])


def cut(text: str, draw: Callable[[int], int]) -> list[str]:
    parts = []
    while text:
        size = draw(len(text))
        parts.append(text[:size])
        text = text[size:]
    return parts


@given(TEXT, CHANNELS, st.data())
def test_text_reads_the_same_under_any_split(text: str, channel: Channel, data: st.DataObject) -> None:
    reader = TextReader("<think>", "</think>", channel)
    pieces: list[ReasoningPiece] = []
    given_so_far = ("", "")
    wanted = reference(text, channel)
    parts = cut(text, lambda size: data.draw(st.integers(1, size)))
    for part in parts:
        pieces += reader.feed(part)
        now = joined(pieces)
        if wanted[0] and not now[0]:  # it may still be taken for an answer
            continue
        assert all(w.startswith(n) and n.startswith(g) for w, n, g in zip(wanted, now, given_so_far, strict=True))
        given_so_far = now
    pieces += reader.finish()
    assert joined(pieces) == wanted
    assert sum(piece.tokens for piece in pieces if not isinstance(piece, Reclassified)) == len(parts)
    assert sum(isinstance(piece, Reclassified) for piece in pieces) <= 1


@given(TEXT)
def test_textual_marks_in_tokens_read_as_in_text(text: str) -> None:
    reader = TextTokenReader("<think>", "</think>", bytes_of)
    pieces = read(reader, spelled(text))
    assert joined(pieces) == reference(text)
    assert all("\ufffd" not in piece.text for piece in pieces if not isinstance(piece, Reclassified))
    assert sum(piece.tokens for piece in pieces if not isinstance(piece, Reclassified)) == len(text.encode())


def test_the_tokens_of_textual_marks_count_as_reasoning() -> None:
    reader = TextReader("<think>", "</think>")
    pieces = [p for part in ("<", "think", ">", "hm", "</", "think>", "yes") for p in reader.feed(part)]
    assert [(type(p), p.text, p.tokens) for p in pieces if not isinstance(p, Reclassified)] == [
        (Reasoning, "", 3),
        (Reasoning, "hm", 1),
        (Reasoning, "", 1),
        (Reasoning, "", 1),
        (Answer, "", 0),  # the reasoning is closed
        (Answer, "yes", 1),
    ]


def test_text_is_held_back_no_longer_than_a_mark_may_follow() -> None:
    reader = TextReader("<think>", "</think>")
    assert joined(reader.feed("<think>a</thi")) == ("a", "")
    assert joined(reader.feed("s is not a mark")) == ("</this is not a mark", "")
    assert joined(reader.feed("\n")) == ("", "")
    assert joined(reader.feed("</think>\n\nb")) == ("", "b")


@given(WORDS.filter(lambda text: "</think>" not in text), WORDS, st.booleans())
def test_a_beginning_that_is_taken_up_is_never_told_again(thought: str, more: str, closes: bool) -> None:
    begun = "\n" + thought if not thought.startswith(("\r", "\n")) else "\na" + thought
    cut_there, reader = (TextTokenReader("<think>", "</think>", bytes_of) for _ in range(2))
    told = [piece for token in spelled("<think>" + begun) for piece in cut_there.feed(token)]
    told += cut_there.finish(cut=True)
    for token in spelled("<think>" + begun):
        reader.feed(token)
    reader.mark_resumed()
    rest = more + ("\n</think>\nyes" if closes else "")
    pieces = [*(piece for token in spelled(rest) for piece in reader.feed(token)), *reader.finish(cut=not closes)]
    whole = joined(told)[0] + joined(pieces)[0]
    said, mark, _ = (begun + rest).partition("</think>")
    held = next((size for size in range(7, 1, -1) if not mark and said.endswith("</think>"[:size])), 0)
    # Line breaks at the end of a beginning stay, since they were there; others before the mark belong to it.
    assert whole.rstrip("\r\n") == said[: len(said) - held].strip("\r\n")


@pytest.mark.parametrize("part", ["</", "</thi", "</think", "\n</think"])
def test_a_mark_that_a_limit_cuts_leaves_nothing_behind_and_is_completed_later(part: str) -> None:
    begun = f"<think>\nso 5{part}"
    cut_there, resumed = (TextTokenReader("<think>", "</think>", bytes_of) for _ in range(2))
    told = [piece for token in spelled(begun) for piece in cut_there.feed(token)] + cut_there.finish(cut=True)
    assert joined(told) == ("so 5", "")
    for token in spelled(begun):
        resumed.feed(token)
    resumed.mark_resumed()
    rest = "</think>"[len(part.strip()) :]
    assert joined(read(resumed, spelled(f"{rest}\n\n5"))) == ("", "5")
    again = TextTokenReader("<think>", "</think>", bytes_of)
    for token in spelled(begun):
        again.feed(token)
    again.mark_resumed()  # it was no mark: then it comes now
    assert joined(read(again, spelled("b>, no"))) == (f"{part}b>, no", "")


def test_line_breaks_at_which_open_reasoning_was_cut_are_kept() -> None:
    reader = TextTokenReader("<think>", "</think>", bytes_of)
    told = [p for token in spelled("<think>\na\n\n") for p in reader.feed(token)] + reader.finish(cut=True)
    assert joined(told) == ("a\n\n", "")


MEANT = [
    ("First, add. So 5.", "\n\nIt is 5."),
    ("First, add. So 5.", "It is 5."),
    ("First, add. So 5.\n", "\nIt is 5."),
    ("First, add. So 5. ", " It is 5."),
    ("and so it is 5 ", "\n\nIt is 5."),
    ("and so it is 5 ", "\nIt is 5."),
    ("- add\n- so it is 5.\n", "It is 5."),
    ("it is 5", "\n\nFive"),
    ("**So 5.**", "**Five**"),
    ("- add\n- So 5.", "\n\nFive"),
    ("```python\n2 + 3\n```\n", "\n\nFive"),
    ("Use `x`, so 5.", "\nFive"),
    ("所以是5。", "答案是5。"),
    ('He said "five"', "\nYes"),
    ("So \\(x = 5\\)", "\n\nFive"),
    ("She asks what </think> does, so I explain.\n", "\n\nIt ends the thinking."),
    ("Is it `</think>`? Yes.", "\n\nIt is."),
    ("She writes <think> in it.\nSo 5.\n", "\n\nIt is 5."),
    ("The reply:", "\n\nFive"),
    ("A table.\n", "| a | b |\n|---|---|"),
    ("答案：", "\n\n五"),
    ("- ```py\n  2 + 3\n  ```\n", "\n\nFive"),
    ("- add\n  - so 5\n", "- Five"),
]
SPOKEN_OF = [
    "The tag </think> ends it.",
    "It ends with `</think>`.",
    'Write "</think>" there.',
    "Write “</think>” there.",
    "Close it (</think>) at last.",
    "Models write </think>, then answer.",
    "It ends with </think>.",
    "Use <think> first and </think> last.",
    "Wait.<think>Now.</think>Done.",
    "Like this:\n<think>\nthoughts\n</think>\nanswer",
    "- </think> closes it\n- so what",
    "- The end: </think>\n- So what",
    "What stands behind </think>\nis the answer.",
    "It ends with </think>",
    "1. </think> Closes it",
    "| tag | </think> |",
    "```\nso 5.</think>\nIt is 5.\n```",
    "~~~text\n</think>\n~~~\nThat is it.",
    "The **</think>** tag.",
    "用标签</think>来结束。",
    "</think> is what ends it.",
    "It looks so: <think>\nthoughts\n</think>\nanswer",
    "The tag—</think>—ends it.",
    "最后的标签是：</think>",
    "แท็ก</think>ใช้ปิดการคิด",
    r"Escape it: a\</think> b.",
    "Press <kbd></think></kbd> now.",
    "So:\n\n    </think>\n    answer",
    "1. So:\n\n     ```xml\n     </think>\n     ```\n\n2. Then",
    "- ```xml\n  </think>\n  ```\n- Then",
    "Tag | Meaning\n--- | ---\n</think> | ends it\nModel | </think>\nOther | none",
]


@pytest.mark.parametrize(("thought", "answer"), MEANT)
def test_a_closing_mark_alone_is_told_from_one_that_is_spoken_of(thought: str, answer: str) -> None:
    for marks in (("<think>", "</think>"), ("[THINK]", "[/THINK]")):
        reader = TextReader(*marks, following=[("<think>", "</think>")])
        said = (thought + "</think>" + answer).replace("</think>", marks[1]).replace("<think>", marks[0])
        pieces = [*reader.feed(said), *reader.finish()]
        thought = thought.replace("</think>", marks[1]).replace("<think>", marks[0])
        wanted = thought.strip("\r\n"), answer.lstrip("\r\n")
        assert joined(pieces) == wanted


@pytest.mark.parametrize("said", SPOKEN_OF)
def test_a_mark_that_is_only_spoken_of_is_text(said: str) -> None:
    for marks in (("<think>", "</think>"), ("[THINK]", "[/THINK]")):
        text = said.replace("<think>", marks[0]).replace("</think>", marks[1])
        for parts in ([text], list(text)):
            reader = TextReader(*marks)
            pieces = [piece for part in parts for piece in reader.feed(part)] + reader.finish()
            assert joined(pieces) == ("", text)
