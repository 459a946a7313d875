"""Streams of many servers and versions, read whole and cut anywhere: the right reasoning, the right answer, nothing twice."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magistral_ui.chat.events import Answer, Reasoning
from magistral_ui.chat.reasoning import ReasoningPiece
from magistral_ui.engines.remote.chunks import Chunk, read_chunk
from magistral_ui.engines.remote.reasoning_stream import EchoFilter, ReplyReader, merge_adjacent
from magistral_ui.engines.remote.sse import DONE, PayloadReader, StreamBroken
from magistral_ui.models.cards import TEXT_MARKS, TOKEN_MARKS
from tests.chat.joined import joined

STREAMS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "streams.json").read_text(encoding="utf-8"))
MARKS = (TOKEN_MARKS, TEXT_MARKS)


def wire(stream: dict[str, Any], ending: bytes = b"\n\n") -> bytes:
    payloads = [json.dumps(chunk).encode() for chunk in stream["chunks"]]
    if stream["done"]:
        payloads.append(DONE)
    return b"".join(b"data: " + payload + ending for payload in payloads)


def read(pieces_of_wire: Sequence[bytes], **options: Any) -> tuple[list[ReasoningPiece], str | None, ReplyReader]:
    payloads, reader, said = PayloadReader(), ReplyReader(MARKS, **options), []
    finish, usage = None, Chunk()
    lines = [payload for data in pieces_of_wire for payload in payloads.feed(data)] + payloads.finish()
    for line in lines:
        if line == DONE:
            break
        chunk = read_chunk(line)
        said += reader.feed(chunk)
        finish = chunk.finish_reason or finish
        usage = chunk if chunk.completion_tokens is not None else usage
    return [*said, *reader.finish(), *reader.reconcile_usage(usage)], finish, reader


@pytest.mark.parametrize("one_token", [True, False])
@pytest.mark.parametrize("stream", STREAMS, ids=lambda each: each["name"])
def test_each_stream_gives_its_reasoning_and_its_answer(stream: dict[str, Any], one_token: bool) -> None:
    said, finish, _ = read([wire(stream)], one_token_a_chunk=one_token)
    assert joined(said) == (stream["reasoning"], stream["answer"])
    assert finish == stream["finish"]
    if "tokens" in stream:
        assert sum(piece.tokens for piece in said) == stream["tokens"]


@given(st.data())
def test_it_does_not_matter_where_the_network_cuts(data: st.DataObject) -> None:
    stream = data.draw(st.sampled_from(STREAMS))
    whole = wire(stream, data.draw(st.sampled_from([b"\n\n", b"\r\n\r\n", b"\n: ping\n\n"])))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=30)))
    cut = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    said, finish, _ = read(cut)
    assert joined(said) == (stream["reasoning"], stream["answer"])
    assert finish == stream["finish"]


@given(st.text(max_size=40), st.text(max_size=40), st.sampled_from(MARKS), st.data())
def test_marks_in_the_text_may_be_cut_anywhere(
    thought: str, answer: str, marks: tuple[str, str], data: st.DataObject
) -> None:
    whole = f"{marks[0]}{thought}{marks[1]}{answer}"
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=12)))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    def said(texts: Sequence[str]) -> tuple[str, str]:
        reader = ReplyReader(MARKS)
        pieces = [p for text in texts for p in reader.feed(Chunk((("text", text),)))]
        return joined([*pieces, *reader.finish()])

    assert said(parts) == said([whole])
    if not set(marks[1]) & set(thought) and thought.strip("\r\n"):
        assert said([whole]) == (thought.strip("\r\n"), answer.lstrip("\r\n"))


@given(st.text(min_size=1, max_size=20), st.text(max_size=20), st.data())
def test_an_echo_is_dropped_however_it_is_cut(prefix: str, rest: str, data: st.DataObject) -> None:
    whole = prefix + rest
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=6)))
    echo = EchoFilter(prefix)
    got = [echo.feed(whole[a:b]) for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert "".join(got) + echo.finish() == rest


def test_what_is_no_echo_is_kept() -> None:
    for said in ("other words", "pre", ""):
        echo = EchoFilter("prefix")
        assert echo.feed(said) + echo.finish() == said


def test_a_part_of_an_echo_is_no_part_of_a_reply_that_is_left() -> None:
    reader = ReplyReader(MARKS, channel="answer", echo=("", "It is a long"))
    assert reader.feed(Chunk((("text", "It is"),))) == []
    assert reader.leave() == []


def test_an_echo_of_reasoning_and_answer_is_dropped_from_lists_and_strings() -> None:
    reader = ReplyReader(MARKS, channel="answer", echo=("Two and two.", "It is"))
    chunks = [
        Chunk((("thinking", "Two and two."),)),
        Chunk((("text", "It"),)),
        Chunk((("text", " is 4."),)),
    ]
    pieces = [piece for chunk in chunks for piece in reader.feed(chunk)]
    assert joined([*pieces, *reader.finish()]) == ("", " 4.")


def test_open_reasoning_continues_as_text_until_its_mark() -> None:
    reader = ReplyReader(MARKS, channel="reasoning", one_token_a_chunk=True)
    pieces = [piece for text in ("So ", "4.[/TH", "INK]Four.") for piece in reader.feed(Chunk((("text", text),)))]
    assert joined([*pieces, *reader.finish()]) == ("So 4.", "Four.")
    assert reader.answer


def test_white_space_before_reasoning_in_a_field_is_no_answer() -> None:
    reader = ReplyReader(MARKS)
    parts: list[Any] = [("text", "\n"), ("reasoning", "Hm."), ("text", "Yes.")]
    pieces = [piece for part in parts for piece in reader.feed(Chunk((part,)))]
    assert joined([*pieces, *reader.finish()]) == ("Hm.", "Yes.")


def test_a_chunk_of_several_tokens_is_reckoned_by_its_length_until_the_usage_comes() -> None:
    reader = ReplyReader(MARKS)
    (piece,) = reader.feed(Chunk((("text", "a dozen chars"),)))
    assert piece.tokens == 4
    assert reader.reconcile_usage(Chunk(completion_tokens=10)) == [Answer("", 6)]
    assert reader.reconcile_usage(Chunk(completion_tokens=3)) == []


def test_neighbours_become_one_event() -> None:
    pieces = [Reasoning("a"), Reasoning("b", 2), Answer("", 0), Answer("c"), Reasoning("d")]
    assert merge_adjacent(pieces) == [Reasoning("ab", 3), Answer("c", 1), Reasoning("d")]


@pytest.mark.parametrize(
    ("payload", "key", "detail"),
    [
        (b'{"error": {"message": "no slot", "code": 500, "type": "server_error"}}', "remote_error", "no slot"),
        (b'{"error": "CUDA out of memory"}', "remote_error", "CUDA out of memory"),
        (
            b'{"error": {"message": {"detail": [{"loc": ["body", "x"], "msg": "extra"}]}}}',
            "remote_error",
            "body.x: extra",
        ),
        (b'{"object": "error", "message": "too long", "code": 400}', "remote_error", "too long"),
        (b'{"detail": [{"msg": "bad"}, {"msg": "worse"}]}', "remote_error", "bad; worse"),
        (b'{"error": {}}', "remote_error", "?"),
        (b'{"error": {"code": "overloaded"}}', "remote_error", "overloaded"),
        (b'{"errors": {"top_k": ["bad"]}}', "remote_error", "top_k: bad"),
        (b'{"status": 500, "error": "Internal Server Error", "message": "no slot"}', "remote_error", "no slot"),
        (b'{"success": false, "message": "bad"}', "remote_error", "bad"),
        (b"{", "remote_malformed", None),
        (b"[]", "remote_malformed", None),
        (b'{"choices": 3}', "remote_malformed", None),
        (b"\xff\xfe", "remote_malformed", None),
    ],
)
def test_what_is_no_chunk_is_said_so(payload: bytes, key: str, detail: str | None) -> None:
    with pytest.raises(StreamBroken) as broken:
        read_chunk(payload)
    assert broken.value.message.key == key
    assert broken.value.message.values.get("detail") == detail


@pytest.mark.parametrize(
    "payload",
    [
        b'{"choices": [], "usage": null}',
        b'{"choices": [{"delta": null}]}',
        b'{"choices": [null]}',
        b'{"choices": [{"index": 1, "delta": {"content": "another candidate"}}]}',
        b'{"choices": [{"delta": {"content": [{"type": "reference", "reference_ids": [1]}, 7, null]}}]}',
        b'{"choices": [{"delta": {"content": 5, "reasoning": {"a": 1}}}], "usage": {"completion_tokens": -1}}',
        b'{"object": "chat.completion.chunk"}',
        b'{"a": 1}',
        b"null",
        b'"ping"',
    ],
)
def test_what_says_nothing_is_passed_over(payload: bytes) -> None:
    assert read_chunk(payload) == Chunk()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(
                    ["choices", "delta", "content", "error", "index", "usage", "thinking", "type", "message", "detail"]
                ),
                x,
            )
        ),
    )
)
def test_no_json_makes_the_reader_fail_otherwise(value: Any) -> None:
    try:
        chunk = read_chunk(json.dumps(value).encode())
    except StreamBroken:
        return
    ReplyReader(MARKS).feed(chunk)
