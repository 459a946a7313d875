"""Who may begin one more reply: counted by visitor, by address and in all, with a clock of the test's own."""

import time

import pytest

from magistral_ui.chat.events import Finished, Prefilling, Queued, Usage
from magistral_ui.engines.generation import Generation
from magistral_ui.errors import Overloaded, QueueFull, TooManyReplies, TooManyRequests
from magistral_ui.sessions.admission import QUEUE, Admission
from magistral_ui.sessions.limits import Limits


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def begin(admission: Admission, visitor: str, address: str = "a") -> Generation:
    generation = Generation()
    with admission.reply(visitor, address) as begun:
        begun(generation)
    return generation


def test_a_visitor_s_replies_are_counted_until_they_end() -> None:
    admission = Admission(Limits(replies=2))
    first, _ = begin(admission, "v"), begin(admission, "v")
    with pytest.raises(TooManyReplies) as refused:
        begin(admission, "v")
    assert refused.value.message.values == {"limit": 2}
    begin(admission, "w")
    first.put(Finished("stop", Usage()))
    begin(admission, "v")


def test_an_address_and_everybody_have_their_own_counts() -> None:
    admission = Admission(Limits(replies_per_address=2, replies_in_all=3))
    begin(admission, "v"), begin(admission, "w")
    with pytest.raises(TooManyReplies) as refused:
        begin(admission, "x")
    assert refused.value.message.key == "too_many_replies_from_address"
    begin(admission, "x", "b")
    with pytest.raises(Overloaded):
        begin(admission, "y", "c")


def queue(admission: Admission, visitor: str) -> Generation:
    generation = begin(admission, visitor)
    generation.put(Queued(1))
    return generation


def test_nobody_alone_fills_the_queue() -> None:
    admission = Admission(Limits())
    first, *_ = [queue(admission, "v") for _ in range(int(QUEUE.of_visitor))]
    with pytest.raises(QueueFull):
        begin(admission, "v")
    begin(admission, "w")
    first.put(Prefilling(0, 10))  # its turn has come
    begin(admission, "v")


def test_only_so_many_wait_in_all() -> None:
    admission = Admission(Limits())
    waiting = [queue(admission, f"{n}") for n in range(int(QUEUE.in_all))]
    with pytest.raises(QueueFull) as refused:
        begin(admission, "v")
    assert refused.value.message.values == {"limit": 64}
    waiting[0].put(Finished("cancelled", Usage()))
    begin(admission, "v")


def test_whoever_is_refused_for_the_queue_has_not_asked_too_often() -> None:
    admission = Admission(Limits(messages_per_minute=2), Clock())
    waiting = [queue(admission, f"{n}") for n in range(int(QUEUE.in_all))]
    for _ in range(3):
        with pytest.raises(QueueFull):
            begin(admission, "v")
    waiting[0].put(Finished("cancelled", Usage()))
    begin(admission, "v")


def test_a_reply_that_never_began_gives_its_place_back() -> None:
    admission = Admission(Limits(replies=1))
    with pytest.raises(RuntimeError), admission.reply("v", "a"):
        raise RuntimeError
    begin(admission, "v")


@pytest.mark.parametrize("seconds", [60, 900, 7_200])
def test_a_reply_that_nobody_looks_at_ends_when_the_limits_say(seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    admission = Admission(Limits(unattended_seconds=seconds))
    generation = begin(admission, "v")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + seconds - 5)
    admission.stop_unattended()
    assert not generation.stop_requested
    generation.take()  # somebody looks
    monkeypatch.setattr(time, "monotonic", lambda: now + seconds + 5)
    admission.stop_unattended()
    assert not generation.stop_requested
    monkeypatch.setattr(time, "monotonic", lambda: now + 2 * seconds + 5)
    admission.stop_unattended()
    assert generation.stop_requested


def test_who_asks_too_often_is_told_for_how_long_to_wait() -> None:
    clock = Clock()
    admission = Admission(Limits(messages_per_minute=6), clock)
    for _ in range(3):
        begin(admission, "v").put(Finished("stop", Usage()))
    with pytest.raises(TooManyRequests) as refused:
        begin(admission, "v")
    assert refused.value.message.values == {"seconds": 10}
    clock.now += 10
    begin(admission, "v")


def test_nobody_begins_while_it_closes() -> None:
    admission = Admission(Limits())
    admission.closing = True
    with pytest.raises(Overloaded):
        begin(admission, "v")
