"""Which model of the family is best with llama.cpp: beside torch, and without it."""

import pytest

from magistral_ui.i18n.texts import sentence
from magistral_ui.models.cards import FAMILY, MAGISTRAL_1_2, MINISTRAL_3_3B, MINISTRAL_3_8B, MINISTRAL_3_14B, ModelCard
from magistral_ui.models.device_budget import DeviceBudget
from magistral_ui.models.gguf_plan import QUANTIZATIONS
from magistral_ui.models.ladder import COARSE, EXACT, LADDER_CONTEXT, Candidate, Pace, best_candidate, candidates
from magistral_ui.models.memory import GIB
from magistral_ui.models.shape import ModelShape


def gpu(gigabytes: float, type: str = "cuda", host: float = 0) -> DeviceBudget:
    return DeviceBudget(type, int(gigabytes * GIB), int(gigabytes * GIB), host=int(host * GIB))


def computer(free: float, total: float) -> DeviceBudget:
    return DeviceBudget("cpu", int(free * GIB), int(total * GIB))


def best(found: tuple[Candidate, ...]) -> tuple[ModelCard, str]:
    chosen = best_candidate(found)
    assert chosen is not None
    return chosen.card, chosen.plan.precision


def of(card: ModelCard, found: tuple[Candidate, ...]) -> Candidate:
    return next(each for each in found if each.card is card)


def test_all_of_the_family_have_gguf_files() -> None:
    assert all(card.gguf_repositories for card in FAMILY)
    assert set(EXACT + COARSE) <= set(QUANTIZATIONS)
    assert MAGISTRAL_1_2.gguf_repositories[0].startswith("unsloth/"), "Mistral's own has no projector"
    assert MINISTRAL_3_8B.gguf_repositories[0].startswith("mistralai/")


@pytest.mark.parametrize(
    ("gigabytes", "card", "precision"),
    [
        (8, MINISTRAL_3_3B, "nf4"),
        (12, MINISTRAL_3_14B, "Q4_K_M"),
        (16, MINISTRAL_3_14B, "nf4"),
        (24, MAGISTRAL_1_2, "nf4"),
        (48, MAGISTRAL_1_2, "nf4"),
        (80, MAGISTRAL_1_2, "bfloat16"),
    ],
)
def test_on_nvidia_llama_cpp_runs_what_torch_cannot(gigabytes: int, card: ModelCard, precision: str) -> None:
    place = gpu(gigabytes)
    assert best(candidates(place, gguf=place)) == (card, precision)


def test_magistral_on_16_gb_is_offered_but_not_chosen() -> None:
    """Ministral 3 14B in nf4 loses less, and is better at three of four benchmarks."""
    for place in (gpu(16), gpu(16, host=24)):
        found = candidates(place, gguf=place)
        magistral = of(MAGISTRAL_1_2, found)
        assert (magistral.plan.precision, magistral.refusal, magistral.compromise) == ("Q3_K_M", None, 1)
        assert magistral.plan.context >= LADDER_CONTEXT
        assert best(found) == (MINISTRAL_3_14B, "nf4")
    assert of(MAGISTRAL_1_2, candidates(gpu(16))).refusal is not None


@pytest.mark.parametrize(
    ("place", "card", "precision"),
    [
        (gpu(10.67, "mps"), MINISTRAL_3_8B, "Q5_K_M"),  # a Mac with 16 GB
        (gpu(16, "mps"), MINISTRAL_3_14B, "Q5_K_M"),
        (gpu(21.3, "mps"), MAGISTRAL_1_2, "Q4_K_M"),
        (gpu(48, "mps"), MAGISTRAL_1_2, "Q8_0"),
        (computer(13, 16), MINISTRAL_3_14B, "Q4_K_M"),
        (computer(28, 32), MAGISTRAL_1_2, "Q5_K_M"),
        (computer(56, 64), MAGISTRAL_1_2, "Q8_0"),
    ],
)
def test_on_macs_and_processors_llama_cpp_comes_first(place: DeviceBudget, card: ModelCard, precision: str) -> None:
    assert best(candidates(place, gguf=place)) == (card, precision)
    assert best(candidates(place, (), gguf=place)) == (card, precision), "and it needs no torch"


