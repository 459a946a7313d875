"""Draws one sequence's next token from logits; it does not know what the tokens mean or which other sequences run.

The order is transformers': repetition penalty, temperature, top_k, top_p, min_p. The random number is made on the host and
depends on the seed and the position alone, so a seed gives the same draws on every device, alone and in a batch, in one go and
resumed.
"""

import math
import random
from collections.abc import Sequence

import torch

from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.local.sampling_state import Draw, SamplingState

FIRST_CANDIDATES = 1_024
"""Candidates looked at first: a top-k of the vocabulary is many times cheaper than sorting it."""
SAMPLED_ON_HOST = ("mps",)
"""Devices whose tokens are drawn on the processor: Apple's GPU lacks many of the operations, and shares the processor's
memory."""

MIN_TEMPERATURE = 1e-4
"""Below it, the likeliest token is all but certain, and dividing by the temperature would overflow."""


def sample_batch(logits: torch.Tensor, draws: Sequence[Draw], rows: Sequence[int] | None = None) -> list[int]:
    """The token of each draw, from `logits` of shape (rows, vocabulary) in any float type.

    `rows` says from which row each draw is; without it, they are as many, in the same order. Each token depends on its own
    row and draw alone. ValueError if a row has no distribution: it holds what is no number.
    """
    chosen = []
    for row, draw in zip(range(len(draws)) if rows is None else rows, draws, strict=True):
        state = SamplingState(draw.params, set(draw.seen), draw.position)
        chosen.append(sample(logits[row], state, draw.banned))
    return chosen


def sample(logits: torch.Tensor, state: SamplingState, banned: Sequence[int] = ()) -> int:
    """The next token id, from `logits` of shape (vocabulary,) in any float type; `banned` ids are never drawn."""
    params = state.params
    scores = (logits.cpu() if logits.device.type in SAMPLED_ON_HOST else logits).float()
    if params.repetition_penalty != 1.0 and state.seen:
        ids = torch.tensor(sorted(state.seen), device=scores.device)
        picked = scores[ids]
        penalised = torch.where(picked < 0, picked * params.repetition_penalty, picked / params.repetition_penalty)
        scores = scores.index_copy(0, ids, penalised)
    if banned:
        scores = scores.index_fill(0, torch.tensor(banned, device=scores.device), -torch.inf)
    if params.temperature < MIN_TEMPERATURE:
        return int(scores.argmax())
    ids, weights = candidates(scores, params)
    cumulative = weights.cpu().double().cumsum(0)  # on the host, since the random number is from there
    total = float(cumulative[-1])
    target = min(_uniform(params.seed or 0, state.position) * total, math.nextafter(total, 0))
    return int(ids[int(torch.searchsorted(cumulative, target, right=True))])


def _uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on seed and position alone: a resumed reply draws what it would have drawn."""
    return random.Random(seed << 32 | position).random()


def candidates(scores: torch.Tensor, params: SamplingParams) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids, in any order, and their weights: proportional to their probabilities, or 0 for what is cut off."""
    if params.top_p == 1 and not params.top_k:
        weights = torch.softmax(scores / params.temperature, 0)
        floor = params.min_p * float(weights.max())
        return torch.arange(scores.numel(), device=scores.device), torch.where(weights >= floor, weights, 0.0)
    head = min(scores.numel(), params.top_k or FIRST_CANDIDATES)
    top, ids = torch.topk(scores, head)
    total = torch.logsumexp((top if params.top_k else scores) / params.temperature, 0, keepdim=True)
    probabilities = torch.exp(top / params.temperature - total)
    if not params.top_k and head < scores.numel() and float(probabilities.sum()) < params.top_p:
        top, ids = torch.sort(scores, descending=True)  # a flat distribution: its head holds less than top_p
        probabilities = torch.exp(top / params.temperature - total)
    keep = probabilities >= params.min_p * probabilities[0]
    if params.top_p < 1:
        keep &= probabilities.cumsum(0) - probabilities < params.top_p
    return ids, torch.where(keep, probabilities, 0.0)
