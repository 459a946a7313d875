"""Which quantization a machine gets if nobody names one, for the sizes of published files and usual devices."""

import pytest

from magistral_ui.models.device_budget import DeviceBudget
from magistral_ui.models.gguf_choice import PlannedQuantization, choose_quantization, counted_as, scaled_weights
from magistral_ui.models.gguf_names import ListedFile, Quantization
from magistral_ui.models.gguf_plan import estimated_weights, plan_gguf
from magistral_ui.models.memory import GIB, fits
from magistral_ui.models.shape import MAGISTRAL_SMALL_1_2, MINISTRAL_3_3B_SHAPE, MINISTRAL_3_14B_SHAPE, ModelShape

SIZES = {
    "24B": "BF16 47.2, UD-Q8_K_XL 29.0, Q8_0 25.1, Q6_K 19.3, Q5_K_M 16.8, UD-Q4_K_XL 14.5, Q4_K_M 14.3, Q4_K_S 13.5, "
    "IQ4_XS 12.8, Q3_K_M 11.5, Q3_K_S 10.4, UD-IQ3_XXS 9.41, Q2_K 8.9, UD-IQ2_XXS 6.6, UD-IQ1_S 5.3",
    "14B": "BF16 27.0, Q8_0 14.36, Q6_K 11.09, Q5_K_M 9.62, Q4_K_M 8.24, Q4_K_S 7.8, Q3_K_M 6.7, UD-IQ3_XXS 5.6",
    "3B": "BF16 6.87, Q8_0 3.65, Q6_K 2.82, Q5_K_M 2.47, Q4_K_M 2.147, Q3_K_M 1.75, Q2_K 1.4",
}
"""GB of the files on the Hub."""
SHAPES = {"24B": MAGISTRAL_SMALL_1_2, "14B": MINISTRAL_3_14B_SHAPE, "3B": MINISTRAL_3_3B_SHAPE}
FREE = {
    "cuda": {8: 7.3, 12: 11.2, 16: 15.1, 24: 23.2, 48: 46.5},
    "mps": {16: 11.0, 24: 17.0, 48: 36.0},
    "cpu": {8: 5.0, 16: 13.0, 32: 28.0, 64: 58.0},
}
"""GiB that are free on a device with so many GB."""


def planned(model: str, type: str, size: int, context: int | None = None) -> list[PlannedQuantization]:
    shape = SHAPES[model]
    free = int(FREE[type][size] * GIB)
    place = DeviceBudget(type, free, size * GIB, host=28 * GIB if type == "cuda" else free)
    fitting = []
    for each in SIZES[model].split(", "):
        label, _, gigabytes = each.partition(" ")
        made = quantization(label, int(float(gigabytes) * 1e9))
        plan = plan_gguf(shape, scaled_weights(shape, estimated_weights(shape, "Q4_K_M"), made), place, context=context)
        if fits(shape, plan, context):
            fitting.append(PlannedQuantization(made, plan))
    return fitting


def quantization(label: str, size: int) -> Quantization:
    return Quantization(label, (ListedFile(f"{label}.gguf", size),))


def chosen(shape: ModelShape, fitting: list[PlannedQuantization]) -> str | None:
    found = choose_quantization(shape, fitting)
    return found.quantization.label if found else None


@pytest.mark.parametrize(
    ("model", "type", "size", "label"),
    [
        ("24B", "cuda", 8, "UD-Q4_K_XL"),  # most layers beside the GPU
        ("24B", "cuda", 12, "UD-Q4_K_XL"),
        ("24B", "cuda", 16, "Q3_K_M"),
        ("24B", "cuda", 24, "Q5_K_M"),
        ("24B", "cuda", 48, "Q8_0"),
        ("24B", "mps", 24, "Q4_K_S"),
        ("24B", "mps", 48, "Q8_0"),
        ("24B", "cpu", 8, None),
        ("24B", "cpu", 16, "Q3_K_S"),
        ("24B", "cpu", 32, "Q4_K_S"),
        ("24B", "cpu", 64, "UD-Q4_K_XL"),  # more exact ones fit, but would be slower still
        ("14B", "cuda", 12, "Q4_K_M"),
        ("14B", "cuda", 16, "Q5_K_M"),
        ("14B", "cuda", 24, "Q8_0"),
        ("14B", "cpu", 32, "Q4_K_M"),
        ("3B", "cuda", 8, "Q6_K"),
        ("3B", "cuda", 12, "Q8_0"),  # not BF16: more exact weights would only be slower
        ("3B", "cpu", 16, "Q8_0"),
    ],
)
def test_usual_machines(model: str, type: str, size: int, label: str | None) -> None:
    assert chosen(SHAPES[model], planned(model, type, size)) == label


def test_what_is_larger_is_never_chosen_for_less_room() -> None:
    """More memory of a kind never means fewer bits."""
    for model, shape in SHAPES.items():
        for type, devices in FREE.items():
            sizes = [choose_quantization(shape, planned(model, type, size)) for size in devices]
            whole = [each for each in sizes if each and not each.plan.ram_layers]
            assert [each.quantization.bytes for each in whole] == sorted(each.quantization.bytes for each in whole)


@pytest.mark.parametrize(
    ("context", "label"), [(2_048, "Q6_K"), (8_192, "Q6_K"), (20_000, "Q6_K"), (100_000, "UD-Q4_K_XL")]
)
def test_a_context_that_was_asked_for_is_kept(context: int, label: str) -> None:
    fitting = planned("24B", "cuda", 24, context)
    found = choose_quantization(SHAPES["24B"], fitting)
    assert found is not None
    assert found.quantization.label == label
    assert found.plan.context >= min(context, 40_960)


def test_what_is_there_is_taken_if_nothing_better_is() -> None:
    shape = SHAPES["24B"]
    fitting = {each.quantization.label: each for each in planned("24B", "cuda", 48)}
    for label in ("UD-IQ1_S", "UD-Q8_K_XL", "Q2_K"):
        assert chosen(shape, [fitting[label]]) == label
    assert chosen(shape, [fitting["UD-IQ1_S"], fitting["UD-IQ2_XXS"]]) == "UD-IQ2_XXS"
    assert chosen(shape, []) is None


def test_weights_are_estimated_from_those_of_another_file() -> None:
    shape = SHAPES["3B"]
    known = estimated_weights(shape, "Q8_0")
    made = scaled_weights(shape, known, quantization("Q4_0", 2_000_000_000))
    assert made.mmproj == known.mmproj
    assert sum(made.layers) + made.embedding == pytest.approx(2e9, rel=1e-6), "the head is the embedding"
    assert (made.quantization, len(made.layers)) == ("Q4_0", shape.layers)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("q4_k_m", "Q4_K_M"),
        ("UD-Q4_K_XL", "Q4_K_M"),
        ("IQ4_XS", "Q4_K_M"),
        ("UD-IQ2_XXS", "Q2_K"),
        ("Q3_K_XL", "Q3_K_L"),
        ("BF16", "BF16"),
        ("MXFP4", "Q4_K_M"),
        ("", "Q4_K_M"),
    ],
)
def test_every_quantization_counts_as_a_planned_one(label: str, expected: str) -> None:
    assert counted_as(label) == expected
