"""On a real graphics card, with random weights of Magistral's width: load, peak memory and decoding against the plan."""

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA graphics card here"),
]

LAYERS = 4
"""Of Magistral's forty: the rest is the same again, and a test's files should stay below 8 GB."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import MistralConfig, MistralForCausalLM

    from tests.hub.checkpoints import tokenizer

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
    torch.cuda.empty_cache()

    (made / "tekken.json").write_text(json.dumps(tokenizer("v13", think=True)), encoding="utf-8")
    return made


@pytest.mark.parametrize("precision", ["bfloat16", "int8", "nf4"])
def test_load_peak_and_decode_are_as_planned(folder: Path, precision: str) -> None:
    from magistral_ui.engines.local.decoder import DecoderInput
    from magistral_ui.engines.local.running_model import RunningModel
    from magistral_ui.engines.weights.devices import find_device
    from magistral_ui.engines.weights.loader import load
    from magistral_ui.engines.weights.source import ModelSource
    from magistral_ui.models.folder import inspect_folder
    from magistral_ui.models.memory import MAX_GROWTH_TOKENS
    from magistral_ui.models.shape import weight_bytes, working_bytes

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    facts, device = inspect_folder(folder), find_device("cuda").first(1)
    loaded = load(ModelSource(facts.card, folder), device, precision, lambda _: None)
    planned = weight_bytes(facts.shape, precision)
    held = torch.cuda.memory_allocated() - before
    assert held == pytest.approx(planned, rel=0.03)
    assert torch.cuda.max_memory_allocated() - before <= planned + max(f.stat().st_size for f in facts.weights)

    running = RunningModel(loaded, device)
    assert running.info.plan is not None
    torch.cuda.reset_peak_memory_stats()
    model, cache, tokens = running.decoder, running.decoder.new_cache(), 16_384
    for start in range(0, tokens, 2_048):
        model([DecoderInput(cache, [(start + i) % 2_000 for i in range(2_048)])])
    logits = model([DecoderInput(cache, [5])])
    assert torch.isfinite(logits).all()
    kv = (tokens + MAX_GROWTH_TOKENS) * running.info.plan.kv_per_token
    assert torch.cuda.max_memory_allocated() - before <= held + kv + working_bytes(facts.shape, precision, "cuda")
    running.close()


def test_a_longest_conversation_grows_within_its_bytes(folder: Path) -> None:
    """While a layer's buffers grow, both the old and the new ones are there: the room to work in must hold that too."""
    from magistral_ui.engines.local.decoder import DecoderInput
    from magistral_ui.engines.local.running_model import RunningModel
    from magistral_ui.engines.weights.devices import find_device
    from magistral_ui.engines.weights.loader import load
    from magistral_ui.engines.weights.source import ModelSource
    from magistral_ui.models.folder import inspect_folder
    from magistral_ui.models.shape import working_bytes

    facts, device = inspect_folder(folder), find_device("cuda").first(1)
    loaded = load(ModelSource(facts.card, folder), device, "nf4", lambda _: None)
    running = RunningModel(loaded, device, context_length=65_536)
    assert running.info.plan is not None
    held = torch.cuda.memory_allocated(device.torch)
    torch.cuda.reset_peak_memory_stats(device.torch)
    model = running.decoder
    cache = model.new_cache()
    for _ in range(0, running.context_length, 2_048):
        model([DecoderInput(cache, list(range(2_048)))])
    kv = running.context_length * running.info.plan.kv_per_token
    assert cache.nbytes == kv
    peak = torch.cuda.max_memory_allocated(device.torch) - held
    # of four layers, one grows at a time; of Magistral's forty, that is a tenth as much of the whole
    assert peak <= kv + kv // LAYERS + working_bytes(facts.shape, "nf4", "cuda")
    running.close()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one graphics card")
