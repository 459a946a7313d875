"""The readers give the same however a stream is cut, show characters whole, and never take anything back."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magistral_ui.chat.events import Answer, Reasoning
from magistral_ui.chat.reasoning import Channel, Piece, TextReader, TextTokenReader, TokenIdReader, joined

BEGIN, END, PAD = 256, 257, 258  # a toy vocabulary: every byte is a token, and three control tokens follow


def bytes_of(token: int) -> bytes:
    return bytes([token]) if token < 256 else b""


def token_reader(channel: Channel = "before") -> TokenIdReader:
    return TokenIdReader(BEGIN, END, bytes_of, channel)


def spelled(text: str) -> list[int]:
    return list(text.encode())


def read(reader: TokenIdReader | TextTokenReader, tokens: list[int]) -> list[Piece]:
    return [*(piece for token in tokens for piece in reader.feed(token)), *reader.finish()]


WORDS = st.text(alphabet=st.sampled_from("ab \n<>/[]THINKthink€é😀👩‍💻ก"), max_size=12)


@given(WORDS, WORDS)
def test_reasoning_and_answer_are_told_apart_by_token(thought: str, answer: str) -> None:
    pieces = read(token_reader(), [BEGIN, *spelled(thought), END, *spelled(answer)])
    assert joined(pieces) == (thought, answer)
    assert all("\ufffd" not in piece.text for piece in pieces)
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
        assert sum(piece.tokens for piece in reader.feed(token)) == 1


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


@pytest.mark.parametrize(("channel", "split"), [("reasoning", ("a", "b")), ("answer", ("", "ab"))])
def test_a_resumed_reply_goes_on_where_it_was(channel: Channel, split: tuple[str, str]) -> None:
    assert joined(read(token_reader(channel), [*spelled("a"), END, *spelled("b")])) == split


@given(st.lists(st.integers(0, 258), max_size=40))
def test_any_tokens_decode_as_the_bytes_between_control_tokens(tokens: list[int]) -> None:
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
            return "", text
        text, channel = start.removeprefix("<think>").lstrip("\r\n"), "reasoning"
    if channel == "answer":
        return "", text
    reasoning, mark, answer = text.partition("</think>")
    return reasoning.rstrip("\r\n"), answer.lstrip("\r\n") if mark else ""


TEXT = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<", "</", "think", ">", "\n", "\r\n", " ", "a", "b", "€", "</thin", "<thi"]
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
    pieces: list[Piece] = []
    given_so_far = ("", "")
    wanted = reference(text, channel)
    parts = cut(text, lambda size: data.draw(st.integers(1, size)))
    for part in parts:
        pieces += reader.feed(part)
        now = joined(pieces)
        assert all(w.startswith(n) and n.startswith(g) for w, n, g in zip(wanted, now, given_so_far, strict=True))
        given_so_far = now
    pieces += reader.finish()
    assert joined(pieces) == wanted
    assert sum(piece.tokens for piece in pieces) == len(parts)


@given(TEXT)
def test_textual_marks_in_tokens_read_as_in_text(text: str) -> None:
    reader = TextTokenReader("<think>", "</think>", bytes_of)
    pieces = read(reader, spelled(text))
    assert joined(pieces) == reference(text)
    assert all("\ufffd" not in piece.text for piece in pieces)
    assert sum(piece.tokens for piece in pieces) == len(text.encode())


def test_the_tokens_of_textual_marks_count_as_reasoning() -> None:
    reader = TextReader("<think>", "</think>")
    pieces = [p for part in ("<", "think", ">", "hm", "</", "think>", "yes") for p in reader.feed(part)]
    assert [(type(p), p.text, p.tokens) for p in pieces] == [
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
    reader = TextTokenReader("<think>", "</think>", bytes_of)
    begun = "\n" + thought if not thought.startswith(("\r", "\n")) else "\na" + thought
    read_before = [piece for token in spelled("<think>" + begun) for piece in reader.feed(token)]
    assert all(isinstance(piece, Reasoning) for piece in read_before)
    reader.take_up()
    rest = more + ("\n</think>\nyes" if closes else "")
    pieces = [*(piece for token in spelled(rest) for piece in reader.feed(token)), *reader.finish(cut=not closes)]
    whole = begun.lstrip("\r\n") + joined(pieces)[0]
    said, _, _ = (begun + rest).partition("</think>")
    # Line breaks at the end of a beginning stay, since they were there; others before the mark belong to it.
    assert whole.rstrip("\r\n") == said.strip("\r\n")
