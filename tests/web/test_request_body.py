"""Bodies that are in memory at once: counted as they come, by address and in all, and let go when their request ends."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.types import Message, Receive

from magistral_ui.web.request_body import Held, HeldBytes


def sending(*sizes: int) -> Receive:
    """A request that sends pieces of these sizes."""
    pieces: Iterator[dict[str, Any]] = iter([{"type": "http.request", "body": bytes(size)} for size in sizes])

    async def receive() -> Message:
        return next(pieces)

    return receive


def pull(receive: Receive) -> int:
    async def one() -> Message:
        return await receive()

    return len(asyncio.run(one())["body"])


def test_one_address_holds_only_so_much_and_others_have_room() -> None:
    held = HeldBytes(max_bytes=1_000, per_address=300)
    with ExitStack() as open_requests:
        mine = [open_requests.enter_context(held.counted(sending(100, 100), "a")) for _ in range(2)]
        assert [pull(each) for each in (*mine, mine[0])] == [100, 100, 100]
        with pytest.raises(Held):
            pull(mine[1])
        with held.counted(sending(300), "b") as other:
            assert pull(other) == 300
    with held.counted(sending(300), "a") as again:
        assert pull(again) == 300


def test_everybody_together_holds_only_so_much() -> None:
    held = HeldBytes(max_bytes=250, per_address=200)
    with held.counted(sending(200), "a") as first, held.counted(sending(50, 1, 0), "b") as second:
        assert (pull(first), pull(second)) == (200, 50)
        with pytest.raises(Held):
            pull(second)
        assert pull(second) == 0  # an end takes no room
