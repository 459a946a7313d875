"""What is fair between visitors: who may take a place, how often, and whose value a full cache evicts."""

import math

import pytest

from magistral_ui.fairness import FairCache, Quota, TokenBuckets


def test_the_owner_who_has_most_makes_room_with_the_value_used_least_recently() -> None:
    cache: FairCache[str, str] = FairCache(4, lambda owner: owner)
    cache["mine"] = "me"
    for key in ("a", "b", "c"):
        cache[key] = "them"
    assert cache["a"] == "them"
    cache["d"] = "them"
    assert set(cache) == {"mine", "a", "c", "d"}
    cache["another of mine"] = "me"
    assert "mine" in cache
    assert "c" not in cache


def test_whoever_adds_one_too_many_gives_up_one_of_their_own() -> None:
    cache: FairCache[str, str] = FairCache(2, lambda owner: owner)
    cache["mine"], cache["theirs"] = "me", "them"
    cache["more of theirs"] = "them"
    assert set(cache) == {"mine", "more of theirs"}


def test_a_value_can_change_its_owner_and_be_taken_out() -> None:
    cache: FairCache[str, str] = FairCache(math.inf, lambda owner: owner)
    cache["a"], cache["b"], cache["c"] = "me", "me", "them"
    cache["a"] = "them"
    assert cache.popitem() == ("c", "them")
    assert cache.pop("a") == "them"
    assert cache.pop("a", None) is None
    del cache["b"]
    assert len(cache) == 0


@pytest.mark.parametrize(
    ("taken", "reached"),
    [
        ([], None),
        ([("v", "a")], None),
        ([("v", "a"), ("v", "b")], "of_visitor"),
        ([("w", "a"), ("x", "a"), ("y", "a")], "of_address"),
        ([("v", "a"), ("v", "a"), ("w", "a")], "of_visitor"),
        ([("w", "b"), ("x", "b"), ("y", "b"), ("z", "c")], "in_all"),
    ],
)
def test_a_place_is_counted_in_all_by_visitor_and_by_address(taken: list[tuple[str, str]], reached: str | None) -> None:
    assert Quota(in_all=4, of_visitor=2, of_address=3).reached(taken, "v", "a") == reached


def test_nobody_is_counted_where_nothing_is_bounded() -> None:
    assert Quota().reached([("v", "a")] * 1_000, "v", "a") is None


def test_a_rate_remembers_only_so_many_names() -> None:
    rate = TokenBuckets(60, kept=10)
    for name in range(1_000):
        rate.take(str(name))
    assert len(rate) == 10


def test_what_is_owed_has_to_be_earned_first() -> None:
    now = [100.0]
    rate = TokenBuckets(60, burst=10, clock=lambda: now[0])
    rate.owe("a", 15)
    assert rate.wait("a", 1) == pytest.approx(6)
    now[0] += 6
    assert rate.take("a", 1) == 0.0
    assert rate.take("a", 1) > 0
