"""`app.py --plan`: common hardware needs no torch, and what it says is the plan."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from magistral_ui.models.cards import FAMILY, MAGISTRAL_1_2, MINISTRAL_3_3B, ModelCard
from magistral_ui.models.device_budget import DeviceBudget
from magistral_ui.models.gguf_plan import estimated_weights, plan_gguf
from magistral_ui.models.ladder import best_candidate, candidates
from magistral_ui.models.memory import GIB
from magistral_ui.models.plan_table import (
    CARD_GIGABYTES,
    CPU_GIGABYTES,
    MAC_GIGABYTES,
    MODEL_WIDTH,
    file_lines,
    ladder_lines,
    machine_lines,
)
from magistral_ui.models.shape import MAGISTRAL_SMALL_1_2, ModelShape

ROOT = Path(__file__).parents[2]
LONGEST_LINE = 100


def card(gigabytes: float) -> DeviceBudget:
    return DeviceBudget("cuda", int(gigabytes * GIB), int(gigabytes * GIB))


def column(heading: str, line: str, model: ModelCard) -> str:
    start = heading.index(model.name)
    return line[start : start + MODEL_WIDTH].strip()


def test_all_models_and_all_hardware_are_there() -> None:
    lines = ladder_lines()
    heading = lines[2]
    assert all(each.name in heading for each in FAMILY)
    for kind, sizes in (("NVIDIA", CARD_GIGABYTES), ("Mac", MAC_GIGABYTES), ("CPU", CPU_GIGABYTES)):
        assert [line for size in sizes for line in lines if line.startswith(f"{kind} {size} GB")] == [
            line for line in lines if line.startswith(f"{kind} ") and "GB" in line
        ]
    assert max(map(len, lines)) <= LONGEST_LINE


def test_each_card_has_its_best_model() -> None:
    lines = ladder_lines()
    heading = lines[2]
    for size in CARD_GIGABYTES:
        (line,) = (each for each in lines if each.startswith(f"NVIDIA {size} GB"))
        found = candidates(card(size), gguf=card(size))
        best = best_candidate(found)
        assert best is not None
        assert line.count("*") == 1
        for each in found:
            cell = column(heading, line, each.card)
            assert cell.endswith("*") == (each is best)
            assert (f"{each.plan.precision}" in cell and f"{each.plan.context:,}" in cell) or (
                cell == "–" and not each.plans
            )


def test_where_the_pace_decides_the_best_is_only_possible() -> None:
    rows = [line for line in ladder_lines() if line.startswith(("Mac ", "CPU ")) and "GB" in line]
    assert len(rows) == len(MAC_GIGABYTES) + len(CPU_GIGABYTES)
    assert {(line.count("+"), line.count("*")) for line in rows} == {(1, 0)}


def test_a_machine_is_told_with_all_precisions_that_fit() -> None:
    lines = list(machine_lines("RTX", card(24), pace=lambda shape, precision: (41.5, True)))
    assert "RTX, 24.0 GB free of 24.0 GB" in lines[0]
    said = "\n".join(lines)
    (magistral,) = (line for line in lines if line.startswith(MAGISTRAL_1_2.name))
    assert "nf4 *" in magistral
    assert magistral.endswith("41.5")
    assert "The best one here is Magistral Small 1.2 in nf4" in said
    assert "48.0 GB" in said
    assert max(map(len, lines)) <= LONGEST_LINE


def test_a_pace_that_is_too_slow_is_marked() -> None:
    def pace(shape: ModelShape, precision: str) -> tuple[float | None, bool]:
        return (9.04 if shape == MINISTRAL_3_3B.shape else 1.0), False

    lines = list(machine_lines("CPU", DeviceBudget("cpu", 60 * GIB, 64 * GIB), pace=pace))
    assert sum(line.endswith("~1.0 slow") for line in lines) == 6
    assert sum(line.endswith("~9.0") for line in lines) == 2
    assert any("The best one here is Ministral 3 3B in bfloat16" in line for line in lines)


@pytest.mark.parametrize("gigabytes", [2, 4])
def test_a_small_computer_runs_the_demo_model(gigabytes: int) -> None:
    lines = list(machine_lines("CPU", DeviceBudget("cpu", gigabytes * GIB, gigabytes * GIB)))
    assert "demo model runs" in lines[-1]
    assert sum("of free memory" in line for line in lines) == len(FAMILY)
    assert max(map(len, lines)) <= LONGEST_LINE


def test_several_cards_are_told_together() -> None:
    one = DeviceBudget("cuda", 23 * GIB, 24 * GIB)
    lines = list(machine_lines("2 × RTX", replace(one, others=(one,))))
    assert "46.0 GB free of 48.0 GB" in lines[0]
    assert "GPUs:" not in lines[-1], "one of them is enough"
    lines = list(machine_lines("2 × RTX", replace(card(12), others=(card(12),))))
    assert "nf4" in lines[-1]
    assert "2 GPUs: 19 + 21" in lines[-1]
    assert "demo model runs" in list(machine_lines("2 × small", replace(card(2), others=(card(2),))))[-1]


def test_smaller_images_are_told() -> None:
    assert any("1024 pixels" in line for line in machine_lines("RTX", card(8)))
    assert not any("pixels" in line for line in machine_lines("RTX", card(24)))


def test_the_command_needs_no_torch() -> None:
    """Nothing is timed here: that is tested elsewhere."""
    script = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "sys.argv = ['app.py', '--plan', '--device', 'cpu']\n"
        "from magistral_ui.engines.switching import machine\n"
        "machine.estimated_pace = lambda *_: 5.0\n"
        "import app; sys.exit(app.main())"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert "\n".join(ladder_lines(torch=False)) in ended.stdout
    assert "This machine: CPU" in ended.stdout
    assert "nf4" not in ended.stdout.partition("This machine")[2]


def test_the_command_prints_both_and_ends() -> None:
    script = (
        "import sys; sys.argv = ['app.py', '--plan', '--device', 'cpu']\n"
        "from magistral_ui.engines.switching import machine\n"
        "machine.estimated_pace = lambda *_: 5.0\n"
        "import app; sys.exit(app.main())"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert "\n".join(ladder_lines()) in ended.stdout
    assert "This machine: CPU" in ended.stdout


def test_without_llama_cpp_the_table_is_torch_s_alone() -> None:
    said = "\n".join(ladder_lines(gguf=False))
    assert "Q4_K_M" not in said
    assert "GGUF" not in said
    assert "nf4" not in "\n".join(ladder_lines(torch=False)).partition("*")[0]


def test_a_gguf_file_as_the_best_is_told_as_one() -> None:
    place = DeviceBudget("cpu", 28 * GIB, 32 * GIB)
    lines = list(machine_lines("CPU", place, pace=lambda shape, precision: (9.0, False), gguf=place))
    said = "\n".join(lines)
    assert "The best one here is Magistral Small 1.2 in Q5_K_M, a GGUF file that llama.cpp runs." in said
    assert "(17.6 GB)" in said, "what is downloaded, with the projector"
    assert max(map(len, lines)) <= LONGEST_LINE
    (magistral,) = (line for line in lines if line.startswith(MAGISTRAL_1_2.name))
    assert "Q8_0" in magistral, "the first of its rows"


def test_only_what_may_be_the_best_is_timed_with_llama_cpp() -> None:
    asked: list[tuple[ModelShape, str]] = []

    def pace(shape: ModelShape, precision: str) -> tuple[float | None, bool]:
        asked.append((shape, precision))
        return 9.0, False

    place = DeviceBudget("cpu", 60 * GIB, 64 * GIB)
    list(machine_lines("CPU", place, (), pace=pace, gguf=place))
    assert [precision for _, precision in asked] == ["Q8_0"] * len(FAMILY)


def test_torch_is_not_timed_where_llama_cpp_comes_first() -> None:
    asked: set[str] = set()

    def pace(shape: ModelShape, precision: str) -> tuple[float | None, bool]:
        asked.add(precision)
        return 1.0, False

    place = DeviceBudget("cpu", 60 * GIB, 64 * GIB)
    said = "\n".join(machine_lines("CPU", place, ("bfloat16", "nf4"), pace=pace, gguf=place))
    assert asked == {"Q8_0", "Q5_K_M", "Q4_K_M"}
    assert "nf4" in said


def test_layers_in_ram_are_told() -> None:
    card_with_ram = replace(card(6), host=28 * GIB)
    said = "\n".join(machine_lines("RTX", card_with_ram, (), gguf=card_with_ram))
    assert "The best one here" in said
    weights = estimated_weights(MAGISTRAL_SMALL_1_2, "Q4_K_M")
    planned = plan_gguf(MAGISTRAL_SMALL_1_2, weights, replace(card(12), host=24 * GIB))
    told = "\n".join(file_lines("Magistral", planned, 40))
    assert "of 40 layers are on the GPU" in told
    assert "Keys and values in q8_0" in told
    assert max(map(len, told.splitlines())) <= LONGEST_LINE
