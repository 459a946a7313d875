"""What fits where: the arithmetic of the plan, on Magistral's shape and on small ones."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magistral_ui.models.device_budget import DeviceBudget
from magistral_ui.models.memory import (
    GIB,
    MIN_CONTEXT,
    SMALL_IMAGE,
    best_plan,
    fits,
    needed_bytes,
    plan,
    plan_loaded,
    with_less,
)
from magistral_ui.models.shape import (
    MAGISTRAL_SMALL_1_2,
    MAGISTRAL_SMALL_TEXT,
    MINISTRAL_3_3B_SHAPE,
    SCORE_BYTES,
    ModelShape,
    kv_bytes_per_token,
    prefill_bytes,
    read_shape,
    weight_bytes,
    working_bytes,
)

SMALL = ModelShape(1_000, 64, 96, 2, 4, 2, 16, True, 4_096)


def card(gigabytes: int) -> DeviceBudget:
    return DeviceBudget("cuda", gigabytes * GIB, gigabytes * GIB)


def test_magistral_s_parameters_are_those_of_its_files() -> None:
    assert MAGISTRAL_SMALL_1_2.parameters == 24_011_361_280
    assert weight_bytes(MAGISTRAL_SMALL_1_2, "bfloat16") == 48_022_722_560
    assert MAGISTRAL_SMALL_TEXT.parameters == 23_572_403_200


def test_a_token_of_magistral_takes_160_kib() -> None:
    assert kv_bytes_per_token(MAGISTRAL_SMALL_1_2, "nf4") == 163_840


def test_the_small_configuration_of_the_hub_file_gives_magistral_s_shape() -> None:
    """As mistralai/Mistral-Small-3.1-24B-Instruct-2503 has it, whose architecture is the same."""
    text = {
        "head_dim": 128,
        "hidden_size": 5120,
        "intermediate_size": 32768,
        "max_position_embeddings": 131072,
        "num_attention_heads": 32,
        "num_hidden_layers": 40,
        "num_key_value_heads": 8,
        "vocab_size": 131072,
    }
    vision = {"hidden_size": 1024, "image_size": 1540, "intermediate_size": 4096, "patch_size": 14}
    assert read_shape({"text_config": text, "vision_config": vision}, has_head=True) == MAGISTRAL_SMALL_1_2
    assert read_shape(text) == MAGISTRAL_SMALL_TEXT


def test_the_weights_files_are_believed_before_the_configuration() -> None:
    config = {"text_config": {}, "tie_word_embeddings": True}
    assert read_shape(config).tied
    assert not read_shape(config, has_head=True).tied


@pytest.mark.parametrize(
    ("gigabytes", "precision"), [(16, "nf4"), (24, "nf4"), (32, "nf4"), (48, "nf4"), (80, "bfloat16")]
)
def test_the_best_precision_of_usual_graphics_cards(gigabytes: int, precision: str) -> None:
    best = best_plan(MAGISTRAL_SMALL_1_2, card(gigabytes))
    assert best.precision == precision
    assert fits(MAGISTRAL_SMALL_1_2, best) == (gigabytes > 16)


def test_everything_planned_is_there() -> None:
    for gigabytes in (24, 32, 48, 80):
        place = card(gigabytes)
        best = best_plan(MAGISTRAL_SMALL_1_2, place)
        assert best.weights + best.working + best.margin + best.kv_bytes <= place.free
        assert best.context * best.kv_per_token <= best.kv_bytes


@pytest.mark.parametrize(
    ("gigabytes", "precision", "layers"),
    [
        ((24, 24), "nf4", (40,)),
        ((16, 16), "nf4", (19, 21)),
        ((48, 48), "bfloat16", (20, 20)),
        ((16, 12), "nf4", (23, 17)),
        ((12, 12, 8), "nf4", (14, 18, 8)),
        ((80, 24), "bfloat16", (40,)),
        ((24, 6), "nf4", (40,)),
    ],
)
def test_layers_are_divided_so_that_the_longest_context_fits(
    gigabytes: tuple[int, ...], precision: str, layers: tuple[int, ...]
) -> None:
    first, *others = map(card, gigabytes)
    best = best_plan(MAGISTRAL_SMALL_1_2, replace(first, others=tuple(others)))
    assert fits(MAGISTRAL_SMALL_1_2, best)
    assert (best.precision, tuple(share.layers for share in best.shares)) == (precision, layers)


@given(st.lists(st.integers(2, 60), min_size=1, max_size=5), st.sampled_from(["bfloat16", "int8", "nf4"]))
def test_no_device_is_planned_beyond_its_bytes(gigabytes: list[int], precision: str) -> None:
    places = tuple(map(card, sorted(gigabytes, reverse=True)))
    planned = plan(MAGISTRAL_SMALL_1_2, precision, replace(places[0], others=places[1:]))
    assert sum(share.layers for share in planned.shares) == 40
    assert sum(share.weights for share in planned.shares) == weight_bytes(MAGISTRAL_SMALL_1_2, precision)
    if planned.context:
        for share, place in zip(planned.shares, places, strict=False):
            assert share.weights + share.working + share.margin + share.kv_bytes <= place.free
            assert planned.context * planned.kv_per_token * share.layers // 40 <= share.kv_bytes
    alone = plan(MAGISTRAL_SMALL_1_2, precision, places[0])
    assert planned.context >= alone.context


def test_a_spread_model_is_planned_alike_before_and_after_loading() -> None:
    first, second = card(24), card(16)
    before = plan(MAGISTRAL_SMALL_1_2, "int8", replace(first, others=(second,)))
    layers = tuple(share.layers for share in before.shares)
    now = [replace(p, free=p.free - s.weights) for p, s in zip((first, second), before.shares, strict=True)]
    place = replace(now[0], others=(now[1],))
    assert plan_loaded(MAGISTRAL_SMALL_1_2, "int8", place, layers, before.weights) == before


def test_more_memory_never_means_less_context() -> None:
    contexts = [plan(MAGISTRAL_SMALL_1_2, "nf4", card(size)).context for size in range(12, 81)]
    assert contexts == sorted(contexts)
    assert contexts[0] == 0
    assert contexts[-1] == MAGISTRAL_SMALL_1_2.context_length


@pytest.mark.parametrize("precision", ["nf4", "int8", "bfloat16"])
@pytest.mark.parametrize("type", ["cuda", "mps", "cpu"])
def test_what_is_needed_is_just_what_fits(precision: str, type: str) -> None:
    needed = needed_bytes(MAGISTRAL_SMALL_1_2, precision, type)
    enough = plan(MAGISTRAL_SMALL_1_2, precision, DeviceBudget(type, needed, needed))
    assert MIN_CONTEXT <= enough.context < MIN_CONTEXT + 500
    less = needed - GIB // 4
    assert plan(MAGISTRAL_SMALL_1_2, precision, DeviceBudget(type, less, less)).context < MIN_CONTEXT


def test_a_processor_may_give_less_to_keys_and_values() -> None:
    planned = plan(SMALL, "float32", DeviceBudget("cpu", 16 * GIB, 16 * GIB))
    less = with_less(SMALL, planned, 100 * 4_096 * planned.kv_per_token)
    assert (less.visitors, less.context) == (100, planned.context)
    assert sum(share.kv_bytes for share in less.shares) == less.kv_bytes
    assert with_less(SMALL, planned, 2**60) == planned


def test_what_others_use_is_not_planned_with() -> None:
    alone = plan(MAGISTRAL_SMALL_1_2, "nf4", DeviceBudget("cuda", 24 * GIB, 24 * GIB))
    shared = plan(MAGISTRAL_SMALL_1_2, "nf4", DeviceBudget("cuda", 21 * GIB, 24 * GIB))
    assert alone.kv_bytes - shared.kv_bytes == 3 * GIB


def test_loaded_weights_are_not_counted_twice() -> None:
    before = plan(MAGISTRAL_SMALL_1_2, "nf4", card(24))
    now = DeviceBudget("cuda", 24 * GIB - before.weights, 24 * GIB)
    assert plan_loaded(MAGISTRAL_SMALL_1_2, "nf4", now, (40,), before.weights) == before


def test_a_small_model_runs_in_full_precision_wherever_it_is() -> None:
    best = best_plan(SMALL, DeviceBudget("cpu", GIB, 4 * GIB))
    assert (best.precision, best.context) == ("float32", SMALL.context_length)
    assert fits(SMALL, best)


def test_a_graphics_card_gets_int8_only_when_it_is_asked_for() -> None:
    assert {best_plan(MAGISTRAL_SMALL_1_2, card(size)).precision for size in range(12, 141, 4)} == {"nf4", "bfloat16"}
    assert plan(MAGISTRAL_SMALL_1_2, "int8", card(48)).precision == "int8"


@pytest.mark.parametrize("gigabytes", [(24,), (48,), (48, 48), (24, 12), (141,)])
@pytest.mark.parametrize("precision", ["nf4", "bfloat16"])
def test_a_card_without_fused_attention_keeps_room_for_its_scores(gigabytes: tuple[int, ...], precision: str) -> None:
    places = tuple(replace(card(size), fused=False) for size in gigabytes)
    place = replace(places[0], others=places[1:])
    planned = plan(MAGISTRAL_SMALL_1_2, precision, place)
    if len(gigabytes) == 1:
        assert planned.context <= plan(MAGISTRAL_SMALL_1_2, precision, card(gigabytes[0])).context
    if not planned.context:
        return
    for share, each in zip(planned.shares, places, strict=False):
        assert share.working >= prefill_bytes(MAGISTRAL_SMALL_1_2, precision, 2_048) + SCORE_BYTES
        assert share.weights + share.working + share.margin + share.kv_bytes <= each.free
    assert planned.kv_bytes >= planned.context * planned.kv_per_token


def test_what_a_card_without_fused_attention_needs_is_just_what_fits() -> None:
    needed = needed_bytes(MAGISTRAL_SMALL_1_2, "nf4", fused=False)
    enough = plan(MAGISTRAL_SMALL_1_2, "nf4", DeviceBudget("cuda", needed, needed, fused=False))
    assert MIN_CONTEXT <= enough.context < MIN_CONTEXT + 500
    assert needed > needed_bytes(MAGISTRAL_SMALL_1_2, "nf4")


def test_apples_gpu_keeps_room_for_its_scores() -> None:
    text, there = MAGISTRAL_SMALL_TEXT, [working_bytes(MAGISTRAL_SMALL_TEXT, "nf4", type) for type in ("cuda", "mps")]
    assert there[1] - there[0] == SCORE_BYTES
    assert working_bytes(text, "nf4", "cuda", fused=False) == there[1]


def test_a_processor_never_gets_int8() -> None:
    assert {
        best_plan(MAGISTRAL_SMALL_1_2, DeviceBudget("cpu", n * GIB, n * GIB)).precision for n in range(8, 129, 8)
    } == {
        "nf4",
        "bfloat16",
    }


def test_images_cost_the_text_models_nothing() -> None:
    with_images = plan(MAGISTRAL_SMALL_1_2, "nf4", card(24))
    assert plan(MAGISTRAL_SMALL_TEXT, "nf4", card(24)).context > with_images.context


def test_a_small_card_takes_smaller_images_for_a_longer_context() -> None:
    large, small = (plan(MINISTRAL_3_3B_SHAPE, "nf4", card(size)) for size in (12, 8))
    assert (large.image_side, small.image_side) == (1_540, SMALL_IMAGE)
    assert small == plan(MINISTRAL_3_3B_SHAPE.with_images(SMALL_IMAGE), "nf4", card(8))
    assert large.working - small.working > GIB // 2
    assert plan(MAGISTRAL_SMALL_TEXT, "nf4", card(16)).image_side == 0


def test_images_stay_as_they_are_where_the_context_is_good_enough() -> None:
    assert plan(MINISTRAL_3_3B_SHAPE, "nf4", card(8), good=16_384).image_side == 1_540
    assert plan(MAGISTRAL_SMALL_1_2, "nf4", card(20)).image_side == 1_540, "a long prompt needs as much there"
    assert plan(MAGISTRAL_SMALL_1_2, "nf4", card(12)).image_side == 1_540, "it does not fit in either case"
