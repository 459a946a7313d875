"""Our sampler cuts and weighs candidates as transformers' own processors do, draws by seed, and all rows of a step at once."""

import collections
import itertools
import math
import random
from collections.abc import Callable, Iterator

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.local.sampler import sample_batch
from magistral_ui.engines.local.sampling_state import Draw, SamplingState
from tests.engines.local.dispatch_count import DispatchCount
from tests.engines.local.fake_devices import Claims, claim
from tests.engines.local.one_row_sampler import candidates, sample, sample_one


def expected(params: SamplingParams, logits: torch.Tensor) -> torch.Tensor:
    steps = LogitsProcessorList([TemperatureLogitsWarper(params.temperature)])
    if params.top_k:
        steps.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        steps.append(TopPLogitsWarper(params.top_p))
    if params.min_p:
        steps.append(MinPLogitsWarper(params.min_p))
    return torch.softmax(steps(torch.tensor([[0]]), logits[None])[0], -1)


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k", "min_p", "sharp"),
    list(itertools.product([0.3, 1.0, 1.7], [0.5, 0.95, 1.0], [0, 1, 40], [0.0, 0.1], [0.02, 3.0])),
)
def test_candidates_equal_transformers(
    temperature: float, top_p: float, top_k: int, min_p: float, sharp: float
) -> None:
    params = SamplingParams(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, seed=0)
    logits = torch.randn(5000, generator=torch.Generator().manual_seed(5)) * sharp
    ids, weights = candidates(logits, params)
    ours = torch.zeros(5000).index_put_((ids,), weights / weights.sum())
    reference = expected(params, logits)
    differing = (ours > 0) != (reference > 0)
    assert int(differing.sum()) <= 1  # the token on the edge of top_p may fall on either side of rounding
    assert torch.allclose(ours, reference, atol=3e-4)


def test_repetition_penalty_equals_transformers() -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(1))
    params = SamplingParams(temperature=0, repetition_penalty=1.8, seed=0)
    for prompt in ([3, 4, 5, 3], list(range(30)), [int(logits.argmax())]):
        penalised = RepetitionPenaltyLogitsProcessor(1.8)(torch.tensor([prompt]), logits[None])[0]
        assert sample_one(logits, SamplingState(params, set(prompt))) == int(penalised.argmax())


def test_what_was_written_is_penalised_too() -> None:
    logits = torch.tensor([1.0, 0.9, -1.0])
    state = SamplingState(SamplingParams(temperature=0, repetition_penalty=2.0, seed=0))
    assert sample_one(logits, state) == 0
    state.took(0)
    assert sample_one(logits, state) == 1


def drawn(state: SamplingState, logits: torch.Tensor, count: int) -> list[int]:
    tokens = []
    for _ in range(count):
        tokens.append(sample_one(logits, state))
        state.took(tokens[-1])
    return tokens


def test_draws_follow_the_weights() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    state = SamplingState(SamplingParams(temperature=1.0, top_p=1.0, seed=42))
    counts = collections.Counter(drawn(state, probabilities.log(), 4000))
    for token, probability in enumerate(probabilities.tolist()):
        assert abs(counts[token] / 4000 - probability) < 0.03


def test_a_seed_gives_the_same_draws() -> None:
    logits = torch.zeros(100)
    draws = [drawn(SamplingState(SamplingParams(seed=n)), logits, 20) for n in (7, 7, 8)]
    assert draws[0] == draws[1] != draws[2]
    assert drawn(SamplingState(SamplingParams(seed=7), position=5), logits, 15) == draws[0][5:]


def test_banned_ids_are_never_drawn() -> None:
    logits = torch.tensor([9.0, 1.0, 0.0])
    assert sample_one(logits, SamplingState(SamplingParams(temperature=0, seed=0)), banned=(0,)) == 1
    states = [SamplingState(SamplingParams(temperature=1.0, seed=n)) for n in range(200)]
    assert 0 not in {sample_one(logits, state, banned=(0,)) for state in states}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_an_extreme_distribution_is_harmless(dtype: torch.dtype) -> None:
    logits = torch.full((2000,), -1e4, dtype=dtype)
    logits[77] = 1e4
    for temperature in (0.0, 1e-300, 0.01, 2.0):
        assert sample_one(logits, SamplingState(SamplingParams(temperature=temperature, seed=3))) == 77


