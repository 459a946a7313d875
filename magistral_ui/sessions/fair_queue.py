"""Runs work that takes long in a few threads of its own, turn by turn for those who wait; it does not know what the work is."""

import contextvars
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from magistral_ui.errors import TooManyRequests
from magistral_ui.fairness import FairShares

T = TypeVar("T")
QueuedCall = tuple["Future[Any]", Callable[[], Any]]
Submit = Callable[[Callable[[], Any]], "Future[Any]"]
RETRY_SECONDS = 10
"""What a visitor is told to wait whose earlier work is still to be done."""


class FairQueue:
    """So many pieces of work at once. Whoever has less in work, and was served longer ago, is next, whatever others have waiting.

    A party is whoever shares are counted by: an address, or a visitor.
    """

    def __init__(self, name: str, threads: int = 2, waiting: int = 4, *, refusal: str = TooManyRequests.key) -> None:
        """`name` is the threads'; at most `waiting` pieces of one party are here, those in work too; `refusal`
        is the key of the sentence for more.
        """
        self._threads, self._most, self._refusal = threads, waiting, refusal
        self._executor = ThreadPoolExecutor(threads, name)
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[QueuedCall]] = {}
        self._held: Counter[str] = Counter()
        """Pieces that are here, or have a place here, by party."""
        self._shares = FairShares()

    def submit(self, key: str, work: Callable[[], T]) -> "Future[T]":
        """Have `work` done in the context of the caller. Raises TooManyRequests where too much of the party's is here already."""
        self._hold(key)
        return self._put(key, work)

    @contextmanager
    def place(self, key: str) -> Iterator[Submit]:
        """A place for one piece that is still to come, such as a file on its way; gives what has it done, once.

        Raises TooManyRequests where too much of the party's is here already.
        """
        self._hold(key)
        given: list[Future[Any]] = []

        def submit(work: Callable[[], Any]) -> "Future[Any]":
            given.append(self._put(key, work))
            return given[0]

        try:
            yield submit
        finally:
            if not given:
                self._release(key)

    def _hold(self, key: str) -> None:
        with self._lock:
            if self._held[key] >= self._most:
                raise TooManyRequests(self._refusal, seconds=RETRY_SECONDS)
            self._held[key] += 1

    def _release(self, key: str) -> None:
        with self._lock:
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]

    def _put(self, key: str, work: Callable[[], Any]) -> "Future[Any]":
        done: Future[Any] = Future()
        context = contextvars.copy_context()
        with self._lock:
            self._waiting.setdefault(key, deque()).append((done, lambda: context.run(work)))
        self._begin()
        return done

    def _begin(self) -> None:
        """Give the next piece to a thread, if one is free."""
        with self._lock:
            if not self._waiting or self._shares.working >= self._threads:
                return
            party = min(self._waiting, key=self._shares.rank)
            done, work = self._waiting[party].popleft()
            if not self._waiting[party]:
                del self._waiting[party]
            self._shares.begin(party)
        # Who has gone meanwhile needs nothing done, but their turn ends like any other.
        wanted = done.set_running_or_notify_cancel()
        self._executor.submit(work if wanted else lambda: None).add_done_callback(
            lambda ended: self._end(party, ended, done if wanted else None)
        )

    def _end(self, key: str, ended: "Future[Any]", done: "Future[Any] | None") -> None:
        self._release(key)  # not before its turn, even if nobody waits for it any more: what it holds is in memory
        with self._lock:
            self._shares.end(key, self._waiting)
        self._begin()
        if done is None:
            return
        if (error := ended.exception()) is not None:
            done.set_exception(error)
        else:
            done.set_result(ended.result())
