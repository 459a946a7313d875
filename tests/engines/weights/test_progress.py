"""How far loading is: bytes that only grow, a rate that follows, and an end when the engine is closed."""

import threading

import pytest

from magistral_ui.engines.base import Loading
from magistral_ui.engines.weights.progress import RATE_WINDOW_SECONDS, Cancelled, Meter


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_time_left_follows_the_rate() -> None:
    clock, reports = Clock(), []
    meter = Meter("downloading", 1_000, reports.append, clock=clock)
    for _ in range(10):
        clock.now += 1
        meter.add(10)
    assert reports[0] == Loading("downloading", 0, 1_000)
    assert reports[-1] == Loading("downloading", 100, 1_000, 90.0)
    for _ in range(int(RATE_WINDOW_SECONDS) + 2):  # the line becomes five times as fast: soon only that counts
        clock.now += 1
        meter.add(50)
    assert reports[-1].seconds_left == pytest.approx((1_000 - 950) / 50)


def test_what_is_there_already_counts_as_done_but_not_as_fast() -> None:
    clock, reports = Clock(), []
    meter = Meter("downloading", 1_000, reports.append, done=900, clock=clock)
    clock.now += 2
    meter.add(20)
    assert reports == [Loading("downloading", 900, 1_000), Loading("downloading", 920, 1_000, 8.0)]


def test_not_every_byte_is_a_report() -> None:
    clock, reports = Clock(), []
    meter = Meter("reading", 1_000, reports.append, clock=clock)
    for _ in range(1_000):
        clock.now += 0.001
        meter.add(1)
    assert len(reports) < 10
    assert reports[-1].done == 1_000


def test_nothing_is_promised_in_the_first_second_or_when_nothing_moves() -> None:
    clock, reports = Clock(), []
    meter = Meter("reading", 1_000, reports.append, clock=clock)
    clock.now = 0.5
    meter.add(100)
    assert reports[-1].seconds_left is None
    clock.now = 60.0
    meter.add(-100)
    assert reports[-1] == Loading("reading", 0, 1_000, None)


def test_closing_ends_it() -> None:
    closing = threading.Event()
    meter = Meter("reading", 10, lambda _: None, closing)
    meter.add(1)
    closing.set()
    with pytest.raises(Cancelled):
        meter.add(1)
