"""Measures the in-process engine on a CUDA GPU, with Magistral's shape and random weights, or with a real checkpoint.

    python -m tests.benchmarks.gpu [--layers 8] [--precision nf4] [--model FOLDER]

Fewer layers than Magistral's 40 make a checkpoint that is soon written and fits any card: all figures are ratios, and each
layer costs the same.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from magistral_ui.engines.weights.devices import find_device
from tests.benchmarks.engine import Bench, cost
from tests.benchmarks.models import MAGISTRAL, make_model
from tests.benchmarks.table import Row, at_least, at_most, measured, write_table


def rows(bench: Bench) -> Iterator[Row]:
    """What the scheduler, the graphs and the cache gain over `generate`."""
    yield at_least("GPU: tokens/s of one visitor ÷ `generate`", 1.0, bench.single())
    yield at_least("GPU: tokens/s of 8 visitors, long answers ÷ `generate`", 5.0, bench.whole_job(24, 128))
    yield at_least("GPU: decode step, recorded ÷ plain calls", 1.0, graphs_gain(bench))
    yield at_most(
        "GPU: turn 10 of 8k, CPU to the first token ÷ `generate`", 1 / 12, bench.tenth_turn(keep_reasoning=True)
    )


def graphs_gain(bench: Bench) -> float:
    """Seconds of a decode step with plain calls ÷ those with recorded graphs; 1.0 where graphs turned themselves off."""
    stages = bench.running.decoder._stages
    record = stages.record
    times = []
    for switch in (None, record):
        stages.record = switch
        bench.fresh()
        generation = bench.running.submit(bench.request(64, 80))
        for _ in range(8):
            bench.running.scheduler.step()
        times.append(cost(lambda: [bench.running.scheduler.step() for _ in range(32)]))
        generation.stop()
        bench.running.scheduler.step()
    return times[0] / times[1]


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--precision", default="nf4")
    parser.add_argument("--model", type=Path)
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("There is no CUDA GPU here, so there is nothing to measure.")
    made = Path(tempfile.gettempdir()) / f"magistral-ui-bench-gpu-{chosen.layers}"
    folder = chosen.model or make_model(made, {**MAGISTRAL, "num_hidden_layers": chosen.layers})
    write_table("gpu", measured(rows(Bench(folder, chosen.precision, 3, find_device("cuda")))))


if __name__ == "__main__":
    main()
