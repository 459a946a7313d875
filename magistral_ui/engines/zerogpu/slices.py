"""What passes between the page's process and the one with the GPU, and for how long that one is asked for; plain values.

A slice is one call on the GPU. A reply longer than a slice goes on in the next: its tokens are kept, and read again.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from magistral_ui.chat.events import Failed, FinishReason, Prefilling
from magistral_ui.chat.sampling import SamplingParams

if TYPE_CHECKING:
    from magistral_ui.engines.local.tokenizer import EncodedPrompt

Token = tuple[int, bool]
"""A token, and whether the answer was asked for when it was chosen: with that, control decides alike on both sides."""

SLICE_MARGIN_SECONDS = 2.0
"""Seconds of a slice that are left over, so that it ends in order and is not aborted."""
MIN_SLICE_SECONDS, MAX_SLICE_SECONDS = 10, 120
"""Seconds of a slice. Longer ones wait longer, and a visitor without an account has two minutes a day."""
PREFILL_TOKENS_PER_SECOND = 2_000
"""Prompt tokens that are read in a second, at least."""


@dataclass(frozen=True, slots=True)
class SliceJob:
    """What one slice is to write."""

    prompt: "EncodedPrompt"
    params: SamplingParams
    limit: int
    """Tokens that the whole reply may have."""
    written: tuple[Token, ...]
    """Its beginning, from earlier slices."""
    place: int
    ticket: int
    """Where in Flags its visitor's wishes stand."""
    seconds: int
    """What the GPU is asked for."""
    asked_at: float
    """By the clock of the system, time.time()."""
    tokens: int | None = None
    """Of this slice at most; None: as many as there is time for."""


@dataclass(frozen=True, slots=True)
class SlicePiece:
    """What has been written since the last one."""

    tokens: tuple[Token, ...] = ()
    seconds: float = 0.0
    """Since the slice began."""
    prefilling: Prefilling | None = None
    end: FinishReason | Failed | None = None


class SliceEstimate:
    """Learns how fast the GPU is, and says how many seconds the next slice needs."""

    def __init__(self, weights: int = 0, tokens: int | None = None) -> None:
        """`weights` are the model's bytes: a fresh process moves them to the GPU, and each token reads them once.

        The rates that hold until one was measured are meant to be safe: 2 GB and 1.2 TB a second. `tokens` bounds a slice.
        """
        self.tokens = tokens
        self.opening = 3.0 + weights / 2e9
        self.token = 0.005 + weights / 1.2e12

    def seconds(self, prompt: int, left: int) -> int:
        """For reading `prompt` tokens and writing up to `left`."""
        wanted = SLICE_MARGIN_SECONDS + self.opening + prompt / PREFILL_TOKENS_PER_SECOND + left * self.token
        return min(MAX_SLICE_SECONDS, max(MIN_SLICE_SECONDS, math.ceil(wanted)))

    def is_of_use(self, seconds: int) -> bool:
        """Whether so short a slice would write anything."""
        return seconds > SLICE_MARGIN_SECONDS + self.opening + 2

    def missed(self, seconds: int) -> None:
        """A slice of so many seconds wrote nothing."""
        self.opening = max(self.opening, float(seconds))

    def learn(self, first: float, last: float, tokens: int) -> None:
        """A slice wrote `tokens`, the first one after `first` seconds and the last after `last`."""
        self.opening = max(first, 0.8 * self.opening + 0.2 * first)
        if tokens > 1:
            self.token = 0.5 * self.token + 0.5 * (last - first) / (tokens - 1)
