"""A function in a child process that may not take for ever, nor all the memory."""

import os
import sys
import time

import pytest

from magistral_ui import bounded_process
from magistral_ui.bounded_process import BoundedProcess, ChildEnded

HERE = "tests.test_bounded_process"


def act(what: str, number: int = 0) -> object:
    """What the child does."""
    if what == "pid":
        return os.getpid()
    if what == "priority":
        return os.nice(0)
    if what == "spin":
        while True:
            number += 1
    if what == "sleep":
        time.sleep(600)
    if what == "fill":
        return len(bytearray(4 * bounded_process.MEMORY_BYTES))
    if what == "print":
        print("loud", flush=True)
        return "printed"
    if what == "exit":
        os._exit(3)
    if what == "fail":
        raise ValueError(what)
    return [what, number]


def test_calls_are_answered_by_one_child_that_ends_with_its_owner() -> None:
    with BoundedProcess(f"{HERE}:act") as process:
        assert process.call("größer", 7) == ["größer", 7]
        child = process.call("pid")
        assert process.call("pid") == child != os.getpid()
        assert process.call("print") == "printed", "what a library prints is no answer"
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@pytest.mark.parametrize("what", ["spin", "fill", "exit", "fail"])
@pytest.mark.skipif(sys.platform == "win32", reason="there only the clock bounds a process")
def test_a_call_that_takes_too_much_is_ended_and_the_next_one_answered(what: str) -> None:
    with BoundedProcess(f"{HERE}:act") as process:
        with pytest.raises(ChildEnded):
            process.call(what)
        assert process.call("again", 1) == ["again", 1]


def test_the_clock_ends_what_does_nothing() -> None:
    with BoundedProcess(f"{HERE}:act", wall_seconds=0.2, starts=1) as process, pytest.raises(ChildEnded):
        process.call("sleep")


@pytest.mark.skipif(sys.platform == "win32", reason="there its class of priority is lower")
def test_it_leaves_the_processor_to_whoever_serves_the_page() -> None:
    with BoundedProcess(f"{HERE}:act") as process:
        assert process.call("priority") == min(19, os.nice(0) + bounded_process.NICE)


def test_who_ends_too_many_children_is_not_served_any_more() -> None:
    with BoundedProcess(f"{HERE}:act", starts=2) as process:
        for _ in range(2):
            with pytest.raises(ChildEnded):
                process.call("exit")
        with pytest.raises(ChildEnded):
            process.call("fine")


def test_nothing_starts_without_a_call() -> None:
    with BoundedProcess("no.such:function") as process:
        assert process._child is None
