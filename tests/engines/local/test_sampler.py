"""Our sampler cuts and weighs candidates as transformers' own processors do, and draws by seed."""

import collections
import itertools

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
from magistral_ui.engines.local.sampler import candidates, sample
from magistral_ui.engines.local.sampling_state import SamplingState


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
        assert sample(logits, SamplingState(params, set(prompt))) == int(penalised.argmax())


def test_what_was_written_is_penalised_too() -> None:
    logits = torch.tensor([1.0, 0.9, -1.0])
    state = SamplingState(SamplingParams(temperature=0, repetition_penalty=2.0, seed=0))
    assert sample(logits, state) == 0
    state.took(0)
    assert sample(logits, state) == 1


def drawn(state: SamplingState, logits: torch.Tensor, count: int) -> list[int]:
    tokens = []
    for _ in range(count):
        tokens.append(sample(logits, state))
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
    assert sample(logits, SamplingState(SamplingParams(temperature=0, seed=0)), banned=(0,)) == 1
    states = [SamplingState(SamplingParams(temperature=1.0, seed=n)) for n in range(200)]
    assert 0 not in {sample(logits, state, banned=(0,)) for state in states}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_an_extreme_distribution_is_harmless(dtype: torch.dtype) -> None:
    logits = torch.full((2000,), -1e4, dtype=dtype)
    logits[77] = 1e4
    for temperature in (0.0, 1e-300, 0.01, 2.0):
        assert sample(logits, SamplingState(SamplingParams(temperature=temperature, seed=3))) == 77