SETTINGS: list[dict[str, float]] = [
    {"temperature": 0.0},
    {"temperature": 0.7, "top_p": 0.95},
    {"temperature": 1.3, "top_p": 0.5, "min_p": 0.05},
    {"temperature": 1.0, "top_p": 1.0},
    {"temperature": 1.0, "top_p": 1.0, "min_p": 0.02},
    {"temperature": 0.7, "top_p": 1.0, "top_k": 40},
    {"temperature": 0.7, "top_p": 0.9, "top_k": 7, "min_p": 0.1},
    {"temperature": 2.0, "top_p": 0.999},  # flat: the first candidates do not suffice
]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def company(rng: random.Random, rows: int, vocabulary: int) -> tuple[torch.Tensor, list[Draw], list[int]]:
    """Logits of rows of all kinds, their draws, and the tokens that one row at a time gives."""
    generator = torch.Generator().manual_seed(rng.randrange(2**32))
    sharp = torch.tensor([rng.choice([0.02, 1.0, 3.0, 10.0]) for _ in range(rows)])
    logits = (torch.randn(rows, vocabulary, generator=generator) * sharp[:, None]).to(rng.choice(DTYPES))
    draws, expected = [], []
    for row in logits:
        penalty = rng.choice([1.0, 1.0, 0.7, 1.2])
        params = SamplingParams(repetition_penalty=penalty, seed=rng.randrange(2**40)).changed(rng.choice(SETTINGS))
        seen = set(rng.sample(range(vocabulary), rng.choice([0, 1, 50]))) if penalty != 1 else set()
        state = SamplingState(params, seen, rng.randrange(1000))
        banned = tuple(rng.sample(range(vocabulary), rng.choice([0, 3])))
        draws.append(state.draw(banned))
        expected.append(sample(row, state, banned))
    return logits, draws, expected


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("seed", range(12))
def test_a_row_gets_its_token_in_any_company(seed: int, threads: Callable[[int], None]) -> None:
    """Alone, among others and on any number of threads: what one row at a time gave on one thread, to the last bit."""
    rng = random.Random(seed)
    threads(1)
    logits, draws, expected = company(rng, rng.choice([3, 8, 16]), rng.choice([500, 1500, 5003, 40_960]))
    for count in (1, 2, 3):
        threads(count)
        assert sample_batch(logits, draws) == expected
        some = rng.sample(range(len(draws)), 3)
        assert sample_batch(logits, [draws[n] for n in some], some) == [expected[n] for n in some]
        for n in some:
            assert sample_batch(logits, [draws[n]], [n]) == [expected[n]]
            assert sample_batch(logits[n : n + 1].clone(), [draws[n]]) == [expected[n]]


@pytest.mark.parametrize("rows", [1, 3, 8, 16])
def test_the_host_waits_once_for_a_step(rows: int) -> None:
    logits, draws, expected = company(random.Random(rows), rows, 2000)
    with Claims(), DispatchCount() as count:
        claim(logits, torch.device("cuda"))
        first = sample_batch(logits, draws)
        assert count.syncs == 1 + any(draw.flatness.flat for draw in draws)
        before = count.syncs
        assert sample_batch(logits, draws) == first == expected
        assert count.syncs == before + 1
    assert rows != 16 or any(draw.flatness.flat for draw in draws)


def test_equal_rows_cost_one_row_of_calls() -> None:
    def calls(rows: int, **params: float) -> int:
        states = [SamplingState(SamplingParams(seed=n).changed(params)) for n in range(rows)]
        with Claims(), DispatchCount() as count:
            logits = claim(torch.randn(rows, 1500) * 9, torch.device("cuda"))
            before = count.calls
            sample_batch(logits, [state.draw((1,)) for state in states])
            return count.calls - before

    for setting in SETTINGS[:-1]:
        assert calls(16, **setting) <= calls(1, **setting) + 2


def test_a_distribution_that_is_flat_no_more_is_noticed() -> None:
    state = SamplingState(SamplingParams(temperature=1.0, seed=4))
    flat, sharp = torch.zeros(1, 3000), torch.randn(1, 3000) * 9
    expected = [sample(each[0], state) for each in (flat, sharp)]
    waits = []
    with Claims():
        for logits, token in zip((flat, flat, sharp, sharp), [*expected[:1] * 2, *expected[1:] * 2], strict=True):
            with DispatchCount() as count:
                assert sample_batch(claim(logits, torch.device("cuda")), [state.draw()]) == [token]
            waits.append((count.syncs, state.draw().flatness.flat))
    assert waits == [(2, True), (1, True), (1, False), (1, False)]


def test_drafted_tokens_count_as_seen() -> None:
    logits = torch.tensor([[1.0, 0.9, 0.8], [1.0, 0.9, 0.8]])
    state = SamplingState(SamplingParams(temperature=0, repetition_penalty=2.0, seed=0), {0})
    assert sample_batch(logits, [state.draw(), state.draw(after=[1])]) == [1, 2]
    assert state.draw(after=[1]).position == 1
    assert state.draw() == state.draw(after=[])


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_distribution_is_refused(value: float, rows: int) -> None:
    logits = torch.randn(rows, 2000)
    logits[0, 7] = value
    for params in ({}, {"top_p": 1.0}, {"top_k": 5}):
        draws = [SamplingState(SamplingParams(seed=1).changed(params)).draw()] * rows
        with pytest.raises(ValueError, match="no distribution"):
            sample_batch(logits, draws)
        with Claims(), pytest.raises(ValueError, match="no distribution"):
            sample_batch(claim(logits.clone(), torch.device("cuda")), draws)


def test_a_ban_beyond_the_vocabulary_hits_no_other_row() -> None:
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    greedy = SamplingState(SamplingParams(temperature=0, seed=0))
    with pytest.raises(IndexError):
        sample_batch(logits, [greedy.draw(banned=(2,)), greedy.draw()])
