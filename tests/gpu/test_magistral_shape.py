"""On a real graphics card, with random weights of Magistral's width: load, peak memory and decoding against the plan."""

import json
from pathlib import Path

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
    from magistral_ui.engines.local.devices import find_device
    from magistral_ui.engines.local.forward import Part
    from magistral_ui.engines.local.loader import load
    from magistral_ui.engines.local.running import RunningModel
    from magistral_ui.models.folder import inspect_folder
    from magistral_ui.models.memory import SPARE, weight_bytes, working_bytes

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    facts, device = inspect_folder(folder), find_device("cuda")
    loaded = load(facts.card, folder, device, precision, "", lambda _: None)
    planned = weight_bytes(facts.shape, precision)
    held = torch.cuda.memory_allocated() - before
    assert held == pytest.approx(planned, rel=0.03)
    assert torch.cuda.max_memory_allocated() - before <= planned + max(f.stat().st_size for f in facts.weights)

    running = RunningModel(loaded, device)
    assert running.info.plan is not None
    torch.cuda.reset_peak_memory_stats()
    model, cache, tokens = running.scheduler._model, running.scheduler._model.new_cache(), 16_384
    for start in range(0, tokens, 2_048):
        model([Part(cache, [(start + i) % 2_000 for i in range(2_048)])])
    logits = model([Part(cache, [5])])
    assert torch.isfinite(logits).all()
    kv = int(SPARE * (tokens + 256) * running.info.plan.kv_per_token)
    assert torch.cuda.max_memory_allocated() - before <= held + kv + working_bytes(facts.shape, precision, "cuda")
    running.close()


def test_the_command_s_device_is_the_real_one() -> None:
    from magistral_ui.engines.local.devices import find_device

    found = find_device()
    assert (found.type, found.name) == ("cuda", torch.cuda.get_device_name(0))
    assert 0 < found.free <= found.total
