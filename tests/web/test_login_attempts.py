"""Wrong passwords slow down who sends them, wherever they come from, and nobody who has not failed."""

import itertools

import pytest

from magistral_ui.errors import TooManyRequests
from magistral_ui.web.passwords import FREE_TRIES, MAX_NAME_WAIT, MAX_WAIT, NAME_TRIES, LoginAttempts


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def wait(attempts: LoginAttempts, *who: str) -> int:
    """How long they have to wait; 0 where they may try."""
    try:
        attempts.check(*who)
    except TooManyRequests as refused:
        return int(refused.message.values["seconds"])
    return 0


def fail(attempts: LoginAttempts, times: int, *who: str) -> None:
    for _ in range(times):
        attempts.failed(*who)


def test_an_address_waits_longer_with_each_wrong_one_and_not_for_ever() -> None:
    clock = Clock()
    attempts = LoginAttempts(clock)
    fail(attempts, FREE_TRIES - 1, "a")
    assert wait(attempts, "a") == 0
    waits = []
    for _ in range(8):
        attempts.failed("a")
        waits.append(wait(attempts, "a"))
        clock.now += waits[-1]
        assert wait(attempts, "a") == 0
    assert waits[:4] == [30, 60, 120, 240]
    assert waits[-1] == MAX_WAIT
    clock.now += 3_600
    fail(attempts, FREE_TRIES - 1, "a")
    assert wait(attempts, "a") == 0, "an hour later it is like new"


def test_nobody_else_waits_however_many_are_wrong() -> None:
    attempts = LoginAttempts(Clock())
    for number in range(5_000):
        fail(attempts, 1 + number % 7, f"a{number}", "ann")
    assert wait(attempts, "clean") == 0
    assert wait(attempts, "clean", "ann") == 0


def test_a_name_that_is_tried_from_everywhere_is_tried_once_from_each() -> None:
    attempts = LoginAttempts(Clock())
    for number in range(NAME_TRIES):
        attempts.failed(f"a{number}", "ann")
    attempts.failed("b", "ann")
    assert wait(attempts, "b", "ann") == 30
    assert wait(attempts, "b", "bob") == 0, "another name"
    for number in range(500):
        attempts.failed(f"c{number}", "ann")
    assert wait(attempts, "c1", "ann") == MAX_NAME_WAIT


def test_a_name_cools_down() -> None:
    clock = Clock()
    attempts = LoginAttempts(clock)
    for number in range(10_000):
        attempts.failed(f"a{number % 999}", "ann")
    clock.now += 3_600
    attempts.failed("b", "ann")
    assert wait(attempts, "b", "ann") == 0


def test_whoever_was_in_before_is_not_slowed_by_others() -> None:
    attempts = LoginAttempts(Clock())
    attempts.succeeded("home", "ann", "her browser")
    for number in range(500):
        attempts.failed(f"a{number}", "ann")
    attempts.failed("home", "ann", "her browser")
    assert wait(attempts, "home", "ann", "her browser") == 0
    attempts.failed("train", "ann", "her browser")
    assert wait(attempts, "train", "ann", "her browser") == 0
    fail(attempts, 50, "home", "ann", "a guest")
    assert wait(attempts, "home", "ann", "a guest") == MAX_WAIT
    assert wait(attempts, "home", "ann", "her browser") == 0, "her browser has a count of its own"
    fail(attempts, FREE_TRIES, "home", "ann", "her browser")
    assert wait(attempts, "home", "ann", "her browser") > 0, "and one that ends"


def test_a_right_password_of_one_s_own_does_not_buy_tries_for_another_s() -> None:
    attempts = LoginAttempts(Clock())
    for _ in range(FREE_TRIES):
        attempts.failed("a", "ann", "b")
        attempts.succeeded("a", "bob", "b")
    assert wait(attempts, "a", "ann", "b") == 30


def test_many_names_from_one_address_are_one_address() -> None:
    attempts = LoginAttempts(Clock())
    for number in range(FREE_TRIES):
        attempts.failed("a", f"name {number}")
    assert wait(attempts, "a", "another name") == 30
    for number in range(50):
        attempts.failed("a", f"name {number}")
    attempts.succeeded("a", "mine")
    assert wait(attempts, "a", "mine") > 0


def test_mistyping_is_forgiven_by_the_right_one() -> None:
    attempts = LoginAttempts(Clock())
    fail(attempts, FREE_TRIES - 1, "a", "ann")
    attempts.succeeded("a", "ann")
    assert len(attempts) == 0
    fail(attempts, FREE_TRIES - 1, "a", "ann")
    assert wait(attempts, "a", "ann") == 0


@pytest.mark.parametrize("mine", [FREE_TRIES - 1, FREE_TRIES])
def test_failures_are_not_forgotten_because_others_fail(mine: int) -> None:
    """What is kept is bounded. Addresses that failed once do not push out one that waits, nor the other way round."""
    attempts = LoginAttempts(Clock(), kept=100)
    fail(attempts, mine, "mine")
    others = 1 if mine >= FREE_TRIES else FREE_TRIES
    for number in range(10_000):
        fail(attempts, others, f"other {number}")
    few, many = min(others, FREE_TRIES - 1), int(others >= FREE_TRIES)
    assert len(attempts) <= 100 * (bool(few) + many) + 1
    fail(attempts, FREE_TRIES - mine, "mine")
    assert wait(attempts, "mine") == 30


def test_what_is_kept_is_bounded() -> None:
    attempts = LoginAttempts(Clock(), kept=50)
    for number, times in itertools.product(range(500), range(1, 8)):
        fail(attempts, times, f"a{number}-{times}", f"name {number}")
        attempts.succeeded(f"b{number}", "ann", f"browser {number}")
    assert len(attempts) <= 100
