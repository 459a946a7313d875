"""Drafts are what followed before, never a control token, and become rare where they fail."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import cycle, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magistral_ui.engines.local.drafting import (
    ALLOWED_FAILURES,
    BORDER,
    MAX_CANDIDATES,
    MAX_DRAFT,
    MAX_MATCH,
    MAX_PAUSE,
    MIN_DRAFT,
    MIN_MATCH,
    RECENT_TEXTS,
    RECENT_TOKENS,
    DraftLength,
    NgramIndex,
    PromptLookup,
    recent,
)

FIRST_TEXT_TOKEN = 10
texts = st.lists(st.integers(0, 14), max_size=60)


@dataclass
class Written:
    """As much of a sequence as a drafter may know."""

    tokens: list[int] = field(default_factory=list)


def index_of(pieces: Iterable[list[int]]) -> NgramIndex:
    index = NgramIndex()
    for piece in pieces:
        index.extend(piece)
    return index


def continued(text: list[int], count: int) -> list[int]:
    """The same as `NgramIndex.continuation`, by looking everywhere."""

    def matched(end: int) -> int:
        return max(n for n in range(MIN_MATCH, MAX_MATCH + 1) if text[max(0, end - n) : end] == text[-n:])

    ends = [end for end in range(MIN_MATCH, len(text)) if text[end - MIN_MATCH : end] == text[-MIN_MATCH:]]
    if not ends:
        return []
    end = max(ends[-MAX_CANDIDATES:], key=lambda end: (matched(end), end))
    return list(islice(cycle(text[end:]), count))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ([], []),
        ([11], []),
        ([11, 12], []),
        ([11, 12, 13, 14, 20, 11, 12, 13], [14, 20, 11, 12]),
        ([11, 12, 20, 13, 12], []),  # one token is too little
        ([1, 11, 12, 30, 2, 11, 12, 40, 3, 11, 12], [40, 3, 11, 12]),  # the latest
        ([1, 11, 12, 30, 2, 11, 12, 40, 1, 11, 12], [30, 2, 11, 12]),  # but the longest comes first
        ([11, 12, 11, 12, 11, 12], [11, 12, 11, 12]),  # a repetition goes on
        ([11, 11, 11, 11], [11, 11, 11, 11]),
    ],
)
def test_what_followed_before_is_drafted(text: list[int], expected: list[int]) -> None:
    assert index_of([text]).continuation(4) == expected == continued(text, 4)


@given(texts, st.integers(1, 9), st.data())
def test_any_pieces_give_what_looking_everywhere_gives(text: list[int], count: int, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    index = index_of(text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True))
    assert len(index) == len(text)
    assert index.continuation(count) == continued(text, count)


@given(texts, st.lists(texts, max_size=2), st.lists(st.integers(1, 7), min_size=1, max_size=30), st.data())
def test_no_control_token_is_drafted_and_never_too_many(
    prompt: list[int], remembered: list[list[int]], mosts: list[int], data: st.DataObject
) -> None:
    drafter, sequence = PromptLookup(FIRST_TEXT_TOKEN, lambda: remembered), Written(prompt)
    for most in mosts:
        draft = drafter.propose(sequence, most)
        assert len(draft) <= most
        assert all(token >= FIRST_TEXT_TOKEN for token in draft)
        accepted = data.draw(st.integers(0, len(draft)))
        if draft:
            drafter.judged(len(draft), accepted)
        sequence.tokens += [*draft[:accepted], data.draw(st.integers(0, 14))]


def test_a_text_that_repeats_itself_is_drafted_ever_further() -> None:
    drafter, sequence, lengths = PromptLookup(FIRST_TEXT_TOKEN), Written([*range(20, 60), 20, 21, 22]), []
    while len(sequence.tokens) < 80:
        draft = drafter.propose(sequence, MAX_DRAFT)
        drafter.judged(len(draft), len(draft))
        assert draft == [20 + (n % 40) for n in range(len(sequence.tokens), len(sequence.tokens) + len(draft))]
        sequence.tokens += [*draft, 20 + (len(sequence.tokens) + len(draft)) % 40]
        lengths.append(len(draft))
    assert lengths == [MIN_DRAFT, *[MAX_DRAFT] * (len(lengths) - 1)]


def test_remembered_texts_are_read_when_decoding_begins_and_the_sequence_comes_first() -> None:
    asked: list[int] = []

    def remembered() -> list[list[int]]:
        asked.append(1)
        return [[11, 12, 13, 14, 15], [21, 22, 23, 24, 25]]

    drafter = PromptLookup(FIRST_TEXT_TOKEN, remembered)
    assert not asked
    sequence = Written([30, 21, 22, 23])
    assert drafter.propose(sequence, 2) == [24, 25]
    sequence.tokens += [11, 12, 13]
    assert drafter.propose(sequence, 9) == [14, 15]  # no further than to the end of that text
    sequence.tokens += [99, 11, 12, 13]
    assert drafter.propose(sequence, 1) == [99]
    assert asked == [1]
    assert BORDER < FIRST_TEXT_TOKEN


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], []),
        ([[1, 2, 3], [4]], [[1, 2, 3], [4]]),
        ([[1, 2, 3], [1, 2], [4], [4, 5], [4], [6], [6]], [[1, 2, 3], [4, 5], [6]]),
        ([[n] for n in range(RECENT_TEXTS + 3)], [[n] for n in range(3, RECENT_TEXTS + 3)]),
        ([[1], [2] * RECENT_TOKENS, [3]], [[2] * (RECENT_TOKENS - 1), [3]]),
    ],
)
def test_the_latest_texts_are_remembered(texts: list[list[int]], expected: list[list[int]]) -> None:
    assert recent(texts) == expected


FAILED = [(3, 0)] * ALLOWED_FAILURES


@pytest.mark.parametrize(
    ("judged", "lengths"),
    [
        ([], [3, 3]),
        ([(3, 3)], [7, 7]),
        ([(1, 1)], [7, 7]),  # there was no room for more
        ([(3, 3), (7, 5)], [6, 6]),
        ([(3, 3), (7, 1)], [3, 3]),
        ([(3, 3), (7, 0)], [3, 3]),
        (FAILED, [3, 3]),
        ([*FAILED, (3, 0)], [0, 3, 3]),
        ([*FAILED, (3, 0), (3, 0)], [0, 0, 3, 3]),
        ([*FAILED, (3, 0), (3, 0), (3, 0)], [0, 0, 0, 0, 3]),
        ([*FAILED, (3, 0), (3, 0), (3, 1), *FAILED], [3, 3]),  # one that held, in part, and all is forgotten
    ],
)
def test_the_length_follows_what_held(judged: list[tuple[int, int]], lengths: list[int]) -> None:
    length = DraftLength()
    for proposed, accepted in judged:
        while not length.next(9):
            pass
        length.judged(proposed, accepted)
    assert [length.next(9) for _ in lengths] == lengths


def test_drafts_that_fail_become_rare() -> None:
    length, drafts = DraftLength(), 0
    for _ in range(6_400):
        if length.next(7):
            drafts += 1
            length.judged(1, 0)
    assert drafts <= 6_400 // MAX_PAUSE + 12


def test_a_pause_ends_when_its_guess_comes_true() -> None:
    quoted = list(range(100, 160))
    drafter, sequence = PromptLookup(FIRST_TEXT_TOKEN), Written([*quoted, 50])
    for _ in range(ALLOWED_FAILURES + 6):
        drafter._length.judged(1, 0)  # so that it would leave out 32 drafts
    waited = 0
    for token in quoted:
        sequence.tokens.append(token)
        if draft := drafter.propose(sequence, 7):
            break
        waited += 1
    assert waited == MIN_MATCH  # those that a match takes, and the one that is guessed
    assert draft[0] == quoted[waited + 1]


def test_random_text_is_hardly_drafted() -> None:
    """A small vocabulary, so that any two tokens have stood before, and promise nothing: one guess in sixteen comes true."""
    rng = random.Random(1)
    drafter, sequence, drafts = PromptLookup(FIRST_TEXT_TOKEN), Written(), 0
    for _ in range(4_000):
        sequence.tokens.append(rng.randrange(10, 26))
        draft = drafter.propose(sequence, 7)
        if draft:
            drafts += 1
            upcoming = rng.randrange(10, 26)
            drafter.judged(len(draft), int(draft[0] == upcoming))
    assert 0 < drafts < 4_000 * 0.1
