"""Draws one sequence's next token from logits; it does not know what the tokens mean or which other sequences run.

The order is transformers': repetition penalty, temperature, top_k, top_p, min_p. The random number comes from the sequence's
own generator on the host, so a seed gives the same draws on every device, alone and in company.
"""

import random
from collections.abc import Iterable, Sequence

import torch

from magistral_ui.chat.sampling import SamplingParams

HEAD = 1_024
"""Candidates looked at first: a partial top-k of the vocabulary is many times cheaper than sorting it."""


class Sampler:
    """One sequence's way of drawing tokens; `seen` are the prompt's ids, which a repetition penalty counts too."""

    def __init__(self, params: SamplingParams, seen: Iterable[int] = ()) -> None:
        self._params = params
        self._random = random.Random(params.seed)
        self._seen = set(seen) if params.repetition_penalty != 1.0 else set()

    def __call__(self, logits: torch.Tensor, banned: Sequence[int] = ()) -> int:
        """The next token id, from `logits` of shape (vocabulary,) in any float type; `banned` ids are never drawn."""
        p = self._params
        scores = logits.float()
        if p.repetition_penalty != 1.0 and self._seen:
            ids = torch.tensor(sorted(self._seen), device=scores.device)
            picked = scores[ids]
            penalised = torch.where(picked < 0, picked * p.repetition_penalty, picked / p.repetition_penalty)
            scores = scores.index_copy(0, ids, penalised)
        if banned:
            scores = scores.index_fill(0, torch.tensor(banned, device=scores.device), -torch.inf)
        return int(scores.argmax()) if p.temperature == 0 else self._draw(scores)

    def took(self, token: int) -> None:
        """`token` was written (drawn or forced)."""
        if self._params.repetition_penalty != 1.0:
            self._seen.add(token)

    def _draw(self, scores: torch.Tensor) -> int:
        p = self._params
        size = scores.numel()
        head = min(size, p.top_k or HEAD)
        top, ids = torch.topk(scores, head)
        total = torch.logsumexp(top if p.top_k else scores, 0, keepdim=True) if p.temperature == 1 else None
        if total is None:
            total = torch.logsumexp((top if p.top_k else scores) / p.temperature, 0, keepdim=True)
        probabilities = torch.exp(top / p.temperature - total)
        cumulative = probabilities.cumsum(0)
        if not p.top_k and head < size and float(cumulative[-1]) < p.top_p:
            top, ids = torch.sort(scores, descending=True)  # a flat distribution: the head does not hold enough of it
            probabilities = torch.exp(top / p.temperature - total)
            cumulative = probabilities.cumsum(0)
        keep = cumulative - probabilities < p.top_p
        if p.min_p > 0:
            keep &= probabilities >= p.min_p * probabilities[0]
        weights = torch.where(keep, probabilities, 0.0).double().cpu().cumsum(0)
        target = self._random.random() * float(weights[-1])
        index = int(torch.searchsorted(weights, torch.tensor([target], dtype=torch.double), right=True))
        return int(ids[min(index, int(keep.sum()) - 1)])
