"""What llama.cpp holds where: published files, common hardware, layers on and beside GPUs; pure arithmetic."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magistral_ui.models.device_budget import DeviceBudget
from magistral_ui.models.gguf_buffers import POOL_STEP, kv_bytes_per_layer
from magistral_ui.models.gguf_plan import (
    MIN_GPU_SHARE,
    OFFLOAD_CONTEXT,
    QUANTIZATIONS,
    GGUFWeights,
    estimated_weights,
    needed_gguf_bytes,
    plan_gguf,
)
from magistral_ui.models.memory import GIB, GOOD_CONTEXT, MIN_CONTEXT, SMALL_IMAGE, MemoryPlan
from magistral_ui.models.shape import (
    MAGISTRAL_SMALL_1_2,
    MINISTRAL_3_3B_SHAPE,
    MINISTRAL_3_8B_SHAPE,
    MINISTRAL_3_14B_SHAPE,
    ModelShape,
)

RECOMMENDED = 131_072
SHAPES = {
    "24B": MAGISTRAL_SMALL_1_2,
    "14B": MINISTRAL_3_14B_SHAPE,
    "8B": MINISTRAL_3_8B_SHAPE,
    "3B": MINISTRAL_3_3B_SHAPE,
}
# Bytes of files on the Hub: of mistralai/Ministral-3-*-Reasoning-2512-GGUF and unsloth's Magistral and Mistral Small 3.1.
PUBLISHED = {
    ("24B", "Q2_K"): 8.9e9,
    ("24B", "Q3_K_S"): 10.4e9,
    ("24B", "Q3_K_M"): 11.5e9,
    ("24B", "Q4_K_M"): 14.334e9,
    ("24B", "Q5_K_M"): 16.8e9,
    ("24B", "Q6_K"): 19.3e9,
    ("24B", "Q8_0"): 25.1e9,
    ("24B", "BF16"): 47.2e9,
    ("14B", "Q4_K_M"): 8_239_591_488,
    ("14B", "Q5_K_M"): 9.62e9,
    ("14B", "Q6_K"): 11.09e9,
    ("14B", "Q8_0"): 14.36e9,
    ("14B", "BF16"): 27.02e9,
    ("8B", "Q4_K_M"): 5_198_910_368,
    ("8B", "Q5_K_M"): 6.06e9,
    ("8B", "Q8_0"): 9.03e9,
    ("3B", "Q4_K_M"): 2_147_021_472,
    ("3B", "Q5_K_M"): 2.47e9,
    ("3B", "Q8_0"): 3.65e9,
    ("3B", "BF16"): 6.87e9,
}


def card(gigabytes: float, host: float = 0, type: str = "cuda") -> DeviceBudget:
    return DeviceBudget(type, int(gigabytes * GIB), int(gigabytes * GIB), host=int(host * GIB))


def computer(free: float, total: float) -> DeviceBudget:
    return DeviceBudget("cpu", int(free * GIB), int(total * GIB))


def planned(shape: ModelShape, quantization: str, place: DeviceBudget, context: int | None = None) -> MemoryPlan:
    weights = estimated_weights(shape, quantization)
    return plan_gguf(shape, weights, place, context=context, recommended=RECOMMENDED)


@pytest.mark.parametrize(("size", "quantization"), PUBLISHED)
def test_published_files_are_as_large_as_estimated(size: str, quantization: str) -> None:
    weights = estimated_weights(SHAPES[size], quantization, mmproj=False)
    stored = sum(weights.layers) + weights.embedding + (0 if weights.tied else weights.head)
    assert stored == pytest.approx(PUBLISHED[size, quantization], rel=0.012)


def test_the_projector_is_in_16_bits() -> None:
    """As mmproj-…-F16.gguf of the 3B, which is 840,297,088 bytes long."""
    assert estimated_weights(MINISTRAL_3_3B_SHAPE, "Q4_K_M").mmproj == pytest.approx(840_297_088, rel=0.001)
    assert estimated_weights(MINISTRAL_3_3B_SHAPE, "Q4_K_M", mmproj=False).mmproj == 0


def test_quantizations_are_named_from_the_most_exact_to_the_coarsest() -> None:
    assert list(QUANTIZATIONS.values()) == sorted(QUANTIZATIONS.values(), reverse=True)


def test_a_token_of_magistral_takes_160_kib_or_85_in_q8_0() -> None:
    assert 40 * kv_bytes_per_layer(MAGISTRAL_SMALL_1_2, "f16") == 163_840
    assert 40 * kv_bytes_per_layer(MAGISTRAL_SMALL_1_2, "q8_0") == 163_840 * 17 // 32


# Contexts in thousands of tokens, keys and values and the image side, of unused devices; 0: it does not fit.
@pytest.mark.parametrize(
    ("place", "size", "quantization", "thousands", "kv_type"),
    [
        (card(8), "3B", "Q8_0", 41, "q8_0"),
        (card(8), "3B", "Q4_K_M", 57, "q8_0"),
        (card(8), "8B", "Q4_K_M", 15, "q8_0"),
        (card(8), "14B", "Q4_K_M", 0, ""),
        (card(12), "8B", "Q6_K", 41, "q8_0"),
        (card(12), "14B", "Q4_K_M", 25, "q8_0"),
        (card(12), "24B", "Q3_K_M", 0, ""),
        (card(16), "14B", "Q6_K", 41, "q8_0"),
        (card(16), "24B", "Q3_K_M", 33, "q8_0"),
        (card(16), "24B", "Q4_K_M", 5, "q8_0"),
        (card(24), "24B", "Q4_K_M", 49, "f16"),
        (card(24), "24B", "Q6_K", 41, "q8_0"),
        (card(32), "24B", "Q6_K", 69, "f16"),
        (card(48), "24B", "Q8_0", 128, "f16"),
        (card(80), "24B", "BF16", 128, "f16"),
        (card(10.67, type="mps"), "8B", "Q6_K", 30, "q8_0"),  # 16 GB
        (card(16, type="mps"), "24B", "Q3_K_M", 33, "q8_0"),  # 24 GB
        (card(21.33, type="mps"), "24B", "Q4_K_M", 59, "q8_0"),  # 32 GB
        (card(48, type="mps"), "24B", "Q8_0", 128, "f16"),  # 64 GB
        (card(96, type="mps"), "24B", "BF16", 128, "f16"),  # 128 GB
        (computer(13, 16), "3B", "Q4_K_M", 40, "f16"),
        (computer(13, 16), "8B", "Q4_K_M", 38, "q8_0"),
        (computer(13, 16), "14B", "Q4_K_M", 17, "q8_0"),
        (computer(13, 16), "24B", "Q4_K_M", 0, ""),
        (computer(28, 32), "24B", "Q4_K_M", 38, "f16"),
        (computer(56, 64), "24B", "Q8_0", 40, "f16"),
    ],
)
def test_what_fits_on_common_hardware(
    place: DeviceBudget, size: str, quantization: str, thousands: int, kv_type: str
) -> None:
    plan = planned(SHAPES[size], quantization, place)
    if not thousands:
        assert plan.context < MIN_CONTEXT
        return
    assert (plan.context // 1_024, plan.kv_type) == (thousands, kv_type)
    assert plan.gpu_layers == (0 if place.type == "cpu" else SHAPES[size].layers + 1)
    assert plan.precision == quantization


def test_everything_planned_is_there() -> None:
    for place in (card(12), card(24), card(80), card(16, type="mps"), computer(28, 32), computer(13, 16)):
        for size, shape in SHAPES.items():
            plan = planned(shape, "Q4_K_M", place)
            if not plan.context:
                continue
            half = plan.kv_bytes if place.type == "cpu" else 0
            taken = plan.weights + plan.working + plan.margin + plan.kv_bytes
            assert taken + half <= place.free, (place, size)
            assert plan.kv_bytes % (plan.kv_per_token * POOL_STEP) == 0
            assert plan.context * plan.kv_per_token <= plan.kv_bytes


@given(
    st.lists(st.integers(3, 40), min_size=1, max_size=4),
    st.sampled_from(["Q8_0", "Q4_K_M", "Q2_K"]),
    st.sampled_from(sorted(SHAPES)),
    st.integers(0, 64),
)
def test_no_gpu_and_no_computer_is_planned_beyond_its_bytes(
    gigabytes: list[int], quantization: str, size: str, host: int
) -> None:
    places = tuple(map(card, sorted(gigabytes, reverse=True)))
    place = replace(places[0], others=places[1:], host=host * GIB)
    plan = planned(SHAPES[size], quantization, place)
    if plan.context < MIN_CONTEXT or not plan.gpu_layers:
        return
    assert sum(share.layers for share in plan.shares) == plan.gpu_layers - 1
    for share, each in zip(plan.shares, places, strict=False):
        assert share.weights + share.working + share.margin + share.kv_bytes <= each.free
    if plan.gpu_layers <= SHAPES[size].layers:
        assert plan.in_ram <= host * GIB


def test_layers_that_do_not_fit_stay_in_ram_if_it_pays() -> None:
    plan = planned(MAGISTRAL_SMALL_1_2, "Q4_K_M", card(12, host=24))
    assert plan.gpu_layers is not None
    assert MIN_GPU_SHARE * 40 < plan.gpu_layers < 40
    assert plan.context == OFFLOAD_CONTEXT
    weights = estimated_weights(MAGISTRAL_SMALL_1_2, "Q4_K_M")
    assert plan.in_ram > sum(weights.layers[: 41 - plan.gpu_layers])
    assert planned(MAGISTRAL_SMALL_1_2, "Q4_K_M", card(12, host=4)).context == 0, "there is no room for them"
    assert planned(MAGISTRAL_SMALL_1_2, "Q4_K_M", card(12, host=24, type="mps")).gpu_layers == 0, "it is the same RAM"


def test_too_few_layers_on_a_gpu_are_not_worth_it() -> None:
    plan = planned(MAGISTRAL_SMALL_1_2, "Q4_K_M", card(4, host=28))
    assert (plan.gpu_layers, plan.context > OFFLOAD_CONTEXT) == (0, True)


def test_a_better_context_is_not_worth_leaving_layers_in_ram() -> None:
    """The 14B in Q4_K_M has 26,368 tokens on 12 GB, all on the GPU."""
    plan = planned(MINISTRAL_3_14B_SHAPE, "Q4_K_M", card(12, host=24))
    assert plan.gpu_layers == 41
    assert OFFLOAD_CONTEXT < plan.context < GOOD_CONTEXT
    asked = planned(MINISTRAL_3_14B_SHAPE, "Q4_K_M", card(12, host=24), context=65_536)
    assert asked.gpu_layers is not None
    assert (asked.context, asked.gpu_layers < 41) == (65_536, True), "somebody wants it"


def test_several_gpus_share_the_layers_by_what_is_free() -> None:
    plan = planned(MAGISTRAL_SMALL_1_2, "Q4_K_M", replace(card(16), others=(card(12),)))
    first, second = (share.layers for share in plan.shares)
    assert first + second == 40
    assert first > second
    assert planned(MAGISTRAL_SMALL_1_2, "Q4_K_M", replace(card(24), others=(card(24),))).shares[0].layers == 40


def test_more_memory_never_means_less_of_anything() -> None:
    plans = [planned(MAGISTRAL_SMALL_1_2, "Q4_K_M", card(size)) for size in range(8, 81)]
    whole = [plan.context for plan in plans if plan.kv_type == "f16"]
    assert whole == sorted(whole)
    assert whole[-1] == RECOMMENDED


def test_f16_is_kept_where_it_leaves_a_good_context_and_where_it_is_asked_for() -> None:
    weights = estimated_weights(MAGISTRAL_SMALL_1_2, "Q4_K_M")
    plan = plan_gguf(MAGISTRAL_SMALL_1_2, weights, card(20), kv_type="f16", recommended=RECOMMENDED)
    auto = plan_gguf(MAGISTRAL_SMALL_1_2, weights, card(20), recommended=RECOMMENDED)
    assert (plan.kv_type, auto.kv_type) == ("f16", "q8_0")
    assert plan.context < GOOD_CONTEXT < auto.context
    assert plan_gguf(MAGISTRAL_SMALL_1_2, weights, card(80), kv_type="q8_0").kv_type == "q8_0"


def test_without_a_projector_nothing_is_kept_for_images() -> None:
    weights = estimated_weights(MINISTRAL_3_8B_SHAPE, "Q4_K_M", mmproj=False)
    plan = plan_gguf(MINISTRAL_3_8B_SHAPE, weights, card(8))
    assert plan.image_side == 0
    assert plan.context > planned(MINISTRAL_3_8B_SHAPE, "Q4_K_M", card(8)).context
    assert planned(MINISTRAL_3_8B_SHAPE, "Q4_K_M", card(8)).image_side == SMALL_IMAGE


def test_the_pool_of_a_processor_is_no_longer_than_of_use() -> None:
    """llama.cpp takes it all when the model is loaded."""
    place = computer(56, 64)
    assert planned(MINISTRAL_3_3B_SHAPE, "Q4_K_M", place).context == GOOD_CONTEXT
    asked = planned(MINISTRAL_3_3B_SHAPE, "Q4_K_M", place, context=100_000)
    assert asked.context == 100_000
    assert asked.kv_bytes // asked.kv_per_token == 100_096
    small = planned(MINISTRAL_3_3B_SHAPE, "Q4_K_M", place, context=4_000)
    assert (small.context, small.slots) == (4_000, 1)


def test_others_have_room_beside_the_longest_conversation_on_a_gpu() -> None:
    plan = planned(MINISTRAL_3_3B_SHAPE, "Q4_K_M", card(80), context=16_384)
    assert (plan.context, plan.slots) == (16_384, 8)
    assert plan.kv_bytes // plan.kv_per_token == 16_384 + 7 * 8_192


@pytest.mark.parametrize("type", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize("size", sorted(SHAPES))
def test_what_is_needed_is_just_what_fits(type: str, size: str) -> None:
    weights = estimated_weights(SHAPES[size], "Q4_K_M")
    needed = needed_gguf_bytes(SHAPES[size], weights, type)
    total = max(needed, 16 * GIB) if type == "cpu" else needed
    enough = plan_gguf(SHAPES[size], weights, DeviceBudget(type, needed, total))
    assert MIN_CONTEXT <= enough.context < MIN_CONTEXT + 2 * POOL_STEP
    less = DeviceBudget(type, needed - GIB // 4, total)
    assert plan_gguf(SHAPES[size], weights, less).context < MIN_CONTEXT


def test_the_files_own_bytes_are_planned_with() -> None:
    layers = tuple(range(1_000, 1_040))
    weights = GGUFWeights("Q4_K_M", layers, 50_000, 70_000)
    plan = plan_gguf(MAGISTRAL_SMALL_1_2, weights, computer(28, 32))
    assert plan.weights == sum(layers) + 50_000 + 70_000
    tied = plan_gguf(MAGISTRAL_SMALL_1_2, replace(weights, tied=True), computer(28, 32))
    assert tied.weights == sum(layers) + 50_000
    on_gpu = plan_gguf(MAGISTRAL_SMALL_1_2, replace(weights, tied=True), card(24))
    assert (on_gpu.weights, on_gpu.in_ram > 50_000) == (sum(layers) + 70_000, True)
