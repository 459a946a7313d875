"""What is planned for recorded decode steps is what torch's allocator would hold for the engine's own step."""

import pytest

from magistral_ui.models.device_budget import DeviceBudget
from magistral_ui.models.graph_memory import MIB, graph_bytes
from magistral_ui.models.memory import GIB, plan
from magistral_ui.models.shape import MAGISTRAL_SMALL_1_2, MINISTRAL_3_3B_SHAPE, ModelShape
from tests.benchmarks.caching_allocator import CachingAllocator, splits
from tests.benchmarks.graph_memory import CARDS, TracedModel


@pytest.mark.parametrize(
    ("shape", "precision"),
    [(MAGISTRAL_SMALL_1_2, "nf4"), (MINISTRAL_3_3B_SHAPE, "bfloat16"), (MINISTRAL_3_3B_SHAPE, "nf4")],
)
def test_planned_is_at_least_what_is_counted_and_at_most_3_percent_more(shape: ModelShape, precision: str) -> None:
    model = TracedModel(shape, precision, 40_960, ministral=shape.tied)
    for card in CARDS:
        (counted,), (planned,) = model.counted(card), model.planned(card)
        assert 1 <= planned / counted.total <= 1.03, card


def test_each_of_two_cards_has_what_is_counted_there() -> None:
    """Of the first, the plan does not know whether FlashAttention's parts have more than 1 MiB, and takes it that they have."""
    model = TracedModel(MAGISTRAL_SMALL_1_2, "bfloat16", 131_072, devices=2)
    for card in CARDS:
        for counted, planned in zip(model.counted(card), model.planned(card), strict=True):
            assert 1 <= planned / counted.total <= 1.35, (
                card
            )  # before the last, whether a tensor has more than 1 MiB is not known


def test_only_what_is_recorded_is_planned() -> None:
    def planned(place: DeviceBudget, precision: str) -> int:
        return graph_bytes(MAGISTRAL_SMALL_1_2, precision, place)

    ampere, hopper = (DeviceBudget("cuda", 0, 0, capability=each) for each in ((8, 0), (9, 0)))
    assert planned(ampere, "bfloat16") == 46 * MIB
    assert planned(hopper, "bfloat16") == planned(DeviceBudget("cuda", 0, 0), "bfloat16") == 58 * MIB
    assert planned(ampere, "int8") == planned(ampere, "float32") == 0
    assert planned(DeviceBudget("cuda", 0, 0, fused=False), "nf4") == planned(DeviceBudget("mps", 0, 0), "nf4") == 0
    assert planned(DeviceBudget("cuda", 0, 0, capability=(8, 9), fused_buckets=lambda _: ()), "nf4") == 0


def test_the_plan_has_room_for_recorded_steps_and_their_scratch_page() -> None:
    """Only by that are plans smaller than for a card on which nothing is recorded."""
    none = DeviceBudget("cuda", 24 * GIB, 24 * GIB, capability=(8, 9), fused_buckets=lambda _: ())
    some = DeviceBudget("cuda", 24 * GIB, 24 * GIB, capability=(8, 9), fused_buckets=lambda _: (1, 2, 4, 8))
    without, recorded = (plan(MAGISTRAL_SMALL_1_2, "nf4", each) for each in (none, some))
    page = 256 * recorded.kv_per_token
    assert recorded.working - without.working == 46 * MIB + page
    assert without.kv_bytes - recorded.kv_bytes == 46 * MIB + page


def test_the_allocator_s_segments() -> None:
    allocator = CachingAllocator()
    small = [allocator.allocate(MIB) for _ in range(2)]
    assert allocator.reserved == 2 * MIB
    medium = allocator.allocate(MIB + 1)
    assert allocator.reserved == 22 * MIB
    allocator.allocate(10 * MIB - 1)
    assert allocator.reserved == 22 * MIB  # behind the one before it
    large = allocator.allocate(11 * MIB)
    assert allocator.reserved == 34 * MIB
    allocator.allocate(1)
    assert allocator.reserved == 36 * MIB
    for block in (*small, medium, large):
        allocator.free(block)
    allocator.allocate(1_500_000)
    allocator.allocate(7 * 2**17)  # into the smallest that is large enough
    assert allocator.reserved == 36 * MIB
    allocator.give_back()
    assert allocator.reserved == 22 * MIB


def test_neighbours_that_are_free_become_one() -> None:
    allocator = CachingAllocator()
    parts = [allocator.allocate(MIB // 2) for _ in range(4)]
    for part in (parts[0], parts[2], parts[1]):
        allocator.free(part)
    allocator.allocate(MIB)
    allocator.allocate(MIB // 2)
    assert allocator.reserved == 2 * MIB


@pytest.mark.parametrize(
    ("sequences", "processors", "longest", "parts"), [(128, 80, 131_072, 1), (8, 128, 131_072, 28), (64, 128, 256, 2)]
)
def test_long_sequences_are_split_until_the_card_is_busy(
    sequences: int, processors: int, longest: int, parts: int
) -> None:
    assert splits(sequences, processors, longest) == parts
