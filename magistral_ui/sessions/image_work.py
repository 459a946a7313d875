"""Runs work that decodes pictures in threads of its own, in fair turns between addresses; it does not know what the work is."""

import asyncio
from collections.abc import Awaitable, Callable
from math import ceil
from typing import TypeVar

from magistral_ui.chat.image_decoding import MAX_CHILDREN, REFUSAL
from magistral_ui.client import Client, calling
from magistral_ui.errors import TooManyRequests
from magistral_ui.sessions.fair_queue import RETRY_SECONDS, FairQueue
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.token_buckets import Pace

T = TypeVar("T")
MAX_WAITING = 64
"""Requests with pictures from one address that are in work or wait: a school has one address."""
POLL_SECONDS = 1.0
"""How often it is looked whether somebody who waits has left."""


class ImageWork:
    """So many requests with pictures at once, by address, and so many pictures a minute, by visitor and by address.

    Who waits holds no thread, so that no number of pictures keeps the page from answering others.
    """

    def __init__(self, limits: Limits) -> None:
        self._queue = FairQueue("pictures", MAX_CHILDREN, MAX_WAITING, refusal=REFUSAL)
        self._pace = Pace(limits.images_per_minute, limits.images_per_minute_per_address)

    async def run(
        self, caller: Client, images: int, work: Callable[[], T], gone: Callable[[], Awaitable[bool]] | None = None
    ) -> T:
        """What `work` gives, which looks at so many new `images`, once it is the caller's turn. Any event loop may ask.

        Raises TooManyRequests where they have asked too often or too much of theirs waits, and, with the place free for
        others, where they have `gone`, to nobody.
        """
        self._count(caller, images)
        with calling(caller):
            waiting = asyncio.wrap_future(self._queue.submit(caller.address, work))
        try:
            while not (await asyncio.wait({waiting}, timeout=POLL_SECONDS))[0]:
                if gone is not None and await gone():
                    raise TooManyRequests(REFUSAL, seconds=RETRY_SECONDS)  # nobody reads it
            return waiting.result()
        finally:
            waiting.cancel()  # one that is done stays done

    def _count(self, caller: Client, images: int) -> None:
        if not images:
            return
        if wait := self._pace.take(caller.browser or caller.address, caller.address, images):
            raise TooManyRequests(REFUSAL, seconds=ceil(wait))
