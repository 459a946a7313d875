"""A budget, answer-now and a loop all end in the same way: the marks are forced, and then an answer, never the end."""

import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magistral_ui.chat.reasoning import Channel
from magistral_ui.chat.reasoning_control import ControlTokens, LoopGuard, ReasoningControl, period, reasoning_limit

BEGIN, END, EOS, WORD = 34, 35, 2, 100
MARKS = ControlTokens((BEGIN,), (END,), EOS)
TEXTUAL = ControlTokens((60, 61), (70, 71, 72), EOS)


def step(control: ReasoningControl, channel: Channel, sampled: int = WORD, answer_now: bool = False) -> int:
    """One token, forced or sampled, told to the control as the engine tells it."""
    forced = control.forced(channel, answer_now)
    token = sampled if forced is None else forced
    channel = {BEGIN: "reasoning", END: "answer"}.get(token, channel)  # type: ignore[assignment]
    control.took(token, channel)
    return token


@pytest.mark.parametrize(
    ("max_tokens", "budget", "limit"),
    [
        (4096, None, None),
        (4096, 100, 100),
        (4096, 4096, 3072),
        (100, 100, 50),
        (1, 1, 1),
        (2, 5, 1),
        (131_072, 1, 1),
        (4096, 0, 0),
    ],
)
def test_a_budget_leaves_room_for_an_answer(max_tokens: int, budget: int | None, limit: int | None) -> None:
    assert reasoning_limit(max_tokens, budget) == limit


def test_without_a_reason_nothing_is_forced_or_banned() -> None:
    control = ReasoningControl(MARKS)
    channels: list[Channel] = ["before", "reasoning", "answer"]
    for channel in channels:
        assert control.forced(channel, answer_now=False) is None
        assert control.banned() == ()
        control.took(WORD, channel)
    assert control.notice is None


def test_a_spent_budget_closes_the_reasoning_once() -> None:
    control = ReasoningControl(MARKS, limit=3)
    control.took(BEGIN, "reasoning")
    written = [step(control, "reasoning") for _ in range(2)]
    assert written == [WORD, WORD]
    assert step(control, "reasoning") == END
    assert control.notice == "budget_spent"
    assert [step(control, "answer") for _ in range(5)] == [WORD] * 5


def test_the_answer_cannot_end_before_it_has_begun_nor_think_again() -> None:
    control = ReasoningControl(MARKS, limit=1)
    control.took(BEGIN, "reasoning")
    assert step(control, "reasoning") == END
    assert set(control.banned()) == {BEGIN, END, EOS}
    step(control, "answer")
    assert set(control.banned()) == {BEGIN, END}


def test_answer_now_closes_the_reasoning_with_the_next_token() -> None:
    control = ReasoningControl(MARKS)
    control.took(BEGIN, "reasoning")
    assert step(control, "reasoning", answer_now=True) == END
    assert control.notice == "answered_now"
    assert step(control, "answer", answer_now=True) == WORD


def test_answer_now_before_any_word_opens_and_closes() -> None:
    control = ReasoningControl(MARKS)
    assert step(control, "before", answer_now=True) == BEGIN
    assert step(control, "reasoning", answer_now=True) == END
    assert EOS in control.banned()


def test_answer_now_in_the_answer_changes_nothing() -> None:
    control = ReasoningControl(MARKS)
    assert step(control, "answer", answer_now=True) == WORD
    assert (control.notice, control.banned()) == (None, ())


def test_textual_marks_are_forced_whole() -> None:
    control = ReasoningControl(TEXTUAL)
    assert [step(control, "reasoning", answer_now=True) for _ in range(3)] == [70, 71, 72]
    assert control.banned() == (EOS,), "the letters of textual marks may be part of an answer"
    assert step(control, "answer") == WORD
    assert control.banned() == ()


