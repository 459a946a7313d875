"""The most recently used values by key, bounded by what they cost together; it does not know what they are."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LRUCache(Generic[K, V]):
    """The most recently used values by key, as many as their costs together allow; thread-safe."""

    def __init__(self, capacity: int, cost: Callable[[V], int] = lambda _: 1) -> None:
        """`cost` of a value is asked once, when it is put; a value dearer than `capacity` is not kept."""
        self._capacity, self._cost, self._lock = capacity, cost, threading.Lock()
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._spent = 0

    def get(self, key: K) -> V | None:
        """The value of `key`, now the most recent one; None where it is not kept."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: K, value: V) -> None:
        """Keep `value`; the least recently used ones go where there is no room."""
        cost = self._cost(value)
        with self._lock:
            self._spent += cost - self._values.pop(key, (value, 0))[1]
            self._values[key] = (value, cost)
            while self._spent > self._capacity:
                self._spent -= self._values.popitem(last=False)[1][1]

    def drop(self, matches: Callable[[K], bool]) -> None:
        """Drop all values whose keys are `matches`."""
        with self._lock:
            for key in [key for key in self._values if matches(key)]:
                self._spent -= self._values.pop(key)[1]
