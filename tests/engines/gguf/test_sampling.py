"""llama.cpp draws from the same distribution as the local engine: same candidates, same probabilities.

The repetition penalty is compared in test_same_answers: it depends on the scores themselves, which the server does not tell.
"""

import http.client
import json
import math
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.gguf.completion import completion_body
from magistral_ui.engines.gguf.engine import GGUFEngine
from tests.engines.gguf.demo import loaded
from tests.engines.local.one_row_sampler import candidates

SETTINGS: list[dict[str, float]] = [
    {"temperature": 1.5, "top_p": 0.9},
    {"temperature": 1.5, "top_p": 1.0, "min_p": 0.1},
    {"temperature": 1.5, "top_p": 0.9, "top_k": 5},
    {"temperature": 0.5, "top_p": 0.95},
    {"temperature": 2.0, "top_p": 0.95, "top_k": 40, "min_p": 0.02},
]
TOLERANCE = 1e-3
"""Of a probability: llama.cpp computes in float32, and tells rounded ones."""


@pytest.fixture(scope="module")
def engine() -> Iterator[GGUFEngine]:
    engine = loaded(slots=1)
    yield engine
    engine.close()


def asked(engine: GGUFEngine, ids: list[int], params: SamplingParams, **more: object) -> list[dict[str, Any]]:
    """What the server says of the next token's candidates."""
    assert engine._running is not None
    server = engine._running.server
    body = completion_body(ids, params, slot=0, reuse=False, count=1, length=len(ids), position=0, stream=False)
    connection = http.client.HTTPConnection(server.host, server.port)
    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
    connection.request("POST", "/completion", json.dumps({**body, **more}), headers)
    said = json.loads(connection.getresponse().read())["completion_probabilities"][0]
    connection.close()
    return said["top_probs"] if "top_probs" in said else said["top_logprobs"]  # type: ignore[no-any-return]


def raw_scores(engine: GGUFEngine, ids: list[int]) -> torch.Tensor:
    """The logarithms of all probabilities, before any sampler."""
    assert engine.tokenizer is not None
    told = asked(engine, ids, SamplingParams(temperature=0.0), n_probs=engine.tokenizer.vocabulary)
    scores = torch.full((engine.tokenizer.vocabulary,), -50.0)
    for each in told:
        scores[each["id"]] = max(each["logprob"], -50.0)
    return scores


def uncertain_prompt(engine: GGUFEngine) -> list[int]:
    """A prompt after which many tokens are likely."""

    def entropy(ids: list[int]) -> float:
        scores = raw_scores(engine, ids)
        return -float((scores.exp() * scores).sum())

    rng = random.Random(2)
    prompts = [[1, 3, *(rng.randrange(100, 1400) for _ in range(7))] for _ in range(20)]
    return max(prompts, key=entropy)


def test_the_distributions_are_the_same(engine: GGUFEngine) -> None:
    ids = uncertain_prompt(engine)
    raw = raw_scores(engine, ids)
    assert math.isclose(float(raw.exp().sum()), 1.0, abs_tol=0.01)
    for setting in SETTINGS:
        params = SamplingParams(**setting)  # type: ignore[arg-type]
        said = asked(engine, ids, params, n_probs=2_000, post_sampling_probs=True)
        theirs = {each["id"]: each["prob"] for each in said if each["prob"] > 0}
        ours = distribution(raw, params)
        assert len(ours) > 4
        largest = max(abs(theirs.get(token, 0.0) - ours.get(token, 0.0)) for token in {*theirs, *ours})
        assert largest < TOLERANCE, (setting, largest)


def distribution(raw: torch.Tensor, params: SamplingParams) -> dict[int, float]:
    """The local sampler's."""
    tokens, weights = candidates(raw, params)
    total = float(weights.sum())
    pairs = zip(tokens.tolist(), weights.tolist(), strict=True)
    return {token: weight / total for token, weight in pairs if weight > 0}
