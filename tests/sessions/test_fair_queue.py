"""Turns between those who wait for the same few threads."""

import contextvars
import threading

import pytest

from magistral_ui.errors import TooManyRequests
from magistral_ui.sessions.fair_queue import FairQueue


class Held:
    """Work that begins in an order that is written down, and ends when it may."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.began, self.may_end = threading.Semaphore(0), threading.Semaphore(0)

    def work(self, name: str) -> str:
        self.order.append(name)
        self.began.release()
        assert self.may_end.acquire(timeout=60)
        return name


def test_who_comes_later_with_little_does_not_wait_for_all_of_who_came_with_much() -> None:
    queue, held = FairQueue("test", threads=1, waiting=10), Held()
    many = [queue.submit("many", lambda n=n: held.work(f"many {n}")) for n in range(6)]
    assert held.began.acquire(timeout=60)
    few = [queue.submit("few", lambda n=n: held.work(f"few {n}")) for n in range(2)]
    for _ in range(8):
        held.may_end.release()
    assert [each.result(60) for each in (*many, *few)]
    assert held.order[:5] == ["many 0", "few 0", "many 1", "few 1", "many 2"]


def test_a_party_does_not_get_a_second_thread_while_another_waits() -> None:
    queue, held = FairQueue("test", threads=2, waiting=10), Held()
    mine = [queue.submit("mine", lambda: held.work("mine")) for _ in range(3)]
    theirs = queue.submit("theirs", lambda: held.work("theirs"))
    for _ in range(2):
        assert held.began.acquire(timeout=60)
    held.may_end.release()
    assert held.began.acquire(timeout=60)
    assert "theirs" in held.order
    for _ in range(3):
        held.may_end.release()
    assert [each.result(60) for each in (*mine, theirs)] == ["mine"] * 3 + ["theirs"]


def test_only_so_much_of_one_party_waits() -> None:
    queue, held = FairQueue("test", threads=1, waiting=3), Held()
    first = queue.submit("mine", lambda: held.work("mine"))
    assert held.began.acquire(timeout=60)
    rest = [queue.submit("mine", lambda: "done") for _ in range(2)]
    with pytest.raises(TooManyRequests):
        queue.submit("mine", lambda: "no")
    other = queue.submit("other", lambda: "other")
    held.may_end.release()
    assert [each.result(60) for each in (first, *rest, other)] == ["mine", "done", "done", "other"]


def test_a_failure_is_told_and_the_queue_continues() -> None:
    queue = FairQueue("test", threads=1)
    failed = queue.submit("mine", lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        failed.result(60)
    assert queue.submit("mine", lambda: "fine").result(60) == "fine"


def test_what_is_cancelled_while_it_waits_is_not_done() -> None:
    queue, held = FairQueue("test", threads=1), Held()
    first = queue.submit("mine", lambda: held.work("first"))
    assert held.began.acquire(timeout=60)
    second = queue.submit("mine", lambda: held.work("second"))
    assert second.cancel()
    held.may_end.release()
    first.result(60)
    assert queue.submit("mine", lambda: "third").result(60) == "third"
    assert held.order == ["first"]


def test_work_knows_who_has_asked_for_it() -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")
    token = who.set("me")
    asked = FairQueue("test").submit("mine", who.get)
    who.reset(token)
    assert asked.result(60) == "me"


def test_a_place_is_held_for_what_is_still_to_come() -> None:
    queue = FairQueue("test", waiting=1)
    with queue.reserve("mine") as submit:
        with pytest.raises(TooManyRequests):
            queue.submit("mine", lambda: "no")
        assert submit(lambda: "done").result(60) == "done"
    assert queue.submit("mine", lambda: "again").result(60) == "again"
