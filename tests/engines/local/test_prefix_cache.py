"""The cache finds the longest beginning, keeps visitors apart, and stays within its bytes."""

import random
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from magistral_ui.engines.local import decode_step, kv_cache
from magistral_ui.engines.local.attention import write
from magistral_ui.engines.local.decode_step import slots_of
from magistral_ui.engines.local.kv_cache import SCRATCH_PAGE, OutOfPages, PagePool
from magistral_ui.engines.local.prefix_cache import CacheEntry, PrefixCache, common_prefix
from magistral_ui.models import memory

SMALL = st.lists(st.integers(0, 2), max_size=30)


@given(SMALL, SMALL)
def test_common_prefix(a: list[int], b: list[int]) -> None:
    expected = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    assert common_prefix(a, b) == expected


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of four tokens, so that short conversations have several."""
    for module in (memory, kv_cache, decode_step):
        monkeypatch.setattr(module, "PAGE_TOKENS", 4)


def made(pages: int = 100, layers: int = 1, budget: int | None = None, spill_budget: int = 0) -> PrefixCache:
    """A cache with a pool of that many pages, each of 32 bytes a layer."""
    pool = PagePool([torch.device("cpu")] * layers, 1, 1, torch.float32, pages)
    return PrefixCache(pool, budget, spill_budget)


def fill(cache: PrefixCache, visitor: str, keys: list[int]) -> CacheEntry:
    """Read `keys` as a sequence would: keys and values are the key itself, so that a wrong reuse shows."""
    entry = cache.take(visitor, keys)
    unread = keys[len(entry.keys) :]
    cache.make_room(entry.cache.missing_pages(len(unread)))
    entry.cache.reserve(len(unread))
    slots = torch.tensor(slots_of(entry.cache, len(unread)))
    new = torch.tensor(unread, dtype=torch.float32).view(-1, 1, 1)
    for layer in range(len(cache._pool._layers)):
        write(cache._pool.layer(layer), new, -new, slots)
    entry.cache.length += len(unread)
    entry.keys += unread
    return entry


def held(cache: PrefixCache, entry: CacheEntry) -> list[int]:
    """What the last layer holds."""
    keys, values = cache._pool._layers[-1]
    rows = keys[entry.cache.pages].flatten()[: entry.cache.length]
    assert torch.equal(values[entry.cache.pages].flatten()[: entry.cache.length], -rows)
    return [int(x) for x in rows]


def check_counts(cache: PrefixCache) -> None:
    """Every page is counted by as many block tables as hold it, and the free ones are those that none holds."""
    pool = cache._pool
    tables = Counter(page for entry in cache._entries for page in entry.cache.pages if page)
    assert [pool.references(page) for page in range(1, pool.pages + 1)] == [
        tables[page] for page in range(1, pool.pages + 1)
    ]
    assert pool.free == pool.pages - len(tables)
    for entry in cache._entries:
        assert [n for n, page in enumerate(entry.cache.pages) if page == SCRATCH_PAGE] == sorted(entry.cache._host)


@pytest.mark.parametrize("seed", range(20))
def test_random_use_never_mixes(seed: int) -> None:
    rng = random.Random(seed)
    cache = made(40, 2, budget=rng.choice([0, 640, 10**9]), spill_budget=rng.choice([0, 256, 10**9]))
    busy: list[tuple[CacheEntry, list[int]]] = []
    for _ in range(120):
        if busy and (rng.random() < 0.5 or len(busy) == 8):
            entry, keys = busy.pop(rng.randrange(len(busy)))
            assert held(cache, entry) == keys == entry.keys
            cache.give_back(entry)
        else:
            visitor = rng.choice("ab")
            keys = [ord(visitor), *(rng.randint(0, 1) for _ in range(rng.randint(1, 18)))]
            match = cache.match(visitor, keys)
            entry = fill(cache, visitor, keys)
            assert match < len(keys) == len(entry.keys)
            assert all(entry is not other for other, _ in busy)
            busy.append((entry, keys))
            if rng.random() < 0.2:
                cache.share(entry, rng.randint(1, len(keys)))
        if rng.random() < 0.05:
            cache.forget(rng.choice("ab"))
        cache.shrink(0 if rng.random() < 0.1 else None)
        check_counts(cache)
        assert cache.nbytes <= cache.budget or all(e.busy or e.spilled or not e.cache.nbytes for e in cache._entries)


def test_least_recently_used_goes_first() -> None:
    cache = made(budget=3 * 32)
    for n in (1, 2, 3):
        cache.give_back(fill(cache, "v", [n, n, n]))
    assert cache.match("v", [1, 1, 1, 1]) == 3
    cache.give_back(fill(cache, "v", [1, 1, 1, 1]))
    cache.give_back(fill(cache, "v", [4, 4]))
    assert [cache.match("v", [n] * 4) for n in (1, 2, 3, 4)] == [3, 0, 3, 2]


def test_idle_entries_spill_and_come_back() -> None:
    cache = made(budget=32, spill_budget=10**6)
    cache.give_back(fill(cache, "a", [1, 2, 3]))
    cache.give_back(fill(cache, "b", [4, 5, 6]))
    assert [entry.spilled for entry in cache._entries] == [True, False]
    assert cache.nbytes <= cache.budget
    entry = cache.take("a", [1, 2, 3, 9])
    assert entry.keys == [1, 2, 3] == held(cache, entry)
    assert not entry.spilled


def test_pages_wait_in_pieces_of_a_few_sizes() -> None:
    """Each in one piece, as a GPU copies it from pinned memory; what torch keeps of one serves other conversations."""
    cache = made(20, 7, budget=32, spill_budget=10**6)
    keys = [*range(1, 20)]
    cache.give_back(fill(cache, "a", keys))
    (entry,) = cache._entries
    pages = list(entry.cache._host.values())
    assert [[piece.nbytes for piece in page] for page in pages] == [[4 * 32, 2 * 32, 32]] * 5
    assert all(piece.is_contiguous() for page in pages for piece in page)
    assert entry.cache.host_bytes == sum(piece.nbytes for page in pages for piece in page)
    assert held(cache, cache.take("a", [*keys, 0])) == keys


def test_an_entry_that_comes_back_makes_room() -> None:
    cache = made(2, spill_budget=10**6)
    for visitor in "ab":
        cache.give_back(fill(cache, visitor, [*range(8)]))
    entry = cache.take("a", [*range(9)])
    assert entry.keys == [*range(8)] == held(cache, entry)
    assert [each.spilled for each in cache._entries] == [False, True]


def test_an_entry_is_spilled_little_by_little() -> None:
    """What it shares with another one stays at first, and follows once the other is gone."""
    cache, whole = made(spill_budget=10**6), [*range(1, 13)]
    entry, branch = fill(cache, "v", whole), fill(cache, "v", [*whole[:8], 0])
    for each in (entry, branch):
        cache.give_back(each)
    cache._spill(entry)
    assert entry.cache.spilled_pages(12) == 1
    cache._remove(branch)
    cache.shrink(0)
    assert (entry.cache.spilled_pages(12), cache.nbytes) == (3, 0)
    assert held(cache, cache.take("v", [*whole, 0])) == whole
    check_counts(cache)


def test_an_entry_that_comes_back_stays() -> None:
    """Even if it makes another one go to a host that has no room for both."""
    cache = made(3, spill_budget=4 * 32)
    for visitor in "ab":
        cache.give_back(fill(cache, visitor, [*range(12)]))
    entry = cache.take("a", [*range(13)])
    assert held(cache, entry) == entry.keys == [*range(12)]
    check_counts(cache)


def test_only_what_is_wanted_comes_back() -> None:
    cache = made(4, spill_budget=10**6)
    cache.give_back(fill(cache, "a", [*range(16)]))
    fill(cache, "b", [*range(8)])
    branch = cache.take("a", [*range(7), 99])
    assert held(cache, branch) == [*range(7)]
    assert cache.match("a", [*range(17)]) == 16
    check_counts(cache)


def test_what_cannot_come_back_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """For want of pages, or because copying breaks: a reply never fails over it, and no page is lost."""
    cache = made(4, spill_budget=10**6)
    cache.give_back(fill(cache, "a", [*range(12)]))
    running = fill(cache, "b", [*range(8)])
    assert cache.take("a", [*range(13)]).keys == []
    cache.give_back(running)
    monkeypatch.setattr(kv_cache.torch.Tensor, "copy_", broken)
    assert cache.take("a", [*range(13)]).keys == []
    check_counts(cache)


def broken(*_: object, **__: object) -> None:
    raise RuntimeError("injected")


def test_a_branch_copies_a_page_at_most() -> None:
    cache, whole = made(), [*range(1, 31)]
    first = fill(cache, "v", whole)
    copied: list[tuple[int, int]] = []
    copy = cache._pool.take_copy
    cache._pool.take_copy = lambda *of: copied.append(of[:2]) or copy(*of)  # type: ignore[method-assign, func-returns-value]
    branch = cache.take("v", [*whole[:22], 0])
    assert branch.cache.pages == first.cache.pages[:6]
    assert not copied
    branch.cache.reserve(1)
    assert copied == [(first.cache.pages[5], 2)]
    assert cache._pool.used == 8 + 1
    cache.give_back(first)
    assert held(cache, first) == whole


def test_what_idle_branches_share_goes_with_the_last_of_them() -> None:
    cache = made(10)
    first = fill(cache, "v", [*range(1, 17)])
    branch = fill(cache, "v", [*range(1, 17), 0])
    cache.give_back(first)
    cache.give_back(branch)
    assert cache._pool.used == 5
    other = fill(cache, "w", [*range(40)])
    assert cache._pool.used == 10
    assert held(cache, other) == [*range(40)]


def test_visitors_share_the_system_prompt_and_nothing_else() -> None:
    cache, system = made(), [7] * 8
    first = fill(cache, "a", [*system, 1, 2, 3])
    cache.share(first, 8)
    second = cache.take("b", [*system, 1, 2, 3, 4])
    assert second.keys == system
    assert second.cache.pages == first.cache.pages[:2]
    cache.give_back(first)
    cache.forget("a")
    assert held(cache, second) == system
    assert cache.match("c", [*system, 1, 2]) == 8


def test_the_system_prompts_last_page_holds_nothing_else() -> None:
    """Be it a copy that was made for all visitors, or one that a visitor makes of it."""
    cache, system = made(), [7] * 6
    cache.share(fill(cache, "a", [*system, 1, 2, 3]), 6)
    shared = next(entry for entry in cache._entries if entry.visitor is None)
    other = cache.take("b", [*system, 4])
    other.cache.reserve(1)
    for each in (shared, other):
        assert [*cache._pool.layer(0)[0][each.cache.pages].flatten()] == [*system, 0, 0]
    check_counts(cache)


def test_sharing_the_system_prompt_needs_no_room() -> None:
    cache = made(3)
    entry = fill(cache, "a", [*range(12)])
    cache.share(entry, 6)
    assert len(cache) == 1
    check_counts(cache)


def test_pages_that_were_used_come_first() -> None:
    """On a processor, memory that was used is not given back, so other pages would only add to it."""
    cache, seen = made(400), set[int]()
    for n in range(100):
        entry = fill(cache, f"{n % 3}", [n] * 8)
        seen |= {*entry.cache.pages}
        cache.give_back(entry)
        cache.forget(f"{(n + 1) % 3}")
    assert len(seen) <= 6


def test_pages_come_back_empty() -> None:
    """What was left in a page, be it no number at all, reaches nobody."""
    cache = made(1)
    entry = fill(cache, "a", [1, 2, 3])
    for held_pages in cache._pool.layer(0):
        held_pages[entry.cache.pages] = torch.nan
    cache.give_back(entry)
    cache.forget("a")
    other = fill(cache, "b", [5])
    assert all(not each[other.cache.pages].isnan().any() for each in cache._pool.layer(0))


def test_too_few_pages_change_nothing() -> None:
    cache = made(3)
    entry = fill(cache, "a", [*range(6)])
    with pytest.raises(OutOfPages, match="2 pages are needed and 1 are free"):
        entry.cache.reserve(9)
    assert (len(entry.cache.pages), cache._pool.free) == (2, 1)
    entry.cache.reserve(6)


def test_a_sequence_finds_room_behind_itself() -> None:
    """Sequences that grow side by side keep their pages in one piece, which a processor reads without a copy."""
    cache = made(100)
    entries = [fill(cache, visitor, [0]) for visitor in "abcd"]
    for _ in range(40):
        for entry in entries:
            entry.cache.reserve(1)
            entry.cache.length += 1
    for entry in entries:
        assert entry.cache.pages == list(range(entry.cache.pages[0], entry.cache.pages[-1] + 1))


def test_forget_drops_a_visitors_entries() -> None:
    cache = made()
    cache.give_back(fill(cache, "a", [1, 2, 3]))
    cache.forget("a")
    assert cache.match("a", [1, 2, 3, 4]) == 0
    assert len(cache) == 0
    assert cache.nbytes == 0
