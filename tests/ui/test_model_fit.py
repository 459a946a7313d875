"""Which models fit, in which precision: by one rule for all of them, before and after they were timed."""

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from magistral_ui.engines.base import ModelInfo, ModelRequest, Ready
from magistral_ui.engines.switching import machine as machine_module
from magistral_ui.engines.weights import devices, quantization
from magistral_ui.errors import DeviceTooSmall, ModelRefused
from magistral_ui.models.cards import DEMO, FAMILY, MINISTRAL_3_3B, MINISTRAL_3_8B, RE_UPLOADS
from magistral_ui.models.ladder import Candidate
from magistral_ui.models.memory import GIB
from magistral_ui.ui import model_fit
from magistral_ui.ui.model_fit import ModelFit
from magistral_ui.ui.model_values import _choices
from tests.waiting import until

PACES = {"bfloat16": 2.0, "nf4": 9.0}
COPY = next(name for name, original in RE_UPLOADS.items() if original is MINISTRAL_3_3B)
READY = Ready(ModelInfo("demo", "demo", "float32", "CPU", 8_192))


class Machine:
    """A processor with as much memory as is wanted, on which the demo model runs."""

    def __init__(self) -> None:
        self.may_time = threading.Event()
        self.engine = SimpleNamespace(
            current=ModelRequest("demo", device="cpu"),
            card=DEMO,
            held_bytes=lambda: 0,
            status=lambda: READY,
            running=list,
        )
        self.fit = ModelFit(self.engine)  # type: ignore[arg-type]
        self.free = 256 * GIB

    def timed(self) -> None:
        self.may_time.set()
        until(lambda: self.fit.look().best is not None)

    def precisions(self) -> dict[str, str]:
        return {card.key: self.fit.look().found[card.key].plan.precision for card in FAMILY}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    found = Machine()

    def estimate(_: object, precision: str, *__: object) -> float:
        assert found.may_time.wait(60)
        return PACES[precision]

    whole = devices.psutil.virtual_memory()
    memory = lambda: whole._replace(available=found.free, total=found.free)  # noqa: E731
    monkeypatch.setattr(devices.psutil, "virtual_memory", memory)
    monkeypatch.setattr(devices, "good_precisions", lambda _: ("bfloat16", "nf4"))
    monkeypatch.setattr(machine_module, "has_llama_cpp", lambda: False)
    monkeypatch.setattr(machine_module, "estimated_pace", estimate)
    monkeypatch.setattr(machine_module.Machine, "known_pace", lambda _: lambda *_: (None, False))
    yield found
    found.may_time.set()
    found.fit.stop_timing()


def test_until_all_are_timed_fit_alone_decides(machine: Machine) -> None:
    assert set(machine.precisions().values()) == {"bfloat16"}
    assert machine.fit.look().best is None
    assert machine.fit.look().automatic_precision(MINISTRAL_3_3B.key) == "auto"
    machine.timed()
    assert set(machine.precisions().values()) == {"nf4"}
    look = machine.fit.look()
    assert look.best == FAMILY[0].key
    assert look.automatic_precision(MINISTRAL_3_3B.key) == "nf4", "what is loaded is what the list shows"
    assert look.automatic_precision("demo") == "auto"


def test_what_was_timed_while_somebody_looked_is_worth_another_look(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert machine.fit.look().timing
    timer, copied = machine.fit._open_timer(), model_fit._copy

    def late(*of: Any) -> Candidate:
        machine.may_time.set()
        until(lambda: not timer.running)
        return copied(*of)

    monkeypatch.setattr(model_fit, "_copy", late)
    look = machine.fit.look()
    assert (look.best, look.timing) == (None, True)
    while look.timing:  # a pace that is too slow has another precision timed
        look = machine.fit.look()
    assert look.best == FAMILY[0].key


def test_the_choice_that_is_taken_comes_first(machine: Machine) -> None:
    before = _choices(machine.fit.look().found[MINISTRAL_3_8B.key], machine.fit.look())
    assert [(each["precision"], each["pace"]) for each in before] == [("bfloat16", None), ("nf4", None)]
    machine.timed()
    after = _choices(machine.fit.look().found[MINISTRAL_3_8B.key], machine.fit.look())
    assert [(each["precision"], each["pace"]) for each in after] == [("nf4", 9.0), ("bfloat16", 2.0)]


def test_a_quantized_copy_is_checked_by_its_own_precision(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.free = 6 * GIB
    look = machine.fit.look()
    assert [each.precision for each in look.found[COPY].plans] == ["nf4"]
    look.check(COPY, "auto", None)
    with pytest.raises(DeviceTooSmall):
        look.check(MINISTRAL_3_3B.key, "bfloat16", None)
    machine.free = GIB
    with pytest.raises(ModelRefused):
        machine.fit.look().check(COPY, "auto", None)
    machine.free = 6 * GIB
    monkeypatch.setattr(quantization, "can_quantize", lambda: False)
    with pytest.raises(ModelRefused) as refused:
        machine.fit.look().check(COPY, "auto", None)
    assert refused.value.message.key == "quantization_not_here"


@pytest.mark.parametrize(
    ("torch", "precision", "engine"), [(True, "float32", "transformers"), (False, "BF16", "llama.cpp")]
)
def test_the_demo_model_is_listed_as_what_runs_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, torch: bool, precision: str, engine: str
) -> None:
    monkeypatch.setattr(machine_module, "has_torch", lambda: torch)
    look = machine.fit.look()
    (choice,) = _choices(look.found["demo"], look)
    assert (choice["precision"], choice["engine"], choice["context"]) == (precision, engine, 8_192)
    assert 0 < choice["needs"] < 2 * GIB
    assert look.automatic_precision("demo") == "auto"
