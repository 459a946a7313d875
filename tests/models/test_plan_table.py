"""`app.py --plan`: the cards need no torch, and what it says is the plan."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from magistral_ui.models.memory import GIB, DeviceBudget, best_plan
from magistral_ui.models.plan_table import CARD_GIGABYTES, card_lines, machine_lines
from magistral_ui.models.shape import MAGISTRAL_SMALL_1_2

ROOT = Path(__file__).parents[2]


def test_each_card_has_its_chosen_precision() -> None:
    lines = card_lines()
    chosen = [line for line in lines if "(default)" in line]
    assert len(chosen) == len(CARD_GIGABYTES) - 1, "16 GB is too little for Magistral, vision and all"
    for size, line in zip(CARD_GIGABYTES[1:], chosen, strict=True):
        best = best_plan(MAGISTRAL_SMALL_1_2, DeviceBudget("cuda", size * GIB, size * GIB))
        assert best.precision in line
        assert f"{best.context:,}" in line
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize(("gigabytes", "said"), [(8, "would need"), (64, "demo model runs here")])
def test_a_computer_without_a_graphics_card(gigabytes: int, said: str) -> None:
    assert said in machine_lines("CPU", DeviceBudget("cpu", gigabytes * GIB, gigabytes * GIB))[-1]


def test_several_cards_are_told_together() -> None:
    one = DeviceBudget("cuda", 23 * GIB, 24 * GIB)
    lines = machine_lines("2 × RTX", replace(one, others=(one,)))
    assert "46.0 GB free of 48.0 GB" in lines[0]
    assert "nf4 (default)" in "\n".join(lines), "one of them is enough"
    half = DeviceBudget("cuda", 12 * GIB, 12 * GIB)
    lines = machine_lines("2 × RTX", replace(half, others=(half,)))
    assert "nf4" in lines[-1]
    assert "2 GPUs: 19 + 21" in lines[-1]
    small = DeviceBudget("cuda", 6 * GIB, 6 * GIB)
    assert "would need" in machine_lines("2 × small", replace(small, others=(small,)))[-1]


def test_the_command_prints_both_and_ends() -> None:
    ended = subprocess.run(
        [sys.executable, "app.py", "--plan", "--device", "cpu"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    assert "\n".join(card_lines()) in ended.stdout
    assert "This machine: CPU" in ended.stdout
