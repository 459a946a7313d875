"""`--plan` on this machine: llama.cpp is timed once, and all rows follow from that."""

import pytest

from magistral_ui import plan_command
from magistral_ui.engines.gguf.devices import LlamaDevice
from magistral_ui.engines.gguf.pace import read_bytes
from magistral_ui.engines.switching.machine import Machine
from magistral_ui.models.cards import FAMILY
from magistral_ui.models.gguf_plan import QUANTIZATIONS
from magistral_ui.models.ladder import no_pace
from magistral_ui.models.memory import GIB

MACHINE = Machine(None, LlamaDevice("cpu", "CPU", "CPU", 28 * GIB, 32 * GIB))


@pytest.mark.parametrize("found", [8.0, None])
def test_llama_cpp_is_timed_once_for_a_few_seconds(found: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[float] = []
    monkeypatch.setattr(plan_command, "find_machine", lambda *_: MACHINE)
    monkeypatch.setattr(Machine, "known_pace", lambda _: no_pace)
    monkeypatch.setattr(plan_command, "estimated_gguf_pace", lambda *given: timed.append(given[-1]) or found)
    printed: list[str] = []
    monkeypatch.setattr("builtins.print", lambda line, **_: printed.append(line))
    plan_command.print_plan(None)
    assert timed == [plan_command.TIMING_SECONDS]
    rows = [line for line in printed if "GB" not in line and any(f" {name} " in line for name in QUANTIZATIONS)]
    assert len(rows) > len(FAMILY)
    assert all(("~" in row) == (found is not None) for row in rows)
    assert any("no pace could be timed" in line for line in printed) == (found is None)


def test_paces_follow_from_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "known_pace", lambda _: no_pace)
    monkeypatch.setattr(plan_command, "estimated_gguf_pace", lambda *_: 10.0)
    paces = plan_command.QuickPaces(MACHINE)
    small, large = FAMILY[-1].shape, FAMILY[0].shape
    assert small is not None
    assert large is not None
    assert paces.known(small, "Q8_0") == (None, False)
    assert paces.timed(small, "Q8_0") == (10.0, False)
    shares = read_bytes(large, "Q4_K_M") / read_bytes(small, "Q8_0")
    tokens, measured = paces.timed(large, "Q4_K_M")
    assert tokens == pytest.approx(10 / shares)
    assert not measured
