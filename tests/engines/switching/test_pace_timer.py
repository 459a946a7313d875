"""Timing in the background: it waits for replies, gives way to another model, and is known once it is done."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from magistral_ui.engines.switching import machine, pace_timer
from magistral_ui.engines.switching.machine import Machine
from magistral_ui.engines.switching.pace_timer import PaceTimer
from magistral_ui.engines.weights.devices import Device
from magistral_ui.models.memory import GIB
from magistral_ui.models.shape import MINISTRAL_3_3B_SHAPE, MINISTRAL_3_8B_SHAPE, ModelShape
from tests.waiting import until

SMALL, LARGE = (MINISTRAL_3_3B_SHAPE, "nf4"), (MINISTRAL_3_8B_SHAPE, "nf4")
CPU = Machine(Device("cpu", "CPU", 8 * GIB, 8 * GIB), None)
STEPS = 5
TIMING_AT_EXIT = """
import threading
import torch
from magistral_ui.engines.switching import machine, pace_timer
from magistral_ui.engines.weights.devices import Device
from magistral_ui.models.shape import MINISTRAL_3_3B_SHAPE

begun = threading.Event()

def estimate(shape, precision, device, rest):
    while True:
        rest()
        begun.set()
        torch.randn(2_000, 2_000)  # releases Python's lock, and takes it again after Python has ended

machine.estimated_pace = estimate
cpu = machine.Machine(Device("cpu", "CPU", 2**33, 2**33), None)
timer = pace_timer.PaceTimer(cpu, lambda: True, lambda: True)
timer.want(MINISTRAL_3_3B_SHAPE, "nf4")
begun.wait()
"""


class Timed:
    """Stands for the machine: the steps that were run of an estimate, and what they wait for."""

    def __init__(self) -> None:
        self.is_idle = self.may_run = True
        self.steps = 0
        self.ready = threading.Semaphore(0)
        self.timer = PaceTimer(CPU, lambda: self.may_run, lambda: self.is_idle)

    def estimate(self, shape: ModelShape, precision: str, _: Machine, rest: Callable[[], None]) -> float | None:
        for _ in range(STEPS):
            rest()
            self.steps += 1
            self.ready.acquire(timeout=60)
        return None if shape is LARGE[0] else 7.0

    def let_steps(self, count: int) -> None:
        self.ready.release(count)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Timed]:
    found = Timed()
    monkeypatch.setattr(machine, "estimated_pace", found.estimate)
    monkeypatch.setattr(Machine, "known_pace", lambda _: lambda *_: (None, False))
    monkeypatch.setattr(pace_timer, "POLL_SECONDS", 0.01)
    yield found
    found.let_steps(100)
    found.timer.stop()


def test_a_pace_is_known_once_it_was_timed(timed: Timed) -> None:
    timed.let_steps(2 * STEPS)
    timed.timer.want(*SMALL)
    timed.timer.want(*LARGE)
    until(lambda: timed.timer.is_tried(*LARGE) and not timed.timer.running)
    assert timed.timer.known()(*SMALL) == (7.0, False)
    assert timed.timer.known()(*LARGE) == (None, False), "no estimate was possible, so none is tried again"


def test_no_step_is_run_beside_a_reply(timed: Timed) -> None:
    timed.timer.want(*SMALL)
    until(lambda: timed.steps == 1)
    timed.is_idle = False
    timed.let_steps(STEPS)
    until(lambda: timed.ready._value == STEPS - 1, "the step that runs ends")
    assert (timed.steps, timed.timer.running) == (1, True)
    timed.is_idle = True
    until(lambda: timed.timer.is_tried(*SMALL))
    assert timed.steps == STEPS


def test_beside_another_model_it_is_given_up(timed: Timed) -> None:
    timed.timer.want(*SMALL)
    until(lambda: timed.steps == 1)
    timed.may_run = False
    timed.let_steps(STEPS)
    until(lambda: not timed.timer.running)
    assert not timed.timer.is_tried(*SMALL)
    timed.timer.want(*SMALL)
    assert not timed.timer.running
    timed.may_run = True
    timed.timer.want(*SMALL)
    timed.let_steps(STEPS)
    until(lambda: timed.timer.is_tried(*SMALL))


def test_stopping_waits_for_the_step_that_runs(timed: Timed) -> None:
    timed.timer.want(*SMALL)
    until(lambda: timed.steps == 1)
    timed.let_steps(1)
    timed.timer.stop()
    assert not timed.timer.running
    assert timed.steps <= 2


def test_python_exits_in_order_while_a_step_runs() -> None:
    ended = subprocess.run([sys.executable, "-c", TIMING_AT_EXIT], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
