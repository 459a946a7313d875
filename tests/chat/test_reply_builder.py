"""Events folded one by one say the same as the whole list, and what a reply says of its end is true."""

import pytest

from magistral_ui.chat.events import (
    Answer,
    Event,
    Failed,
    Finished,
    Notice,
    Prefilling,
    Queued,
    Reasoning,
    Reclassified,
    Usage,
    as_reasoning,
)
from magistral_ui.chat.reply import Reply, ReplyBuilder
from magistral_ui.chat.sampling import SamplingParams


def draft(*events: Event) -> ReplyBuilder:
    folded = ReplyBuilder()
    for event in events:
        folded.feed(event)
    return folded


def test_a_whole_reply() -> None:
    usage = Usage(prompt_tokens=9, reasoning_tokens=3, answer_tokens=1)
    params = SamplingParams(seed=4)
    reply = draft(
        Queued(2),
        Prefilling(5, 9),
        Reasoning("a", 2),
        Reasoning("b"),
        Notice("answered_now"),
        Answer("c"),
        Finished("stop", usage),
    ).reply(params, "demo")
    assert reply == Reply("ab", "c", True, "stop", None, {}, ("answered_now",), usage, params, "demo")


@pytest.mark.parametrize("read", [0, 1, 2, 3])
def test_an_answer_that_was_reasoning_folds_alike_whenever_it_was_read(read: int) -> None:
    events: list[Event] = [Answer("\nso ", 2), Answer("5"), Answer("!\n")]
    later = [*as_reasoning(events)]
    folded = draft(*events[:read], *(later[read:] if read == 0 else events[read:]), Reclassified(), Answer("5", 4))
    reply = folded.reply()
    assert (reply.reasoning, reply.answer, reply.reasoning_closed) == ("so 5!\n", "5", True)
    assert folded.answering
    closed = draft(*later, Reclassified())
    assert (closed.closed, closed.answering) == (True, False)


def test_waiting_and_reading_end_where_writing_begins() -> None:
    assert draft(Queued(3)).queue_position == 3
    reading = draft(Queued(1), Prefilling(2, 8))
    assert reading.queue_position is None
    assert reading.prefilling == Prefilling(2, 8)
    for event in (Reasoning(""), Answer(""), Finished("stop"), Failed("out_of_memory")):
        assert draft(Queued(1), Prefilling(2, 8), event).prefilling is None


def test_texts_that_were_taken_come_once_and_are_remembered() -> None:
    folded = draft(Reasoning("a"), Reasoning("b"))
    assert folded.take_texts() == ("ab", "")
    folded.feed(Answer(""))
    assert folded.closed, "there was reasoning, though its text was taken"
    folded.feed(Answer("c"))
    assert folded.take_texts() == ("", "c")
    assert folded.take_texts() == ("", "")


@pytest.mark.parametrize(("text", "begun"), [("", False), (" \n", False), (" a", True)])
def test_the_answer_begins_with_something_to_read(text: str, begun: bool) -> None:
    assert draft(Reasoning("a"), Answer(text)).answering is begun


def test_a_reply_that_ends_in_the_reasoning_says_so() -> None:
    cut = draft(Reasoning("a"), Finished("length")).reply()
    assert (cut.reasoning_closed, cut.finish_reason) == (False, "length")
    assert draft(Finished("stop")).reply().reasoning_closed


def test_a_failure_keeps_its_key_its_values_and_what_was_written() -> None:
    reply = draft(Reasoning("a"), Failed("prompt_too_long", {"limit": 5})).reply()
    assert (reply.failure, reply.failure_values, reply.finish_reason) == ("prompt_too_long", {"limit": 5}, None)
    assert reply.reasoning == "a"


def test_a_continued_reply_begins_with_what_was_there() -> None:
    before = Reply("because", "It is 4")
    assert draft(Answer("2"), Finished("stop")).reply(before=before).answer == "It is 42"
    assert (
        draft(Reasoning(" so"), Answer("!"), Finished("stop")).reply(before=Reply("because")).reasoning == "because so"
    )


@pytest.mark.parametrize(
    "usage",
    [
        Usage(),
        Usage(answer_tokens=1, total_seconds=1),
        Usage(answer_tokens=3, first_token_seconds=1, total_seconds=1),
        Usage(answer_tokens=58, first_token_seconds=1, total_seconds=1.0005),
        Usage(answer_tokens=5_000, first_token_seconds=1, total_seconds=1.1),
    ],
)
def test_no_speed_is_made_up(usage: Usage) -> None:
    assert usage.tokens_per_second == 0.0


def test_speed_leaves_out_the_first_token() -> None:
    usage = Usage(reasoning_tokens=6, answer_tokens=5, first_token_seconds=2.0, total_seconds=4.0)
    assert usage.tokens_per_second == 5.0
