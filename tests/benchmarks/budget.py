"""Runs measurements one after the other within a given time; what fails or comes too late is told in its row."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from magistral_ui.engines.weights.load_errors import LIBRARY_ERRORS
from magistral_ui.errors import MagistralUIError, first_line
from tests.benchmarks.table import Row, not_measured


@dataclass(frozen=True, slots=True)
class Task:
    """A measurement, and the name that stands in the table if there is no result."""

    what: str
    measure: Callable[[], Iterable[Row]]


class TurnedOff(Exception):
    """There is nothing to measure, because a piece of the engine has turned itself off here; the message says why."""


def within(seconds: float, tasks: Iterable[Task]) -> Iterator[Row]:
    """The rows of all tasks that begin within `seconds`; each of the others has a row that says why there is none."""
    end = time.monotonic() + seconds
    for task in tasks:
        if time.monotonic() > end:
            yield not_measured(task.what, "no time was left")
            continue
        try:
            yield from task.measure()
        except TurnedOff as off:
            yield not_measured(task.what, str(off))
        except (*LIBRARY_ERRORS, MagistralUIError, AssertionError) as error:
            yield not_measured(task.what, f"failed: {first_line(error)}")
