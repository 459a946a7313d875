"""One ragged forward gives what transformers gives, however the tokens are cut and whoever else is in it."""

import random
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.engines.local import attention as attention_module
from magistral_ui.engines.local.attention import SegmentAttention
from magistral_ui.engines.local.decoder import Decoder, DecoderInput
from magistral_ui.engines.local.paged_attention import ReferenceAttention
from magistral_ui.engines.local.tokenizer import EncodedPrompt, Tokenizer
from magistral_ui.engines.weights.loader import Loaded
from magistral_ui.engines.weights.packing import can_pack, pack_linears, packed_like
from magistral_ui.engines.weights.quantization import held_bytes
from magistral_ui.models.cards import DEMO
from magistral_ui.models.device_budget import DeviceBudget
from magistral_ui.models.memory import GIB, plan
from magistral_ui.models.shape import attention_bytes, queries_at_once, read_shape
from tests.engines.conftest import load_folder

ROTARY_BYTES = 2 * 16 * 4
"""The rotary tables of a head of 32, which no plan counts."""


@pytest.fixture(scope="module")
def encoder(vision_loaded: Loaded) -> Tokenizer:
    return Tokenizer(vision_loaded.tekken, DEMO, vision_loaded.system)


@pytest.fixture(scope="module")
def untouched(vision_folder: Path) -> Loaded:
    """transformers' own model, whose layers were not repacked by ours."""
    return load_folder(vision_folder)


def reference(loaded: Loaded, prompt: EncodedPrompt) -> torch.Tensor:
    """transformers' logits behind the prompt."""
    inputs: dict = {"input_ids": torch.tensor([prompt.ids])}
    pixels = [torch.from_numpy(span.input.pixels) for span in prompt.image_spans if span.input.pixels is not None]
    if pixels:
        height, width = max(p.shape[1] for p in pixels), max(p.shape[2] for p in pixels)
        padded = torch.zeros(len(pixels), 3, height, width)
        for i, p in enumerate(pixels):
            padded[i, :, : p.shape[1], : p.shape[2]] = p
        inputs |= {"pixel_values": padded, "image_sizes": torch.tensor([p.shape[-2:] for p in pixels])}
    with torch.inference_mode():
        return loaded.model(**inputs).logits[0, -1]


def ours(model: Decoder, loaded: Loaded, prompts: list[EncodedPrompt], rng: random.Random) -> list[torch.Tensor]:
    """Logits behind each prompt, read together in random pieces."""
    caches = [model.new_cache() for _ in prompts]
    done = [0] * len(prompts)
    last: list[torch.Tensor] = [torch.empty(0)] * len(prompts)
    while any(d < len(p.ids) for d, p in zip(done, prompts, strict=True)):
        open_ = [i for i, p in enumerate(prompts) if done[i] < len(p.ids)]
        chosen = rng.sample(open_, rng.randint(1, len(open_)))
        parts = []
        for i in chosen:
            count = min(rng.choice([1, 2, 7, 40]), len(prompts[i].ids) - done[i])
            parts.append(part(model, loaded, prompts[i], caches[i], done[i], count))
            done[i] += count
        for i, logits in zip(chosen, model(parts), strict=True):
            last[i] = logits
    return last


def part(model: Decoder, loaded: Loaded, prompt: EncodedPrompt, cache, first: int, count: int) -> DecoderInput:  # type: ignore[no-untyped-def]
    out = DecoderInput(cache, prompt.ids[first : first + count])
    for span in prompt.image_spans:
        features = model.image_features(torch.from_numpy(span.input.pixels))
        image = [i for i, token in enumerate(span.input.tokens) if token == loaded.image_token]
        inside = [(n, span.start + i - first) for n, i in enumerate(image) if 0 <= span.start + i - first < count]
        if inside:
            rows = torch.tensor([row for _, row in inside])
            out.features.append((rows, features[[n for n, _ in inside]]))
    return out