@pytest.mark.parametrize("precision", ["bfloat16", "int8", "nf4"])
def test_two_cards_say_what_one_says(folder: Path, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from magistral_ui.engines.local.decoder import Decoder, DecoderInput
    from magistral_ui.engines.local.running_model import RunningModel
    from magistral_ui.engines.weights.devices import Device, find_device
    from magistral_ui.engines.weights.loader import load
    from magistral_ui.engines.weights.source import ModelSource
    from magistral_ui.models.folder import inspect_folder
    from magistral_ui.models.memory import margin_bytes
    from magistral_ui.models.shape import kv_bytes_per_token, weight_bytes, working_bytes

    facts, real = inspect_folder(folder), find_device("cuda").first(2)

    def tight(card: Device) -> Device:
        """So little room on each card that half of the layers fit, and two thousand tokens."""
        tokens = 2_048 * kv_bytes_per_token(facts.shape, precision)
        fixed = working_bytes(facts.shape, precision, "cuda") + margin_bytes(card.place) + tokens
        return replace(card, free=fixed + int(0.75 * weight_bytes(facts.shape, precision)))

    first, second = real.all
    spread = replace(tight(first), others=(tight(second),))
    on_one = load(ModelSource(facts.card, folder), real.first(1), precision, lambda _: None)
    on_two = load(ModelSource(facts.card, folder), spread, precision, lambda _: None, context_length=2_048)
    assert len(on_two.layers) == 2
    assert all(on_two.layers)
    assert {p.device.index for p in on_two.model.parameters()} == {first.index, second.index}

    def logits(model: Decoder) -> torch.Tensor:
        cache = model.new_cache()
        model([DecoderInput(cache, list(range(1_000, 1_700)))])
        model([DecoderInput(cache, list(range(1_700, 1_800)))])
        return torch.cat([model([DecoderInput(cache, [n])]).float().cpu() for n in range(5, 13)])

    spread_model = prepared(on_two.model)
    alone, together = logits(Decoder(on_one.model)), logits(spread_model)
    recorded = precision != "int8" and torch.cuda.get_device_capability(0) >= (8, 0)
    assert (spread_model.graphs is not None) == recorded  # on the second card too
    assert torch.allclose(together, alone, atol=0.02 * float(alone.std()))
    running = RunningModel(on_two, spread)
    assert running.info.plan is not None
    assert len(running.info.plan.shares) == 2
    assert len({running.decoder.pool.layer(index)[0].device for index in range(LAYERS)}) == 2
    running.close()


def prepared(model: Any) -> Any:
    """A decoder as a running model has it: with kernels for pages, and its decode steps recorded."""
    from magistral_ui.engines.local.attention_choice import use_kernels
    from magistral_ui.engines.local.decoder import Decoder

    decoder = Decoder(model)
    decoder.open_pool(40, 1_024)
    use_kernels(decoder)
    decoder.record()
    return decoder


@pytest.mark.parametrize("precision", ["bfloat16", "nf4"])
def test_graphs_hold(folder: Path, precision: str) -> None:
    """Recorded decode steps give the logits of plain calls at every number of rows, in no more memory than is planned."""
    from magistral_ui.engines.local.cuda_recorder import recorded_buckets
    from magistral_ui.engines.local.decoder import DecoderInput
    from magistral_ui.engines.weights.devices import find_device
    from magistral_ui.engines.weights.loader import load
    from magistral_ui.engines.weights.source import ModelSource
    from magistral_ui.models.folder import inspect_folder
    from magistral_ui.models.graph_memory import graph_bytes, planned_buckets

    facts, device = inspect_folder(folder), find_device("cuda").first(1)
    loaded = load(ModelSource(facts.card, folder), device, precision, lambda _: None)
    buckets = recorded_buckets(loaded.model.model.layers[0], device.torch)
    if not buckets:
        pytest.skip("nothing is recorded on a card this old")
    assert planned_buckets(facts.shape, precision, device.place) == buckets
    model = prepared(loaded.model)
    graphs = model.graphs
    assert graphs is not None
    assert graphs.buckets == buckets
    assert graphs.taken[device.torch] <= graph_bytes(facts.shape, precision, device.place)
    for count in range(1, max(buckets) + 1):
        said = []
        for model.graphs in (None, graphs):
            caches = [model.new_cache() for _ in range(count)]
            model([DecoderInput(cache, list(range(2 + n, 40 + 30 * n))) for n, cache in enumerate(caches)])
            steps = [model([DecoderInput(cache, [token]) for cache in caches]) for token in range(5, 9)]
            said.append(torch.cat(steps).float())
            for cache in caches:
                cache.release()
        assert torch.allclose(said[1], said[0], atol=0.02 * float(said[0].std()))
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_the_command_s_device_is_the_real_one() -> None:
    from magistral_ui.engines.weights.devices import find_device

    found = find_device()
    assert (found.type, found.name) == ("cuda", torch.cuda.get_device_name(0))
    assert 0 < found.free <= found.total
