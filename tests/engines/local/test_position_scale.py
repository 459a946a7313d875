"""Ministral 3 scales its queries by position: our forward says what transformers says, far beyond the window too."""

import random
from collections.abc import Callable, Iterator
from copy import deepcopy

import pytest
import torch
from transformers import (
    Ministral3Config,
    Ministral3ForCausalLM,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralVisionConfig,
)
from transformers.models.ministral3.modeling_ministral3 import get_llama_4_attn_scale

from magistral_ui.engines.local.decode_step import DecodeStep
from magistral_ui.engines.local.decoder import Decoder, DecoderInput
from magistral_ui.engines.local.model_layers import query_scale
from magistral_ui.engines.local.paged_attention import ReferenceAttention
from magistral_ui.engines.weights.loader import Loaded
from tests.engines.local.fake_devices import CPU, Claims, claim

WINDOW = 24
VOCABULARY = 300


def text_config(window: int = WINDOW, layers: int = 3, heads: int = 4, head_dim: int = 32) -> Ministral3Config:
    """The 3B's own configuration with everything small but its rotary parameters."""
    return Ministral3Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        head_dim=head_dim,
        max_position_embeddings=16 * window,
        initializer_range=0.3,
        tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "yarn",
            "type": "yarn",
            "rope_theta": 1e6,
            "factor": 16.0,
            "original_max_position_embeddings": window,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.1,
        },
    )


def made(vision: bool) -> Mistral3ForConditionalGeneration | Ministral3ForCausalLM:
    torch.manual_seed(11)
    if not vision:
        return Ministral3ForCausalLM(text_config()).eval()
    tower = PixtralVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, head_dim=16, image_size=56
    )
    config = Mistral3Config(text_config=text_config().to_dict(), vision_config=tower.to_dict(), image_token_index=10)
    return Mistral3ForConditionalGeneration(config).eval()


@pytest.fixture(scope="module", params=[True, False], ids=["vision", "text"])
def theirs(request: pytest.FixtureRequest) -> Mistral3ForConditionalGeneration | Ministral3ForCausalLM:
    return made(request.param)


@pytest.fixture(scope="module")
def ours(theirs: torch.nn.Module) -> Decoder:
    return Decoder(deepcopy(theirs))  # our weights are laid out anew


