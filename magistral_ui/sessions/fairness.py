"""Says what makes room where a table is full: something of whoever has most in it; it does not know what it is."""

from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

Key = TypeVar("Key")


def oldest_of_the_most(owners: Mapping[Key, str]) -> Key:
    """Of `owners` by key, the oldest first: the first key of the owner who has most of them."""
    (most, _), *_ = Counter(owners.values()).most_common(1)
    return next(key for key, owner in owners.items() if owner == most)
