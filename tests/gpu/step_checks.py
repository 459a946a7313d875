"""What decode steps must say on whatever device a decoder is: as calls and recorded, over pages and sequence by sequence."""

from collections.abc import Callable

import torch

from magistral_ui.engines.local.decoder import Decoder, DecoderInput
from magistral_ui.models.memory import pages_of

READ = 300
"""Tokens that each sequence has read, more than a page."""
STEPS = 4
TOLERANCE = 0.02
"""Largest difference of logits between two ways of computing them, as a share of their standard deviation."""
LOWEST, HIGHEST = 3, 1_000
"""Tokens that are read: more than that, every vocabulary has."""

Prepare = Callable[[Decoder], object]


def open_pool(decoder: Decoder, sequences: int) -> None:
    """Room for so many sequences of READ tokens and some; decode steps are those of prompts until something else is chosen."""
    longest = READ + 16 * STEPS
    decoder.open_pool(sequences * pages_of(longest) + 1, longest)


def logits_of(decoder: Decoder, sequences: int, drafts: int) -> torch.Tensor:
    """(STEPS × rows, vocabulary) in float32 on the host: each sequence's next tokens, the first with `drafts` behind its own."""
    caches = [decoder.new_cache() for _ in range(sequences)]
    for n, cache in enumerate(caches):
        decoder([DecoderInput(cache, [LOWEST + (7 * n + 3 * i) % (HIGHEST - LOWEST) for i in range(READ)])])
    said = []
    for step in range(STEPS):
        parts = []
        for n, cache in enumerate(caches):
            tokens = [LOWEST + 5 * step + n + i for i in range(1 + (drafts if n == 0 else 0))]
            parts.append(DecoderInput(cache, tokens, wanted=len(tokens)))
        said.append(decoder(parts).to("cpu", torch.float32, copy=True))  # a recorded step's last until the next
    for cache in caches:
        cache.release()
    return torch.cat(said)


def check_steps(decoder: Decoder, sequences: int, drafts: int, choose: Prepare, record: Prepare) -> None:
    """As prompts are read, by what `choose` chooses, and as `record` records it: the same logits."""
    open_pool(decoder, sequences)
    plain = logits_of(decoder, sequences, drafts)
    choose(decoder)
    assert close(logits_of(decoder, sequences, drafts), plain), "attention over pages differs"
    record(decoder)
    assert close(logits_of(decoder, sequences, drafts), plain), "recorded steps differ"


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, rtol=0, atol=TOLERANCE * float(other.std()))