@pytest.mark.parametrize(
    ("gigabytes", "card", "precision"),
    [(8, MINISTRAL_3_3B, "Q8_0"), (12, MINISTRAL_3_14B, "Q4_K_M"), (16, MINISTRAL_3_14B, "Q5_K_M")],
)
def test_a_card_that_only_llama_cpp_uses_comes_before_the_processor(
    gigabytes: int, card: ModelCard, precision: str
) -> None:
    """An AMD or Intel card with Vulkan, where torch has nothing but the processor."""
    found = candidates(computer(28, 32), gguf=gpu(gigabytes, "gpu", host=28))
    assert best(found) == (card, precision)


def test_a_processor_never_comes_before_an_nvidia_gpu() -> None:
    """With the wheel from PyPI, llama.cpp does not see the GPU."""
    found = candidates(gpu(12), gguf=computer(28, 32))
    assert best(found) == (MINISTRAL_3_8B, "nf4")
    assert of(MAGISTRAL_1_2, found).compromise == 3


def bandwidth(bytes_per_second: float) -> Pace:
    def pace(shape: ModelShape, precision: str) -> tuple[float | None, bool]:
        size = QUANTIZATIONS.get(
            precision, 2.0 if precision == "bfloat16" else 1.2
        )  # nf4 takes twice as long as Q4_K_M
        return bytes_per_second / shape.parameters / size, False

    return pace


def test_the_most_exact_quantization_that_can_be_read_along_is_taken() -> None:
    place = computer(56, 64)
    found = candidates(place, gguf=place, pace=bandwidth(60e9))
    assert {each.card: each.plan.precision for each in found} == {
        MAGISTRAL_1_2: "Q4_K_M",
        MINISTRAL_3_14B: "Q8_0",
        MINISTRAL_3_8B: "Q8_0",
        MINISTRAL_3_3B: "Q8_0",
    }
    assert best(found) == (MAGISTRAL_1_2, "Q4_K_M")
    slower = candidates(place, gguf=place, pace=bandwidth(30e9))
    assert best(slower) == (MINISTRAL_3_8B, "Q5_K_M")
    assert of(MAGISTRAL_1_2, slower).refusal is not None


def test_layers_in_ram_are_a_last_resort_on_a_gpu() -> None:
    place = gpu(12, host=28)
    found = candidates(place, (), gguf=place)
    magistral = of(MAGISTRAL_1_2, found)
    assert magistral.plan.ram_layers
    assert magistral.compromise == 2
    assert magistral.tokens_per_second is not None
    assert magistral.tokens_per_second >= 4, "what would be slower is not offered"
    assert best(found) == (MINISTRAL_3_14B, "Q4_K_M")


def test_what_does_not_fit_says_how_much_it_needs_with_llama_cpp() -> None:
    found = candidates(gpu(6), (), gguf=gpu(6))
    refusal = of(MAGISTRAL_1_2, found).refusal
    assert refusal is not None
    assert refusal.key == "model_needs_memory"
    assert 13 < float(refusal.values["needed"]) < 16
    assert "{" not in sentence(refusal)
    with_torch = of(MAGISTRAL_1_2, candidates(gpu(6), gguf=gpu(6))).refusal
    assert with_torch is not None
    assert with_torch.values["needed"] == refusal.values["needed"], "that of the way that needs least"


@pytest.mark.parametrize("place", [gpu(16, "gpu"), gpu(16), computer(28, 32)])
def test_with_neither_library_nothing_runs_and_what_torch_would_need_is_told(place: DeviceBudget) -> None:
    found = candidates(place, ())
    assert best_candidate(found) is None
    assert {each.refusal.key for each in found if each.refusal} == {"model_needs_memory"}


def test_plans_of_the_preferred_library_come_first() -> None:
    place = computer(56, 64)
    assert [each.precision for each in candidates(place, gguf=place)[0].plans] == [
        *EXACT,
        "bfloat16",
        "nf4",
    ]
    card = gpu(80)
    assert [each.precision for each in candidates(card, gguf=card)[0].plans] == ["bfloat16", "nf4", *EXACT]