def tokens(count: int, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    return [1, *(rng.randrange(20, VOCABULARY) for _ in range(count - 1))]


def expected(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([ids]), logits_to_keep=1).logits[0, -1]
    return logits


def same(got: torch.Tensor, wanted: torch.Tensor) -> bool:
    assert float(wanted.std()) > 0.5  # so large that a wrong scale would show
    return float((got - wanted).abs().max()) < 1e-4


def read(model: Decoder, ids: list[int], chunk: int = 17) -> torch.Tensor:
    cache = model.new_cache()
    for start in range(0, len(ids), chunk):
        logits = model([DecoderInput(cache, ids[start : start + chunk])])
    return logits[0]


@pytest.mark.parametrize("windows", [0.9, 1, 2, 5, 20])
def test_logits_equal_transformers(
    theirs: torch.nn.Module, ours: Decoder, windows: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = tokens(int(windows * WINDOW) + 1)
    wanted = expected(theirs, ids)
    assert same(read(ours, ids), wanted)
    monkeypatch.setattr(ours.layers, "_query_scale", None)
    assert same(read(ours, ids), wanted) == (windows < 1)  # the test can tell


@pytest.mark.parametrize("windows", [3, 18])
def test_a_reused_prefix_and_a_copy_go_on(theirs: torch.nn.Module, ours: Decoder, windows: int) -> None:
    """Also beyond 16 windows, where the rotary parameters end."""
    ids, other = tokens((windows + 2) * WINDOW + 7), tokens((windows + 2) * WINDOW + 9, 1)
    cache = ours.new_cache()
    ours([DecoderInput(cache, ids[: windows * WINDOW])])
    branch = cache.branch((windows - 1) * WINDOW + 5)
    ours([DecoderInput(cache, ids[windows * WINDOW : -1])])
    assert same(ours([DecoderInput(cache, ids[-1:])])[0], expected(theirs, ids))
    branched = ids[: branch.length] + other[branch.length :]
    ours([DecoderInput(branch, branched[branch.length : -1])])
    assert same(ours([DecoderInput(branch, branched[-1:])])[0], expected(theirs, branched))
    cache.crop(WINDOW - 1)
    assert same(ours([DecoderInput(cache, branched[WINDOW - 1 :])])[0], expected(theirs, branched))


@pytest.mark.parametrize("paged", [False, True])
def test_sequences_in_different_windows_share_a_step(
    theirs: torch.nn.Module, ours: Decoder, paged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if paged:
        step = DecodeStep(ours.layers, ours.pool, {ours.device: ReferenceAttention()})
        monkeypatch.setattr(ours, "_step", step)
    prompts = [tokens(count, count) for count in (3, WINDOW, 2 * WINDOW + 5, 17 * WINDOW)]
    caches = [ours.new_cache() for _ in prompts]
    for _ in range(3):
        ours([DecoderInput(cache, ids[cache.length :]) for cache, ids in zip(caches, prompts, strict=True)])
        for ids in prompts:
            ids.append(20 + len(ids) % 200)
        logits = ours([DecoderInput(cache, ids[-1:]) for cache, ids in zip(caches, prompts, strict=True)])
        for row, ids in zip(logits, prompts, strict=True):
            assert same(row, expected(theirs, ids))
        for ids in prompts:
            ids.extend(tokens(WINDOW, len(ids)))


def test_read_and_written_together(theirs: torch.nn.Module, ours: Decoder) -> None:
    written, partly, fresh = tokens(7 * WINDOW, 1), tokens(4 * WINDOW, 2), tokens(WINDOW + 3, 3)
    caches = [ours.new_cache() for _ in range(3)]
    ours([DecoderInput(caches[0], written[:-1]), DecoderInput(caches[1], partly[: 2 * WINDOW])])
    logits = ours(
        [
            DecoderInput(caches[0], written[-1:]),
            DecoderInput(caches[1], partly[2 * WINDOW :]),
            DecoderInput(caches[2], fresh),
        ]
    )
    for row, ids in zip(logits, (written, partly, fresh), strict=True):
        assert same(row, expected(theirs, ids))


@pytest.mark.parametrize("windows", [1, 2, 17])
def test_an_image_across_the_border_of_a_window(windows: int) -> None:
    """Its two tokens lie in two windows, and are read in two steps."""
    model = made(vision=True)
    mine, pixels = Decoder(deepcopy(model)), torch.randn(3, 32, 64)
    border = windows * WINDOW
    ids = tokens(border + WINDOW)
    ids[border - 1 : border + 1] = 10, 10
    features = mine.image_features(pixels)
    cache = mine.new_cache()
    mine([DecoderInput(cache, ids[: border - 5])])
    mine([DecoderInput(cache, ids[border - 5 : border], [(torch.tensor([4]), features[:1])])])
    logits = mine([DecoderInput(cache, ids[border:], [(torch.tensor([0]), features[1:])])])
    sizes = torch.tensor([[32, 64]])
    with torch.inference_mode():
        wanted = model(input_ids=torch.tensor([ids]), pixel_values=pixels[None], image_sizes=sizes).logits[0, -1]
    assert same(logits[0], wanted)
    assert not same(logits[0], expected(model, ids)), "the image matters"


@pytest.fixture
def spread() -> Iterator[Callable[[list[int]], Decoder]]:
    """Makes a model whose layers claim to lie on these graphics cards: an operation across two of them raises."""

    def placed(places: list[int]) -> Decoder:
        model = made(vision=False)
        for name, module in model.named_modules():
            layer = next((int(part) for part in name.split(".") if part.isdigit()), None)
            index = places[-1] if name == "model.norm" else 0 if layer is None else places[layer]
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                claim(tensor, torch.device("cuda", index))
        return Decoder(model)

    with Claims():
        yield placed


@pytest.mark.parametrize("paged", [False, True])
def test_the_scale_goes_with_the_layers(spread: Callable[[list[int]], Decoder], paged: bool) -> None:
    model = spread([0, 1, 1, 0])
    if paged:
        model.decode_with(dict.fromkeys(model.layers.devices, ReferenceAttention()))
    ids = tokens(6 * WINDOW)
    cache = model.new_cache()
    model([DecoderInput(cache, ids[:-2])])
    for token in ids[-2:]:
        logits = model([DecoderInput(cache, [token])])
    assert same(logits[0].to(CPU), expected(made(vision=False), ids))


def test_the_real_window() -> None:
    torch.manual_seed(5)
    model = Ministral3ForCausalLM(text_config(16_384, layers=1, heads=2, head_dim=16)).eval()
    ids = tokens(16_384 + 9)
    wanted = expected(model, ids)
    mine = Decoder(model)
    assert same(read(mine, ids, chunk=2_048), wanted)


def test_the_scale_is_transformers_own() -> None:
    scale = query_scale(text_config(16_384))
    assert scale is not None
    positions = torch.tensor([0, 1, 16_383, 16_384, 32_767, 32_768, 131_071, 262_143])
    assert torch.equal(scale(positions), get_llama_4_attn_scale(positions[None], 0.1, 16_384)[0, 0, :, 0])
    assert scale(positions).dtype == torch.float32


def test_magistral_has_none(vision_loaded: Loaded) -> None:
    """Not even a product with one: its numbers are what they were."""
    layers = Decoder(vision_loaded.model).layers
    assert len(layers.tables(layers.embed(torch.tensor([1, 2])), torch.tensor([0, 1]))) == 2
    plain = text_config()
    plain.rope_parameters["llama_4_scaling_beta"] = 0.0
    assert query_scale(plain) is None
