"""Who counts as reading an answer, and who loses it: on a clock and connections of the test's own."""

from collections.abc import Callable
from typing import Any

from magistral_ui.web.connections import ReaderState, SlowReaders


class Clock:
    """An event loop's clock, which goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, Callable[[], None], Clock.Handle]] = []

    class Handle:
        cancelled = False

        def cancel(self) -> None:
            self.cancelled = True

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, act: Callable[[], None]) -> Handle:
        self._due.append((self.now + seconds, act, Clock.Handle()))
        return self._due[-1][2]

    def pass_by(self, seconds: float) -> None:
        until = self.now + seconds
        while due := [each for each in self._due if each[0] <= until and not each[2].cancelled]:
            first = min(due, key=lambda each: each[0])
            self._due.remove(first)
            self.now = first[0]
            first[1]()
        self.now = until


class Connection:
    """A transport with so many bytes to send; there is no socket behind it."""

    def __init__(self, left: int) -> None:
        self.left, self.aborted, self.high = left, False, -1

    def get_extra_info(self, name: str) -> Any:
        assert name == "socket"
        return self

    def setsockopt(self, *_: object) -> None:
        raise OSError

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high

    def get_write_buffer_size(self) -> int:
        return self.left

    def abort(self) -> None:
        self.aborted, self.left = True, 0


def connected(answers: SlowReaders, clock: Any, left: int, peer: str = "a") -> tuple[Connection, ReaderState]:
    connection = Connection(left)
    return connection, answers.reader(connection, peer, clock)


def test_who_takes_nothing_in_is_dropped() -> None:
    clock = Clock()
    connection, reader = connected(SlowReaders(25), clock, 100_000)
    assert connection.high == 0
    reader.paused()
    clock.pass_by(24)
    assert not connection.aborted
    clock.pass_by(4)
    assert connection.aborted


def test_who_reads_slowly_is_not() -> None:
    clock = Clock()
    connection, reader = connected(SlowReaders(25), clock, 10_000_000)
    reader.paused()
    while connection.left:
        connection.left -= 100_000
        clock.pass_by(20)
        assert not connection.aborted
    reader.resumed()
    clock.pass_by(100)
    assert not connection.aborted


def test_the_time_begins_anew_with_each_answer_that_waits() -> None:
    clock = Clock()
    connection, reader = connected(SlowReaders(25), clock, 1_000)
    for _ in range(5):
        reader.paused()
        clock.pass_by(20)
        reader.resumed()
    assert not connection.aborted
    connection.left = 1_000
    reader.paused()
    connection.left += 5  # more to be sent is nothing that was read
    clock.pass_by(30)
    assert connection.aborted


def test_what_waits_is_bounded_and_the_peer_with_the_most_loses() -> None:
    clock = Clock()
    answers = SlowReaders(25, max_unsent=1_000)
    single, reader = connected(answers, clock, 500, "a")
    reader.paused()
    greedy = [connected(answers, clock, size, "b") for size in (200, 250, 100)]
    for _, each in greedy:
        each.paused()
    assert [connection.aborted for connection, _ in greedy] == [False, True, False]
    assert not single.aborted
    for _, each in greedy:
        each.resumed()
    reader.resumed()
    more, late = connected(answers, clock, 1_000, "c")
    late.paused()
    assert not more.aborted
