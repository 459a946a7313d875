"""On a real graphics card, with random weights of Magistral's width: memory and decoding against the plan, and two cards.

What needs no card of it is tried on the processor, in tests/engines/local/test_gpu_checks.py.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from magistral_ui.engines.local.attention_choice import choose_paged_attention, use_kernels
from magistral_ui.engines.local.attention_trial import Trial
from magistral_ui.engines.local.cuda_recorder import recorded_buckets
from magistral_ui.engines.local.decoder import Decoder, DecoderInput
from magistral_ui.engines.local.running_model import RunningModel
from magistral_ui.engines.weights.devices import MIN_FUSED_CAPABILITY, Device, find_device
from magistral_ui.engines.weights.freed_memory import empty_device_cache
from magistral_ui.engines.weights.loader import Loaded, load
from magistral_ui.engines.weights.source import ModelSource
from magistral_ui.models.folder import inspect_folder
from magistral_ui.models.graph_memory import graph_bytes, planned_buckets
from magistral_ui.models.memory import margin_bytes, pages_of
from magistral_ui.models.shape import kv_bytes_per_token, weight_bytes, working_bytes
from tests.gpu.step_checks import check_steps, close, logits_of, open_pool
from tests.hub.checkpoints import tokenizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA graphics card here"),
]
LAYERS = 4
"""Of Magistral's forty: the rest is the same again, and a test's files should stay below 8 GB."""
PROMPT, CHUNK = 16_384, 2_048


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = MistralConfig(
        vocab_size=131_072,
        hidden_size=5_120,
        intermediate_size=32_768,
        num_hidden_layers=LAYERS,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=131_072,
        rope_theta=1e9,
        sliding_window=None,
    )
    made = tmp_path_factory.mktemp("gpu") / "model"
    with torch.device("cuda"):
        model = MistralForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(made, max_shard_size="2GB")
    del model
    empty_device_cache()
    (made / "tekken.json").write_text(json.dumps(tokenizer("v13", think=True)), encoding="utf-8")
    return made


@pytest.fixture(autouse=True)
def _freed() -> Iterator[None]:
    """What a test has loaded is gone when the next one begins."""
    yield
    empty_device_cache()


def loaded(folder: Path, precision: str, device: Device, **more: Any) -> Loaded:
    return load(ModelSource(inspect_folder(folder).card, folder), device, precision, lambda _: None, **more)


def read(decoder: Decoder, tokens: int) -> torch.Tensor:
    """Logits behind a prompt of so many tokens, read in chunks."""
    cache = decoder.new_cache()
    for start in range(0, tokens, CHUNK):
        count = min(CHUNK, tokens - start)
        decoder([DecoderInput(cache, [(start + i) % 2_000 for i in range(count)])])
    logits = decoder([DecoderInput(cache, [5])])
    cache.release()
    return logits


@pytest.mark.parametrize("precision", ["bfloat16", "int8", "nf4"])
def test_load_peak_and_decode_are_as_planned(folder: Path, precision: str) -> None:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    facts, device = inspect_folder(folder), find_device("cuda").first(1)
    model = loaded(folder, precision, device)
    planned = weight_bytes(facts.shape, precision)
    held = torch.cuda.memory_allocated() - before
    assert held == pytest.approx(planned, rel=0.03)
    assert torch.cuda.max_memory_allocated() - before <= planned + max(f.stat().st_size for f in facts.weights)

    running = RunningModel(model, device)
    plan, pool = running.info.plan, running.decoder.pool
    assert plan is not None
    assert (pool.pages + 1) * pool.page_bytes <= plan.kv_bytes + pool.page_bytes
    torch.cuda.reset_peak_memory_stats()
    resting = torch.cuda.memory_allocated()
    assert torch.isfinite(read(running.decoder, PROMPT)).all()
    assert torch.cuda.max_memory_allocated() - resting <= working_bytes(facts.shape, precision, "cuda")
    free, _ = torch.cuda.mem_get_info(device.torch)
    assert free >= plan.margin // 2, "what the plan leaves to others is left"
    running.close()


def test_a_longest_conversation_needs_no_more_than_its_pages(folder: Path) -> None:
    """They are there from the start: only the room to work in is taken, however long it grows."""
    facts, device = inspect_folder(folder), find_device("cuda").first(1)
    running = RunningModel(loaded(folder, "nf4", device), device, context_length=65_536)
    pool = running.decoder.pool
    torch.cuda.reset_peak_memory_stats(device.torch)
    resting = torch.cuda.memory_allocated(device.torch)
    cache = running.decoder.new_cache()
    for _ in range(0, running.context_length, CHUNK):
        running.decoder([DecoderInput(cache, list(range(CHUNK)))])
    assert cache.nbytes == pages_of(running.context_length) * pool.page_bytes
    branch = cache.branch(cache.length)
    assert torch.cuda.memory_allocated(device.torch) <= resting + 2**20, "a branch copies nothing"
    branch.release()
    peak = torch.cuda.max_memory_allocated(device.torch) - resting
    assert peak <= working_bytes(facts.shape, "nf4", "cuda")
    running.close()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attention_over_pages_is_one_call_and_that_of_the_reference(dtype: torch.dtype) -> None:
    device, pool_shape, width = find_device("cuda").torch, (64, 256, 8, 128), pages_of(131_072)
    chosen = choose_paged_attention(pool_shape, dtype, device, 32, width)
    if torch.cuda.get_device_capability(device) < MIN_FUSED_CAPABILITY:
        pytest.skip(f"a card this old has {chosen.decode.name}")
    assert chosen.decode.graphable, f"{chosen.decode.name}: each sequence has a call of its own"
    assert chosen.ragged is not None
    trial = Trial(pool_shape, dtype, device, 32, width)
    trial.decode(chosen.decode)
    trial.ragged(chosen.ragged)


@pytest.mark.parametrize("precision", ["bfloat16", "nf4"])
@pytest.mark.parametrize(("sequences", "drafts"), [(1, 0), (1, 3), (3, 0), (8, 0), (6, 2)])
def test_recorded_steps_say_what_plain_calls_say(folder: Path, precision: str, sequences: int, drafts: int) -> None:
    decoder = Decoder(loaded(folder, precision, find_device("cuda").first(1)).model, join=True)
    check_steps(decoder, sequences, drafts, use_kernels, Decoder.record)
    wanted = recorded_buckets(decoder.layers.first, decoder.device)
    assert decoder.graphs is not None or not wanted
    if decoder.graphs is not None:
        assert decoder.graphs.buckets == wanted, "each bucket holds on this card"
        assert not torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.parametrize("precision", ["bfloat16", "nf4"])
def test_recordings_take_what_was_planned(folder: Path, precision: str) -> None:
    facts, device = inspect_folder(folder), find_device("cuda").first(1)
    decoder = Decoder(loaded(folder, precision, device).model, join=True)
    open_pool(decoder, 8)
    use_kernels(decoder)
    decoder.record()
    if decoder.graphs is None:
        pytest.skip("nothing is recorded on a card this old")
    assert decoder.graphs.buckets == planned_buckets(facts.shape, precision, device.place)
    assert decoder.graphs.taken[decoder.device] <= graph_bytes(facts.shape, precision, device.place)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one graphics card")
@pytest.mark.parametrize("precision", ["bfloat16", "int8", "nf4"])
def test_two_cards_say_what_one_says(folder: Path, precision: str) -> None:
    facts, real = inspect_folder(folder), find_device("cuda").first(2)

    def tight(card: Device) -> Device:
        """So little room on each card that half of the layers fit, and two thousand tokens."""
        tokens = 2_048 * kv_bytes_per_token(facts.shape, precision)
        fixed = working_bytes(facts.shape, precision, "cuda") + margin_bytes(card.place) + tokens
        return replace(card, free=fixed + int(0.75 * weight_bytes(facts.shape, precision)))

    first, second = real.all
    spread = replace(tight(first), others=(tight(second),))
    on_one = loaded(folder, precision, real.first(1))
    on_two = loaded(folder, precision, spread, context_length=2_048)
    assert len(on_two.layers) == 2
    assert all(on_two.layers)
    assert {p.device.index for p in on_two.model.parameters()} == {first.index, second.index}

    said = []
    for model in (on_one, on_two):
        decoder = Decoder(model.model, join=True)
        open_pool(decoder, 3)
        use_kernels(decoder)
        decoder.record()
        said.append(logits_of(decoder, 3, 2))
        wanted = recorded_buckets(decoder.layers.first, decoder.device)
        assert (decoder.graphs.buckets if decoder.graphs is not None else ()) == wanted  # on the second card too
    assert close(said[1], said[0])
    running = RunningModel(on_two, spread)
    assert running.info.plan is not None
    assert len(running.info.plan.shares) == 2
    pool = running.decoder.pool
    assert len({pool.layer(index)[0].device for index in range(LAYERS)}) == 2
    running.close()


def test_the_command_s_device_is_the_real_one() -> None:
    found = find_device()
    assert (found.type, found.name) == ("cuda", torch.cuda.get_device_name(0))
    assert 0 < found.free <= found.total
