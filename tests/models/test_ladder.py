"""Which model of the family is best where: by memory on CUDA, and also by pace elsewhere."""

import pytest

from magistral_ui.errors import Message
from magistral_ui.i18n.texts import sentence
from magistral_ui.models.cards import FAMILY, MAGISTRAL_1_2, MINISTRAL_3_3B, MINISTRAL_3_8B, MINISTRAL_3_14B, ModelCard
from magistral_ui.models.device_budget import DeviceBudget
from magistral_ui.models.ladder import LADDER_CONTEXT, READABLE_PACE, Candidate, Pace, best_candidate, candidates
from magistral_ui.models.memory import GIB, MIN_CONTEXT
from magistral_ui.models.shape import ModelShape


def place(type: str, free: float, total: float | None = None) -> DeviceBudget:
    return DeviceBudget(type, int(free * GIB), int((total or free) * GIB))


def best(found: tuple[Candidate, ...]) -> tuple[ModelCard, str] | None:
    chosen = best_candidate(found)
    return (chosen.card, chosen.plan.precision) if chosen else None


@pytest.mark.parametrize(
    ("free", "total", "card", "precision"),
    [
        (4, 4, None, ""),
        (7.3, 8, MINISTRAL_3_3B, "nf4"),
        (8, 8, MINISTRAL_3_3B, "nf4"),
        (11.2, 12, MINISTRAL_3_8B, "nf4"),
        (12, 12, MINISTRAL_3_8B, "nf4"),
        (15.1, 16, MINISTRAL_3_14B, "nf4"),
        (16, 16, MINISTRAL_3_14B, "nf4"),
        (17.5, 24, MINISTRAL_3_14B, "nf4"),
        (23.2, 24, MAGISTRAL_1_2, "nf4"),
        (32, 32, MAGISTRAL_1_2, "nf4"),
        (48, 48, MAGISTRAL_1_2, "nf4"),
        (80, 80, MAGISTRAL_1_2, "bfloat16"),
    ],
)
def test_the_best_model_of_each_card(free: float, total: float, card: ModelCard | None, precision: str) -> None:
    found = candidates(place("cuda", free, total))
    assert best(found) == ((card, precision) if card else None)
    chosen = best_candidate(found)
    assert chosen is None or chosen.plan.context >= LADDER_CONTEXT


def test_a_short_context_is_better_than_none() -> None:
    """A desktop that uses half of its 12 GB: nothing fits with a good context, the 3B with a useful one."""
    found = candidates(place("cuda", 5.5, 12))
    chosen = best_candidate(found)
    assert chosen is not None
    assert chosen.card is MINISTRAL_3_3B
    assert MIN_CONTEXT <= chosen.plan.context < LADDER_CONTEXT


def test_what_does_not_fit_says_how_much_it_needs() -> None:
    found = {each.card.key: each for each in candidates(place("cuda", 12))}
    assert [key for key, each in found.items() if each.refusal] == [MAGISTRAL_1_2.key]
    refusal = found[MAGISTRAL_1_2.key].refusal
    assert refusal is not None
    assert (refusal.key, refusal.values["free"]) == ("model_needs_memory", 12.9)
    assert "18.1 GB" in sentence(refusal)
    assert found[MAGISTRAL_1_2.key].plans == ()


def uniform(tokens: float) -> Pace:
    return lambda shape, precision: (tokens, False)


@pytest.mark.parametrize("type", ["cpu", "mps"])
def test_a_slow_machine_gets_the_largest_that_can_be_read_along(type: str) -> None:
    def pace_at(bandwidth: float) -> Pace:
        return lambda shape, precision: (bandwidth / shape.parameters / (2 if precision == "bfloat16" else 0.6), False)

    found = candidates(place(type, 60), ("bfloat16", "nf4"), pace=pace_at(60e9))
    by_key = {each.card.key: each for each in found}
    assert best(found) == (MAGISTRAL_1_2, "nf4")
    assert by_key[MINISTRAL_3_8B.key].plan.precision == "nf4", "exact, but too slow in bfloat16"
    assert by_key[MINISTRAL_3_3B.key].plan.precision == "bfloat16"
    slower = candidates(place(type, 60), ("bfloat16", "nf4"), pace=pace_at(22e9))
    assert best(slower) == (MINISTRAL_3_8B, "nf4")


def test_what_is_too_slow_says_its_pace_and_is_not_chosen() -> None:
    found = candidates(place("cpu", 60), pace=uniform(READABLE_PACE / 2))
    assert best(found) is None
    refusal = found[0].refusal
    assert isinstance(refusal, Message)
    assert "2.0 tokens per second" in sentence(refusal)
    assert all(each.plans for each in found), "it can still be chosen by hand"


def test_a_measured_pace_is_told_as_such_and_an_unknown_one_hinders_nothing() -> None:
    found = candidates(place("cpu", 60), pace=lambda shape, precision: (9.0, True))
    assert {(each.tokens_per_second, each.measured) for each in found} == {(9.0, True)}
    unknown = candidates(place("mps", 60))
    assert {each.refusal for each in unknown} == {None}


def test_a_graphics_card_is_never_too_slow() -> None:
    assert best(candidates(place("cuda", 24), pace=uniform(1.0))) == (MAGISTRAL_1_2, "nf4")


def test_only_what_fits_is_timed() -> None:
    asked: list[ModelShape] = []

    def pace(shape: ModelShape, precision: str) -> tuple[float | None, bool]:
        asked.append(shape)
        return None, False

    candidates(place("cpu", 13), ("bfloat16", "nf4"), pace=pace)
    assert MAGISTRAL_1_2.shape not in asked
    assert MINISTRAL_3_3B.shape in asked


def test_the_family_stands_in_the_order_of_preference() -> None:
    assert FAMILY == (MAGISTRAL_1_2, MINISTRAL_3_14B, MINISTRAL_3_8B, MINISTRAL_3_3B)
