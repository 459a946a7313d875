"""Draws one sequence's next token from logits; it does not know what the tokens mean or which other sequences run.

The order is transformers': repetition penalty, temperature, top_k, top_p, min_p. The random number comes
from the host and depends on the seed and the position alone, so a seed gives the same draws on every device, alone and in
company, at once or continued.
"""

import math
import random
from collections.abc import Iterable, Sequence

import torch

from magistral_ui.chat.sampling import SamplingParams

FIRST_CANDIDATES = 1_024
"""Candidates looked at first: a partial top-k of the vocabulary is many times cheaper than sorting it."""
SAMPLED_ON_HOST = ("mps",)
"""Devices whose logits are drawn from on the processor: Apple's GPU lacks a good part of what that takes, and its memory is
the processor's own."""

MIN_TEMPERATURE = 1e-4
"""Below this temperature the likeliest token is all but certain, and dividing by it would only overflow."""


class Sampler:
    """One sequence's way of drawing tokens; `seen` are the prompt's ids, which a repetition penalty counts too."""

    def __init__(self, params: SamplingParams, seen: Iterable[int] = (), position: int = 0) -> None:
        """`position` is the number of tokens that the reply has already, where it is continued."""
        self._params = params
        self._position = position
        self._seen = set(seen) if params.repetition_penalty != 1.0 else set()

    def __call__(self, logits: torch.Tensor, banned: Sequence[int] = ()) -> int:
        """The next token id, from `logits` of shape (vocabulary,) in any float type; `banned` ids are never drawn."""
        p = self._params
        scores = (logits.cpu() if logits.device.type in SAMPLED_ON_HOST else logits).float()
        if p.repetition_penalty != 1.0 and self._seen:
            ids = torch.tensor(sorted(self._seen), device=scores.device)
            picked = scores[ids]
            penalised = torch.where(picked < 0, picked * p.repetition_penalty, picked / p.repetition_penalty)
            scores = scores.index_copy(0, ids, penalised)
        if banned:
            scores = scores.index_fill(0, torch.tensor(banned, device=scores.device), -torch.inf)
        if p.temperature < MIN_TEMPERATURE:
            return int(scores.argmax())
        ids, weights = self.candidates(scores)
        cumulative = weights.cpu().double().cumsum(0)  # the CPU's: Apple's GPU has no float64
        total = float(cumulative[-1])
        target = min(self._uniform() * total, math.nextafter(total, 0))
        return int(ids[int(torch.searchsorted(cumulative, target, right=True))])

    def _uniform(self) -> float:
        """A number in [0, 1) that depends on the seed and the position alone: a continued reply draws what it would have."""
        return random.Random((self._params.seed or 0) << 32 | self._position).random()

    def took(self, token: int) -> None:
        """`token` was written (drawn or forced)."""
        self._position += 1
        if self._params.repetition_penalty != 1.0:
            self._seen.add(token)

    def candidates(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and their weights: in proportion to their probabilities, 0 for what is cut. Ids come sorted or not."""
        p = self._params
        if p.top_p == 1 and not p.top_k:
            weights = torch.softmax(scores / p.temperature, 0)
            floor = p.min_p * float(weights.max())
            return torch.arange(scores.numel(), device=scores.device), torch.where(weights >= floor, weights, 0.0)
        head = min(scores.numel(), p.top_k or FIRST_CANDIDATES)
        top, ids = torch.topk(scores, head)
        total = torch.logsumexp((top if p.top_k else scores) / p.temperature, 0, keepdim=True)
        probabilities = torch.exp(top / p.temperature - total)
        if not p.top_k and head < scores.numel() and float(probabilities.sum()) < p.top_p:
            top, ids = torch.sort(scores, descending=True)  # a flat distribution: its head does not hold enough of it
            probabilities = torch.exp(top / p.temperature - total)
        keep = probabilities >= p.min_p * probabilities[0]
        if p.top_p < 1:
            keep &= probabilities.cumsum(0) - probabilities < p.top_p
        return ids, torch.where(keep, probabilities, 0.0)
