"""What a reply resumes from: how much of an earlier one it keeps, what that had cost, and that it is known later."""

from dataclasses import replace

import pytest

from magistral_ui.chat.events import Usage
from magistral_ui.chat.prompt import Resume, resume_of
from magistral_ui.chat.reply import (
    Provenance,
    Reply,
    as_read,
    may_continue,
    may_replay,
    reasoning_of,
    resumed_part,
    with_reasoning,
    with_usage_share,
)
from magistral_ui.chat.sampling import SamplingParams

USAGE = Usage(100, 50, 40, 20, first_token_seconds=1.0, reasoning_seconds=4.0, total_seconds=7.0)
REPLY = Reply("think hard", "so it is", usage=USAGE, provenance=Provenance("a model"), params=SamplingParams(seed=1))


def test_a_reply_continues_from_what_the_model_will_read_of_it() -> None:
    """mistral-common leaves out the spaces at the end of a reply that is nothing but text."""
    cut = Reply("", "it is  ", finish_reason="length")
    assert as_read(cut, textual_marks=False).answer == "it is"
    thought = Reply("so  ", "it is  ", finish_reason="length")
    assert as_read(thought, textual_marks=False) == thought
    assert as_read(thought, textual_marks=True).answer == "it is"
    open_thought = Reply("so  ", "", reasoning_closed=False, finish_reason="length")
    assert as_read(open_thought, textual_marks=False) == open_thought
    assert as_read(open_thought, textual_marks=True).reasoning == "so"
    assert not may_continue(Reply("", "  ", finish_reason="length"))


def test_the_reasoning_alone_costs_what_it_had_cost() -> None:
    beginning = reasoning_of(REPLY)
    assert resume_of(beginning) == Resume("think hard", closed=True)
    usage = beginning.usage
    assert (usage.reasoning_tokens, usage.answer_tokens, usage.reasoning_seconds) == (40, 0, 4.0)
    assert usage.total_seconds == 5.0
    assert beginning.provenance == REPLY.provenance


@pytest.mark.parametrize("closed", [True, False])
def test_reasoning_in_other_words_costs_in_proportion_and_says_that_it_was_edited(closed: bool) -> None:
    beginning = with_usage_share(with_reasoning(REPLY, "think", closed=closed), REPLY, 10)
    assert resume_of(beginning) == Resume("think", closed)
    assert (beginning.usage.reasoning_tokens, beginning.usage.reasoning_seconds) == (10, 1.0)
    assert beginning.provenance == Provenance("a model", edited=True)
    longer = with_usage_share(with_reasoning(REPLY, "think for ever", closed=closed), REPLY, 80)
    assert (longer.usage.reasoning_tokens, longer.usage.reasoning_seconds) == (80, 4.0)


def test_the_same_words_are_not_edited_but_stay_so_where_they_were() -> None:
    same = with_reasoning(REPLY, REPLY.reasoning, closed=True).provenance
    assert same is not None
    assert not same.edited
    again = with_reasoning(replace(REPLY, provenance=Provenance(edited=True)), REPLY.reasoning, closed=True).provenance
    assert again is not None
    assert again.edited


@pytest.mark.parametrize(
    ("provenance", "expected"),
    [
        (None, None),
        (Provenance(), None),
        (Provenance(begun_reasoning=5), Resume("think", closed=False)),
        (Provenance(begun_reasoning=10, begun_closed=True), Resume("think hard", closed=True)),
        (Provenance(begun_reasoning=10, begun_answer=2, begun_closed=True), Resume("think hard", True, "so")),
        (Provenance(begun_answer=2, begun_closed=True), Resume(None, True, "so")),
    ],
)
def test_a_reply_knows_what_it_went_on_from(provenance: Provenance | None, expected: Resume | None) -> None:
    assert resume_of(resumed_part(replace(REPLY, provenance=provenance))) == expected


def test_the_tokens_of_a_beginning_with_an_answer_are_shared_out() -> None:
    source = Provenance(begun_reasoning=10, begun_answer=2, begun_closed=True)
    beginning = resumed_part(replace(REPLY, provenance=source))
    assert beginning is not None
    usage = with_usage_share(beginning, REPLY, 50).usage
    assert (usage.reasoning_tokens, usage.answer_tokens) == (40, 10)
    assert usage.total_seconds == 1.0 + 4.0 + 1.0


@pytest.mark.parametrize(
    ("reply", "possible"),
    [
        (REPLY, True),
        (replace(REPLY, params=None), False),
        (replace(REPLY, params=SamplingParams()), False),
        (replace(REPLY, provenance=None), False),
    ],
)
def test_only_what_is_known_can_be_written_again(reply: Reply, possible: bool) -> None:
    assert may_replay(reply) == possible


@pytest.mark.parametrize(
    ("reply", "possible"),
    [
        (replace(REPLY, finish_reason="length"), True),
        (replace(REPLY, finish_reason="cancelled"), True),
        (replace(REPLY, failure="remote_cut"), True),
        (replace(REPLY, failure="remote_filtered"), False),
        (Reply(failure="remote_cut"), False),
        (REPLY, False),
    ],
)
def test_what_was_cut_can_go_on_but_not_what_a_server_forbids(reply: Reply, possible: bool) -> None:
    assert may_continue(reply) is possible
