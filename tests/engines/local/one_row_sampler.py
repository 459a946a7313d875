"""The sampler as it was for one row at a time: what `sample_batch` has to equal, token for token; and what it says of one row."""

import math
import random
from collections.abc import Sequence

import torch

from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.local.candidates import Settings, Way
from magistral_ui.engines.local.candidates import candidates as candidates_of_rows
from magistral_ui.engines.local.sampler import FIRST_CANDIDATES, MIN_TEMPERATURE, kind_of, sample_batch, settings_of
from magistral_ui.engines.local.sampling_state import Draw, SamplingState


def sample(logits: torch.Tensor, state: SamplingState, banned: Sequence[int] = ()) -> int:
    """The next token id, from `logits` of shape (vocabulary,) in any float type; `banned` ids are never drawn."""
    params = state.params
    scores = logits.float()
    if params.repetition_penalty != 1.0 and state.seen:
        ids = torch.tensor(sorted(state.seen), device=scores.device)
        picked = scores[ids]
        penalised = torch.where(picked < 0, picked * params.repetition_penalty, picked / params.repetition_penalty)
        scores = scores.index_copy(0, ids, penalised)
    if banned:
        scores = scores.index_fill(0, torch.tensor(banned, device=scores.device), -torch.inf)
    if params.temperature < MIN_TEMPERATURE:
        return int(scores.argmax())
    ids, weights = reference_candidates(scores, params)
    cumulative = weights.double().cumsum(0)
    total = float(cumulative[-1])
    target = min(_uniform(params.seed or 0, state.position) * total, math.nextafter(total, 0))
    return int(ids[int(torch.searchsorted(cumulative, target, right=True))])


def _uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on seed and position alone: a resumed reply draws what it would have drawn."""
    return random.Random(seed << 32 | position).random()


def reference_candidates(scores: torch.Tensor, params: SamplingParams) -> tuple[torch.Tensor, torch.Tensor]:
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


def sample_one(logits: torch.Tensor, state: SamplingState, banned: tuple[int, ...] = ()) -> int:
    """The package's choice from logits of shape (vocabulary,)."""
    return sample_batch(logits[None], [state.draw(banned)])[0]


def candidates(logits: torch.Tensor, params: SamplingParams) -> tuple[torch.Tensor, torch.Tensor]:
    """The package's candidates from logits of shape (vocabulary,): ids, in any order, and their weights."""
    way, count, _ = kind_of(params, len(logits))
    settings = Settings(*(number for (number,) in settings_of([Draw(params, 0)])))
    found = candidates_of_rows(way, count, logits[None], settings)
    if found.flat is not None and found.flat:
        found = candidates_of_rows(Way.SORTED, 0, logits[None], settings)
    return torch.arange(len(logits)) if found.ids is None else found.ids[0], found.weights[0]
