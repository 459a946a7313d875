"""Runs slow tasks in a few threads, in fair order: searches, imports, and requests with images."""

import asyncio
import contextvars
import threading
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from math import ceil
from typing import Any, TypeVar

from magistral_ui.chat.image_decoding import MAX_CHILDREN, REFUSAL
from magistral_ui.client import Client, serving
from magistral_ui.errors import TooManyRequests
from magistral_ui.fairness import FairShares, RateLimit
from magistral_ui.sessions.limits import Limits

T = TypeVar("T")
QueuedTask = tuple["Future[Any]", Callable[[], Any]]
Submit = Callable[[Callable[[], Any]], "Future[Any]"]
RETRY_SECONDS = 10
"""Seconds after which a visitor whose earlier tasks are not done yet is told to try again."""
MAX_IMAGE_REQUESTS = 64
"""Requests with images from one address that run or wait: a whole school may share one address."""
POLL_INTERVAL = 1.0
"""Seconds between two checks whether a waiting client has disconnected."""


class FairQueue:
    """Runs a few tasks at once. Next comes the owner with the fewest running tasks, then the one served longest ago.

    So however many tasks one owner has waiting, another owner's first task waits for at most one of them. Owners are addresses or
    visitors.
    """

    def __init__(self, name: str, threads: int = 2, waiting: int = 4, *, refusal: str = TooManyRequests.key) -> None:
        """An owner may have at most `waiting` tasks, running ones included; `refusal` is the key of the error for more."""
        self._threads, self._max_tasks, self._refusal = threads, waiting, refusal
        self._executor = ThreadPoolExecutor(threads, name)
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[QueuedTask]] = {}
        self._reserved: Counter[str] = Counter()
        """Tasks and reserved places by owner."""
        self._shares = FairShares()

    def submit(self, owner: str, task: Callable[[], T]) -> "Future[T]":
        """Run `task` in a copy of the caller's context. Raises TooManyRequests if the owner has too many tasks."""
        self._reserve(owner)
        return self._put(owner, task)

    @contextmanager
    def reserve(self, owner: str) -> Iterator[Submit]:
        """Reserve a place for a task still to come, such as an upload; yields what submits it. Raises TooManyRequests."""
        self._reserve(owner)
        submitted: list[Future[Any]] = []

        def submit(task: Callable[[], Any]) -> "Future[Any]":
            submitted.append(self._put(owner, task))
            return submitted[0]

        try:
            yield submit
        finally:
            if not submitted:
                self._release(owner)

    def _reserve(self, owner: str) -> None:
        with self._lock:
            if self._reserved[owner] >= self._max_tasks:
                raise TooManyRequests(self._refusal, seconds=RETRY_SECONDS)
            self._reserved[owner] += 1

    def _release(self, owner: str) -> None:
        with self._lock:
            self._reserved[owner] -= 1
            if not self._reserved[owner]:
                del self._reserved[owner]

    def _put(self, owner: str, task: Callable[[], Any]) -> "Future[Any]":
        done: Future[Any] = Future()
        context = contextvars.copy_context()
        with self._lock:
            self._waiting.setdefault(owner, deque()).append((done, lambda: context.run(task)))
        self._begin()
        return done

    def _begin(self) -> None:
        """Hand the next task to a thread, if one is free."""
        with self._lock:
            if not self._waiting or self._shares.running >= self._threads:
                return
            owner = min(self._waiting, key=self._shares.rank)
            done, task = self._waiting[owner].popleft()
            if not self._waiting[owner]:
                del self._waiting[owner]
            self._shares.begin(owner)
        # A task cancelled while it waited is not run, but its turn ends like any other.
        wanted = done.set_running_or_notify_cancel()
        self._executor.submit(task if wanted else lambda: None).add_done_callback(
            lambda ended: self._end(owner, ended, done if wanted else None)
        )

    def _end(self, owner: str, ended: "Future[Any]", done: "Future[Any] | None") -> None:
        self._release(owner)  # not already on cancellation: until its turn, a task keeps its data in memory
        with self._lock:
            self._shares.end(owner, self._waiting)
        self._begin()
        if done is None:
            return
        if (error := ended.exception()) is not None:
            done.set_exception(error)
        else:
            done.set_result(ended.result())


class ImageQueue:
    """Runs requests that decode images: a few at once, fairly between addresses, and a limited number of images a minute.

    Waiting requests hold no thread, so that no number of images keeps the page from answering others.
    """

    def __init__(self, limits: Limits) -> None:
        self._queue = FairQueue("images", MAX_CHILDREN, MAX_IMAGE_REQUESTS, refusal=REFUSAL)
        self._rate = RateLimit(limits.pictures_per_minute, limits.pictures_per_minute_per_address)

    async def run(
        self,
        client: Client,
        images: int,
        task: Callable[[], T],
        disconnected: Callable[[], Awaitable[bool]] | None = None,
    ) -> T:
        """The result of `task`, which decodes this number of new `images`. May be called from any event loop.

        Raises TooManyRequests if the client has asked too often or has too much waiting, and if it has `disconnected`, to free
        its place.
        """
        if images and (wait := self._rate.take(client.browser or client.address, client.address, images)):
            raise TooManyRequests(REFUSAL, seconds=ceil(wait))
        with serving(client):
            waiting = asyncio.wrap_future(self._queue.submit(client.address, task))
        try:
            while not (await asyncio.wait({waiting}, timeout=POLL_INTERVAL))[0]:
                if disconnected is not None and await disconnected():
                    raise TooManyRequests(REFUSAL, seconds=RETRY_SECONDS)
            return waiting.result()
        finally:
            waiting.cancel()  # does nothing to a task that is done
