"""When reasoning has to end, as a table, and what one request's stream was: whole, cut, or no reply at all."""

import pytest

from magistral_ui.engines.remote.attempt import Attempt, Phase, Progress, next_phase
from magistral_ui.engines.remote.chunks import Chunk, read_chunk
from magistral_ui.engines.remote.reasoning_stream import ReplyReader
from magistral_ui.engines.remote.sse import StreamBroken

REASONING, CLOSING, ANSWERING = Phase.REASONING, Phase.CLOSING, Phase.ANSWERING


@pytest.mark.parametrize(
    ("phase", "progress", "after", "notice"),
    [
        (REASONING, Progress(), REASONING, None),
        (REASONING, Progress(answer_wanted=True), CLOSING, "answered_now"),
        (REASONING, Progress(budget_spent=True), CLOSING, "budget_spent"),
        (REASONING, Progress(looping=True), CLOSING, "loop_broken"),
        # A person's wish comes before what the program decides, and the budget before the guard.
        (REASONING, Progress(answer_wanted=True, budget_spent=True, looping=True), CLOSING, "answered_now"),
        (REASONING, Progress(budget_spent=True, looping=True), CLOSING, "budget_spent"),
        # An answer that has begun is never taken for reasoning that has to end.
        (REASONING, Progress(answering=True), ANSWERING, None),
        (REASONING, Progress(answering=True, answer_wanted=True, budget_spent=True, looping=True), ANSWERING, None),
        # On a server that cannot go on with closed reasoning, nothing closes it.
        (REASONING, Progress(closable=False, answer_wanted=True, budget_spent=True, looping=True), REASONING, None),
        (REASONING, Progress(closable=False, answering=True), REASONING, None),
        # What is closed is closed once.
        (CLOSING, Progress(answer_wanted=True, budget_spent=True, looping=True), CLOSING, None),
        (CLOSING, Progress(answering=True), CLOSING, None),
        (ANSWERING, Progress(answer_wanted=True, budget_spent=True, looping=True), ANSWERING, None),
        (ANSWERING, Progress(), ANSWERING, None),
    ],
)
def test_the_phase_that_follows(phase: Phase, progress: Progress, after: Phase, notice: str | None) -> None:
    assert next_phase(phase, progress) == (after, notice)


TEXT = b'data: {"choices": [{"delta": {"content": "hi"}}]}\n\n'
STOP = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
CALL = b'data: {"choices": [{"delta": {"tool_calls": [{"id": "1"}]}, "finish_reason": "tool_calls"}]}\n\n'


def read(*received: bytes) -> tuple[Attempt, str]:
    """An attempt that has read all of it, and its answer."""
    attempt, pieces = Attempt(reader=ReplyReader([("[THINK]", "[/THINK]")])), []  # type: ignore[var-annotated]
    for data in received:
        for payload in attempt.payloads(data):
            attempt.take(read_chunk(payload), pieces)
    for payload in attempt.last_payloads():
        attempt.take(read_chunk(payload), pieces)
    pieces += attempt.rest()
    answer = "".join(piece.text for piece in pieces)
    attempt.end(answer)
    return attempt, answer


@pytest.mark.parametrize(
    ("received", "finish"), [((TEXT, STOP, DONE), "stop"), ((TEXT, STOP), "stop"), ((TEXT, DONE), "stop")]
)
def test_a_whole_reply(received: tuple[bytes, ...], finish: str) -> None:
    attempt, answer = read(*received)
    assert (attempt.finish, answer) == (finish, "hi")


def test_nothing_after_the_end_mark_is_read() -> None:
    attempt, answer = read(TEXT + STOP + DONE + TEXT)
    assert (attempt.done, answer) == (True, "hi")
    assert attempt.last_payloads() == []


@pytest.mark.parametrize(
    ("received", "key"),
    [
        ((TEXT,), "remote_cut"),
        ((), "remote_cut"),
        ((b"<html>\n",), "remote_malformed"),
        ((b'data: {"response": "hi"}\n\n', DONE), "remote_malformed"),
        ((b'data: {"response": "hi", "message": "no"}\n\n',), "remote_error"),
        ((CALL, DONE), "remote_called_tool"),
        ((TEXT, CALL, DONE), "remote_called_tool"),
    ],
)
def test_what_is_no_whole_reply_is_told(received: tuple[bytes, ...], key: str) -> None:
    with pytest.raises(StreamBroken) as broken:
        read(*received)
    assert broken.value.message.key == key


def test_the_words_of_a_chunk_that_ends_in_failure_are_kept() -> None:
    attempt, pieces = Attempt(reader=ReplyReader([("[THINK]", "[/THINK]")])), []  # type: ignore[var-annotated]
    with pytest.raises(StreamBroken):
        attempt.take(Chunk(parts=(("text", "hi"),), finish_reason="content_filter"), pieces)
    assert [piece.text for piece in pieces] == ["hi"]