@pytest.mark.parametrize("seed", range(8))
def test_logits_equal_transformers(
    vision_loaded: Loaded, untouched: Loaded, encoder: Tokenizer, paint: Callable[..., ImageFile], seed: int
) -> None:
    rng = random.Random(seed)
    model = Decoder(vision_loaded.model)
    prompts = []
    for n in range(3):
        images = tuple(paint(rng.randint(30, 250), rng.randint(30, 250), n + i) for i in range(rng.randint(0, 2)))
        text = " ".join(rng.choices(["one", "2", "drei", "quatre?", "\n"], k=rng.randint(1, 30)))
        prompts.append(encoder.encode(Prompt(DEMO.system(), (UserTurn(text, images),))))
    with torch.inference_mode():
        got = ours(model, vision_loaded, prompts, rng)
    for logits, prompt in zip(got, prompts, strict=True):
        expected = reference(untouched, prompt)
        assert torch.allclose(logits, expected, atol=1e-3, rtol=1e-4)
        assert float(expected.std()) > 0.5  # weights of a size that a wrong position would show


def test_text_only_model(text_folder: Path) -> None:
    text_loaded = load_folder(text_folder)
    ids = [1, *range(100, 160)]
    with torch.inference_mode():
        expected = text_loaded.model(torch.tensor([ids])).logits[0, -1]
    model = Decoder(text_loaded.model)
    cache = model.new_cache()
    model([DecoderInput(cache, ids[:33])])
    logits = model([DecoderInput(cache, ids[33:])])[0]
    assert torch.allclose(logits, expected, atol=1e-3)
    with pytest.raises(ValueError, match="vision"):
        model.image_features(torch.zeros(3, 28, 28))


def test_a_cropped_cache_continues_like_a_fresh_one(vision_loaded: Loaded) -> None:
    model = Decoder(vision_loaded.model)
    ids = [1, *range(200, 300)]
    cache = model.new_cache()
    model([DecoderInput(cache, ids)])
    copy = cache.branch(50)
    cache.crop(20)
    fresh = model.new_cache()
    model([DecoderInput(fresh, ids[:20])])
    model([DecoderInput(cache, ids[20:40])])
    model([DecoderInput(fresh, ids[20:40])])
    again, other = model([DecoderInput(cache, [7]), DecoderInput(fresh, [7])])
    assert torch.allclose(again, other, atol=1e-5)
    assert copy.length == 50
    assert cache.length == 41
    assert copy.nbytes == model.pool.page_bytes == 2 * 3 * 2 * 256 * 32 * 4
    assert copy.pages[0] not in cache.pages, "who writes into a shared page first copies it"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_layers_say_the_same(dtype: torch.dtype) -> None:
    if not can_pack(dtype):
        pytest.skip(f"this processor does not pack {dtype}")
    torch.manual_seed(3)
    layers = torch.nn.Sequential(
        torch.nn.Linear(64, 96, bias=False), torch.nn.Linear(96, 8), torch.nn.Linear(8, 40, bias=False)
    ).to(dtype)
    rows = torch.randn(5, 64, dtype=dtype)
    with torch.inference_mode():
        before = layers(rows)
        assert pack_linears(layers) == 2  # the one with a bias stays
        assert torch.allclose(layers(rows), before, atol=1e-2 if dtype == torch.bfloat16 else 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_joined_layers_say_the_same(dtype: torch.dtype) -> None:
    """To the last bit, and in as many bytes."""
    if not can_pack(dtype):
        pytest.skip(f"this processor does not pack {dtype}")
    torch.manual_seed(4)
    mlp = torch.nn.ModuleDict({name: torch.nn.Linear(64, 96, bias=False) for name in ("gate_proj", "up_proj")}).to(
        dtype
    )
    rows, held = torch.randn(5, 64, dtype=dtype), held_bytes(mlp)
    with torch.inference_mode():
        apart = [packed_like(each)(rows) for each in mlp.values()]
        assert pack_linears(mlp) == 2
        assert torch.equal(mlp["gate_up_proj"](rows), torch.cat(apart, -1))
    assert list(mlp) == ["gate_up_proj"]
    assert held_bytes(mlp) == held


@pytest.mark.parametrize("tied", [False, True])
def test_a_packed_head_is_kept_once_or_counted(tied: bool) -> None:
    config = MistralConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        tie_word_embeddings=tied,
    )
    model = MistralForCausalLM(config).eval()
    if not can_pack(torch.float32):
        pytest.skip("this processor does not pack")
    head = weakref.ref(model.lm_head.weight)
    decoder = Decoder(model)
    assert decoder.copied_bytes == (128 * 64 * 4 if tied else 0)
    assert (head() is not None) == tied, "an original that nothing needs is not kept"
    shape = read_shape(config.to_dict())
    planned = plan(shape, "float32", DeviceBudget("cpu", GIB, GIB))
    assert planned.weights == held_bytes(MistralForCausalLM(config)) - ROTARY_BYTES + decoder.copied_bytes


