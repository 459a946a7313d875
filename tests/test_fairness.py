"""What is fair between visitors: whose value makes room where a cache is full."""

import math

from magistral_ui.fairness import FairCache


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
