"""Which tokens of a row may be drawn, how likely each is, and which one a random number points at: arithmetic on tensors.

Every operation treats each row by itself, so that a row gets the same bits alone and in company, with any number of threads.
"""

from enum import Enum
from typing import NamedTuple

import torch

BLOCK = 1_024
"""Scores among which the place of the largest is looked for."""


class Way(Enum):
    """How rows are looked at; those of one way are computed together."""

    LIKELIEST = "the likeliest token is taken"
    ALL = "the whole vocabulary, unsorted: nothing is cut off but by min_p"
    TOP = "the likeliest tokens, and only they"
    HEAD = "the likeliest tokens, unless they hold less than top_p"
    SORTED = "the whole vocabulary, sorted"


class Settings(NamedTuple):
    """Of some rows: numbers, of a row that is alone on the host, or tensors of shape (rows, 1)."""

    temperature: torch.Tensor | float
    """Tensors are float32 here and in `top_p`."""
    top_p: torch.Tensor | float
    """Infinite where it is off: the sum of all probabilities may be rounded to more than 1."""
    uniform: torch.Tensor | float
    """The random numbers, in [0, 1); a tensor is float64, as in `min_p`."""
    min_p: torch.Tensor | float | None = None
    """None if no row has it."""

    @classmethod
    def of(cls, numbers: torch.Tensor, rows: int) -> "Settings":
        """From these settings, one behind the other, of all `rows`, in float64."""
        fields = numbers.view(-1, rows, 1).unbind(0)
        return cls(fields[0].float(), fields[1].float(), fields[2], fields[3] if len(fields) > 3 else None)


class Candidates(NamedTuple):
    """Of some rows, each of shape (rows, count)."""

    ids: torch.Tensor | None
    """Of the tokens; None where they are all tokens, in their order."""
    weights: torch.Tensor
    """float32: proportional to their probabilities, or 0 for what is cut off."""
    flat: torch.Tensor | None = None
    """(rows, 1): where they do not suffice, and SORTED has to be looked at. None where they always do."""


def candidates(way: Way, count: int, scores: torch.Tensor, settings: Settings) -> Candidates:
    """From float32 `scores` of shape (rows, vocabulary); `count` is how many of the likeliest are looked at."""
    if way is Way.ALL:
        weights = torch.softmax(scores / settings.temperature, -1)
        if settings.min_p is not None:
            floor = (weights.amax(-1, keepdim=True).double() * settings.min_p).float()
            weights.masked_fill_(weights < floor, 0.0)
        return Candidates(None, weights)
    top, ids = torch.sort(scores, descending=True) if way is Way.SORTED else torch.topk(scores, count)
    scaled = top / settings.temperature
    peak = scaled[:, :1]
    powers = scaled - peak if way is Way.TOP else (scores / settings.temperature).sub_(peak)
    total = _sums(powers.exp_()).log_().add_(peak)
    probabilities = scaled.sub_(total).exp_()
    flat = probabilities.sum(-1, keepdim=True) < settings.top_p if way is Way.HEAD else None
    cut = _cumulative(probabilities).float().sub_(probabilities) >= settings.top_p
    if settings.min_p is not None:
        least = settings.min_p.float() if isinstance(settings.min_p, torch.Tensor) else settings.min_p
        cut |= probabilities < probabilities[:, :1] * least
    return Candidates(ids, probabilities.masked_fill_(cut, 0.0), flat)


def drawn(found: Candidates, uniform: torch.Tensor | float, otherwise: int) -> torch.Tensor:
    """The token (rows, 1) to which each random number points; `otherwise` where the weights are no numbers.

    A random number is 1 - 2**-53 at most, so that its product with the sum of the weights is always rounded to less than it.
    """
    cumulative = _cumulative(found.weights)
    place = torch.searchsorted(cumulative, cumulative[:, -1:] * uniform, right=True)
    last = found.weights.shape[1] - 1
    token = place if found.ids is None else found.ids.gather(1, place.clamp(max=last))
    return token.masked_fill(place > last, otherwise)


def likeliest(scores: torch.Tensor) -> torch.Tensor:
    """The first of the likeliest tokens (rows, 1).

    A processor finds a largest number many times faster than its place, so there the place is only looked for in a block.
    """
    rows, vocabulary = scores.shape
    if scores.device.type != "cpu" or vocabulary % BLOCK or not scores.is_contiguous():
        return scores.argmax(-1, keepdim=True)
    blocks = scores.view(rows, -1, BLOCK)
    block = blocks.amax(-1).argmax(-1, keepdim=True)
    inside = blocks.gather(1, block[:, :, None].expand(-1, -1, BLOCK)).argmax(-1)
    return block * BLOCK + inside


def _cumulative(weights: torch.Tensor) -> torch.Tensor:
    """In float64, so that how a device splits a row among its threads matters no more."""
    return weights.cumsum(-1, dtype=torch.float64)


def _sums(numbers: torch.Tensor) -> torch.Tensor:
    """Of each row, (rows, 1). A row that is alone would be split among threads, and rounded otherwise than in company."""
    if numbers.shape[0] == 1 and torch.get_num_threads() > 1:
        return numbers.expand(2, -1).sum(-1, keepdim=True)[:1]
    return numbers.sum(-1, keepdim=True)