def step(model: Decoder, batches: list[list[int]]) -> torch.Tensor:
    """Three decode steps of sequences of different lengths; the last logits."""
    caches = [model.new_cache() for _ in batches]
    model([DecoderInput(cache, ids[:-3]) for cache, ids in zip(caches, batches, strict=True)])
    for back in (3, 2, 1):
        logits = model([DecoderInput(cache, [ids[-back]]) for cache, ids in zip(caches, batches, strict=True)])
    return logits


def on_a_gpu(model: Decoder) -> Decoder:
    """The same decoder with the attention that a GPU has where no kernel takes all rows in one call."""
    model._attention = SegmentAttention(model.pool, model.layers.devices[:-1])
    return model


def test_segments_say_the_same(vision_loaded: Loaded) -> None:
    """Prompts, chunks behind a prefix and single tokens, in pages that follow on each other and in others."""
    exact, model = Decoder(vision_loaded.model), on_a_gpu(Decoder(vision_loaded.model))
    ids, others = [1, *range(100, 460)], [1, *range(40, 70)]
    for scattered in (False, True):
        said = []
        for each in (exact, model):
            caches = [each.new_cache(), each.new_cache()]
            if scattered:
                caches[0].pages = each.pool.take(1, 7) + each.pool.take(1, 3)
            logits = []
            for first, last in ((0, 250), (250, 300), (300, 301), (301, 361)):
                parts = [DecoderInput(caches[0], ids[first:last])]
                parts += [DecoderInput(caches[1], others[first // 50 : first // 50 + 1])]
                logits.append(each(parts))
            said.append(torch.stack(logits))
        assert torch.allclose(said[1], said[0], atol=1e-3)


def test_a_decode_step_says_the_same(vision_loaded: Loaded) -> None:
    """All rows in one call over block tables: sequences of different lengths, branches, and tokens with their drafts."""
    exact, paged = Decoder(vision_loaded.model), Decoder(vision_loaded.model)
    prompts = [[1, *range(100, 130)], [1, *range(40, 340)], [1, 5, 6]]
    said = []
    for model in (exact, paged):
        caches = [model.new_cache() for _ in prompts]
        model([DecoderInput(cache, ids) for cache, ids in zip(caches, prompts, strict=True)])
        caches.append(caches[1].branch(290))
        if model is paged:
            model.decode_with({model.device: ReferenceAttention()})
        logits = [model([DecoderInput(cache, [7]) for cache in caches])]
        parts = [DecoderInput(cache, [9, 10, 11][: n % 3 + 1], wanted=n % 3 + 1) for n, cache in enumerate(caches)]
        logits.append(model(parts))
        caches[2].crop(4)
        logits.append(model([DecoderInput(cache, [12]) for cache in caches[::-1]]))
        said.append(torch.cat(logits))
    assert said[0].shape[0] == 4 + 7 + 4
    assert torch.allclose(said[1], said[0], atol=1e-3)


@pytest.mark.parametrize("at_once", [1, 7, 1_000])
def test_scores_in_blocks_say_the_same(vision_loaded: Loaded, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    """What cards before compute 8.0 get, which have no fused kernel: a bounded number of queries at a time."""
    ids, said = [1, *range(100, 160)], []
    for fused in (True, False):
        monkeypatch.setattr(attention_module, "has_fused_attention", lambda _, fused=fused: fused)
        monkeypatch.setattr(attention_module, "queries_at_once", lambda heads, keys: at_once)
        model = on_a_gpu(Decoder(vision_loaded.model))
        cache = model.new_cache()
        said.append([model([DecoderInput(cache, ids[a:b])]) for a, b in ((0, 20), (20, 60), (60, 61))])
    for block, whole in zip(*said, strict=True):
        assert torch.allclose(block, whole, atol=1e-3)


def test_scores_are_bounded() -> None:
    for heads, keys in ((32, 100), (32, 8_192), (32, 131_072)):
        held = 12 * heads * keys * queries_at_once(heads, keys)
        assert held <= attention_bytes(False, heads, 131_072) <= 2**28
    assert attention_bytes(True, 32, 131_072) == 0
