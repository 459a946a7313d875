"""On a processor a row's logits are the same to the last bit alone and in company, in any pieces, fresh and with a prefix."""

import random
from collections.abc import Callable

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from magistral_ui.engines.local.decoder import Decoder, DecoderInput
from magistral_ui.engines.weights.packing import can_pack

SHAPES = {
    "the demo model's": {"hidden_size": 192, "intermediate_size": 512, "num_attention_heads": 6, "head_dim": 32},
    "Magistral's heads": {"hidden_size": 256, "intermediate_size": 1_024, "num_attention_heads": 8, "head_dim": 128},
}
WRITTEN = 12


def made(shape: dict[str, int], dtype: torch.dtype) -> Decoder:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=512, num_hidden_layers=2, num_key_value_heads=2, sliding_window=None, initializer_range=0.1, **shape
    )
    return Decoder(MistralForCausalLM(config).to(dtype).eval())


def tokens(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(512) for _ in range(count)]


def logits(model: Decoder, ids: list[int], piece: Callable[[], int], company: int, seed: int = 0) -> torch.Tensor:
    """Behind each of the last tokens, which are written one by one; the others are read in pieces, in such company."""
    rng = random.Random(seed)
    cache, others = model.new_cache(), [model.new_cache() for _ in range(company)]
    said, read = [], len(ids) - WRITTEN
    while cache.length < len(ids):
        count = min(piece(), read - cache.length) if cache.length < read else 1
        parts = [DecoderInput(each, tokens(rng, rng.choice([1, 1, 30]))) for each in others]
        place = rng.randint(0, company)
        parts.insert(place, DecoderInput(cache, ids[cache.length : cache.length + count]))
        said.append(model(parts)[place])
    return torch.stack(said[-WRITTEN:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_company_and_pieces_change_no_bit(shape: str, dtype: torch.dtype) -> None:
    if not can_pack(dtype):
        pytest.skip(f"this processor does not pack {dtype}")
    model, rng = made(SHAPES[shape], dtype), random.Random(1)
    ids = tokens(rng, 290)
    alone = logits(model, ids, lambda: 512, 0)
    for company, pieces in ((0, [256]), (1, [512]), (7, [512]), (2, [1, 2, 3, 31, 33, 64, 100]), (0, [5])):
        assert torch.equal(logits(model, ids, lambda pieces=pieces: rng.choice(pieces), company), alone)  # type: ignore[misc]


def test_what_was_written_is_as_good_as_read() -> None:
    """Keys that a reply left behind are those that reading it again makes."""
    model, rng = made(SHAPES["the demo model's"], torch.float32), random.Random(2)
    ids = tokens(rng, 200)
    written, read = model.new_cache(), model.new_cache()
    model([DecoderInput(written, ids[:60])])
    for token in ids[60:-1]:
        model([DecoderInput(written, [token])])
    model([DecoderInput(read, ids[:-1])])
    for layer in range(2):
        for held in model.pool.layer(layer):
            assert torch.equal(*(held[cache.pages].flatten(0, 1)[:199] for cache in (written, read)))
    assert torch.equal(model([DecoderInput(written.branch(130), ids[130:])]), model([DecoderInput(read, ids[-1:])]))