def test_a_loop_is_broken_and_a_repetition_that_ends_is_not() -> None:
    guard = LoopGuard([(60, 4)], every=10)
    control = ReasoningControl(MARKS, guard=guard)
    for number in range(300):
        assert step(control, "reasoning", sampled=1000 + number) != END
    repeated = [step(control, "reasoning", sampled=1000 + number % 7) for number in range(100)]
    assert END in repeated[50:]
    assert control.notice == "loop_broken"

    sentence = [*range(15)] * 3  # said three times, then something else
    patient = LoopGuard([(60, 4)], every=1)
    for number in range(40):
        for token in [*sentence, 10_000 + number]:
            patient.feed(token)
            assert not patient.looping


@given(st.lists(st.integers(0, 2), max_size=40))
def test_the_period_is_the_smallest_that_holds(tokens: list[int]) -> None:
    found = period(tokens)
    holds = [p for p in range(1, len(tokens) + 1) if all(a == b for a, b in zip(tokens, tokens[p:], strict=False))]
    assert found == (holds[0] if holds else 0)


def test_looking_for_loops_is_cheap_on_any_text() -> None:
    draw = random.Random(1)
    guard = LoopGuard()
    for _ in range(5_000):
        guard.feed(draw.randrange(50))
    assert not guard.looping


@pytest.mark.parametrize("length", [1, 2, 50, 128, 300, 512])
def test_circles_of_any_length_are_seen(length: int) -> None:
    guard = LoopGuard()
    rounds = next(n for n in range(1, 5_000) if _fed(guard, range(length)).looping)
    assert rounds * length <= 1_536 + 64 + length


def _fed(guard: LoopGuard, tokens: Iterable[int]) -> LoopGuard:
    for token in tokens:
        guard.feed(token)
    return guard


@pytest.mark.parametrize("word", [WORD, BEGIN])
def test_without_reasoning_the_marks_are_banned_from_the_first_token(word: int) -> None:
    control = ReasoningControl(MARKS, limit=0)
    assert control.forced("before", answer_now=False) is None
    assert set(control.banned()) == {BEGIN, END, EOS}
    control.took(word, "answer")
    assert control.forced("answer", answer_now=False) is None
    assert set(control.banned()) == {BEGIN, END}
    assert control.notice is None


def test_without_reasoning_textual_marks_enclose_nothing() -> None:
    control = ReasoningControl(TEXTUAL, limit=0)
    written = [step(control, "before") for _ in range(5)]
    assert written == [*TEXTUAL.opening, *TEXTUAL.closing]
    assert control.banned() == (EOS,)
    assert [step(control, "answer") for _ in range(3)] == [WORD] * 3
    assert control.banned() == ()
    assert control.notice is None


@pytest.mark.parametrize("marks", [MARKS, TEXTUAL])
def test_without_reasoning_resumed_reasoning_is_closed(marks: ControlTokens) -> None:
    control = ReasoningControl(marks, limit=0)
    control.took(WORD, "reasoning")
    assert tuple(step(control, "reasoning") for _ in marks.closing) == marks.closing
    assert control.notice == "budget_spent"


def test_without_reasoning_a_resumed_answer_may_end_at_once() -> None:
    control = ReasoningControl(MARKS, limit=0)
    control.took(WORD, "answer")
    assert control.forced("answer", answer_now=False) is None
    assert set(control.banned()) == {BEGIN, END}


@given(
    st.sampled_from([MARKS, TEXTUAL]),
    st.sampled_from([None, 0, 1, 3]),
    st.sampled_from(["before", "reasoning", "answer"]),
    st.lists(st.tuples(st.sampled_from([WORD, BEGIN, END]), st.booleans()), min_size=2, max_size=12),
)
def test_only_a_token_changes_what_is_banned(
    tokens: ControlTokens, limit: int | None, channel: Channel, steps: list[tuple[int, bool]]
) -> None:
    """Or one that is forced. So what is banned for a token is known once the one before it is, as drafts need it."""
    control, first = ReasoningControl(tokens, limit), True
    for sampled, answer_now in steps:
        banned = control.banned()
        forced = control.forced(channel, answer_now)
        assert first or forced is not None or control.banned() == banned
        token = sampled if forced is None else forced
        channel = {BEGIN: "reasoning", END: "answer", 61: "reasoning", 72: "answer"}.get(token, channel)  # type: ignore[assignment]
        control.took(token, channel)
        first = False
