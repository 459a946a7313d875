"""The cache finds the longest beginning, keeps visitors apart, and stays within its bytes."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from magistral_ui.engines.local.kv_cache import KVCache
from magistral_ui.engines.local.prefix_cache import CacheEntry, PrefixCache, common_prefix

SMALL = st.lists(st.integers(0, 2), max_size=30)


@given(SMALL, SMALL)
def test_common_prefix(a: list[int], b: list[int]) -> None:
    expected = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    assert common_prefix(a, b) == expected


def fill(cache: PrefixCache, visitor: str, keys: list[int]) -> CacheEntry:
    """Read `keys` as a sequence would: keys and values are the key itself, so that a wrong reuse shows."""
    entry = cache.take(visitor, keys)
    unread = keys[len(entry.keys) :]
    for layer in entry.cache.layers:
        layer.append(*(torch.tensor(unread, dtype=torch.float32).view(1, 1, -1, 1) for _ in range(2)))
    entry.keys += unread
    return entry


def held(entry: CacheEntry) -> list[int]:
    """What the first layer holds, read back by appending one more value to a copy."""
    copy = entry.cache.copy(len(entry.keys))
    keys, _ = copy.layers[0].append(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
    return [int(x) for x in keys.flatten()[:-1]]


@pytest.mark.parametrize("seed", range(20))
def test_random_use_never_mixes(seed: int) -> None:
    rng = random.Random(seed)
    cache = PrefixCache(lambda: KVCache(2), budget=rng.choice([0, 20_000, 10**9]), spill_budget=rng.choice([0, 10**9]))
    busy: list[tuple[CacheEntry, list[int]]] = []
    for _ in range(120):
        if busy and rng.random() < 0.5:
            entry, keys = busy.pop(rng.randrange(len(busy)))
            assert held(entry) == keys == entry.keys
            cache.give_back(entry)
        else:
            visitor = rng.choice("ab")
            keys = [ord(visitor), *(rng.randint(0, 1) for _ in range(rng.randint(1, 12)))]
            match = cache.match(visitor, keys)
            entry = fill(cache, visitor, keys)
            assert match < len(keys) == len(entry.keys)
            assert all(entry is not other for other, _ in busy)
            busy.append((entry, keys))
        cache.shrink()
        assert cache.nbytes <= cache.budget or all(e.busy or e.spilled for e in cache._entries)


def test_least_recently_used_goes_first() -> None:
    cache = PrefixCache(lambda: KVCache(1), budget=3 * 2 * 256 * 4)
    for n in (1, 2, 3):
        cache.give_back(fill(cache, "v", [n, n, n]))
    assert cache.match("v", [1, 1, 1, 1]) == 3
    cache.give_back(fill(cache, "v", [1, 1, 1, 1]))
    cache.give_back(fill(cache, "v", [4, 4]))
    assert [cache.match("v", [n] * 4) for n in (1, 2, 3, 4)] == [3, 0, 3, 2]


def test_idle_entries_spill_and_come_back() -> None:
    cache = PrefixCache(lambda: KVCache(1), budget=2 * 256 * 4, spill_budget=10**6)
    cache.give_back(fill(cache, "a", [1, 2, 3]))
    cache.give_back(fill(cache, "b", [4, 5, 6]))
    assert cache._bytes(spilled=True) > 0
    assert cache.nbytes <= cache.budget
    entry = cache.take("a", [1, 2, 3, 9])
    assert entry.keys == [1, 2, 3] == held(entry)
    assert not entry.spilled


def test_forget_drops_a_visitors_entries() -> None:
    cache = PrefixCache(lambda: KVCache(1), budget=10**6)
    cache.give_back(fill(cache, "a", [1, 2, 3]))
    cache.forget("a")
    assert cache.match("a", [1, 2, 3, 4]) == 0
    assert len(cache) == 0
