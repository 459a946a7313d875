"""Measures the in-process engine on a CUDA GPU, with Magistral's shape and random weights, or with a real checkpoint.

    python -m tests.benchmarks.gpu [--minutes 10] [--layers 4] [--precision bfloat16 nf4] [--model FOLDER]

The most telling figures come first, and what there is no time for has a row that says so. A few of Magistral's 40 layers make a
checkpoint that is soon written and fits any card; the pace of all 40 follows from what the last of them cost. With --device cpu
--tiny --model FOLDER the same code runs in a moment without a GPU: its figures mean nothing.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path

import torch

from magistral_ui.engines.local.fused_ops import Pieces
from magistral_ui.engines.weights.devices import Device, find_device
from magistral_ui.engines.weights.freed_memory import empty_device_cache
from magistral_ui.models.folder import inspect_folder
from magistral_ui.models.graph_memory import graph_bytes
from tests.benchmarks.budget import Task, TurnedOff, within
from tests.benchmarks.engine import cost
from tests.benchmarks.gpu_engine import MAGISTRAL_LAYERS, TINY, GPUBench, Pace, Sizes
from tests.benchmarks.gpu_pieces import AttentionBench, bandwidth, machine
from tests.benchmarks.models import MAGISTRAL, make_model
from tests.benchmarks.speculation import plain, quoting
from tests.benchmarks.table import Row, at_least, at_most, measured, told, write_table

DOCUMENT_MARK = "gpu"
LAST_SECONDS = 30
"""In which nothing is begun any more."""


class Models:
    """The models to measure, of which one at a time is in memory: that of the precision asked for last."""

    def __init__(self, folder: Path, sizes: Sizes, device: Device) -> None:
        self.folder, self.sizes, self.device = folder, sizes, device
        self._loaded: GPUBench | None = None
        self.paces: dict[str, Pace] = {}
        """Of the whole model, by precision."""
        self.bandwidth = 0.0
        """Bytes per second; 0 until it has been measured."""

    def get(self, precision: str) -> GPUBench:
        if self._loaded is None or self._loaded.precision != precision:
            self.close()
            self._loaded = GPUBench(self.folder, precision, self.sizes, self.device)
        return self._loaded

    def pace(self, precision: str) -> Pace:
        """Measured once."""
        bench = self.get(precision)
        if precision not in self.paces:
            self.paces[precision] = bench.pace()
        return self.paces[precision]

    def close(self) -> None:
        if self._loaded is not None:
            self._loaded.running.close()
            self._loaded = None
            empty_device_cache()


Measure = Callable[[Models, str], Iterator[Row]]


def memory_rate(models: Models) -> Iterator[Row]:
    models.bandwidth = bandwidth(models.device, models.sizes)
    yield told("memory: GB/s, copied", models.bandwidth / 1e9)


def paces(models: Models, precision: str) -> Iterator[Row]:
    """Decode steps, beside those of `generate`, which writes for one after the other."""
    pace = models.pace(precision)
    for visitors, step, goal in ((1, pace.one, 1.0), (8, pace.eight, 5.0)):
        who = "one visitor" if visitors == 1 else f"{visitors} visitors"
        what = f"{precision}: tokens/s of {who} ÷ `generate`, {pace.layers} layers"
        yield at_least(what, goal, visitors * pace.generate / step, f"{visitors / step:.1f} tokens/s")


def all_layers(models: Models, precision: str) -> Iterator[Row]:
    """What Magistral would reach with all of its layers, by what the last half of those here costs."""
    whole = models.pace(precision)
    if whole.layers >= MAGISTRAL_LAYERS:
        raise TurnedOff("the model has all of its layers: see above")
    pace = whole.with_layers(models.get(precision).half_pace(), MAGISTRAL_LAYERS)
    for visitors, step in ((1, pace.one), (8, pace.eight)):
        who = "one visitor" if visitors == 1 else f"{visitors} visitors"
        what = f"{precision}: tokens/s of {who}, {MAGISTRAL_LAYERS} layers, extrapolated"
        yield told(what, visitors / step, f"{visitors * pace.generate / step:.2f} times those of `generate`")


def roofline(models: Models, precision: str) -> Iterator[Row]:
    """The time in which a token's weights could be read ÷ the time that it takes."""
    if not models.bandwidth:
        raise TurnedOff("the memory's bandwidth is not known")
    read, pace = models.get(precision).read_bytes(), models.pace(precision)
    share = read / models.bandwidth / pace.one
    yield told(f"{precision}: share of the roofline, one visitor", share, f"{read / 1e9:.2f} GB of weights a token")


def graphs(models: Models, precision: str) -> Iterator[Row]:
    """Recorded decode steps ÷ plain calls, and what the recordings cost."""
    bench, pace = models.get(precision), models.pace(precision)
    decoder = bench.running.decoder
    recorded = decoder.graphs
    if recorded is None:
        raise TurnedOff("no decode step is recorded here")
    decoder.graphs = None
    try:
        plain = {visitors: bench.step_seconds(visitors) for visitors in (1, 8)}
    finally:
        decoder.graphs = recorded
    for visitors, step in ((1, pace.one), (8, pace.eight)):
        name = f"{precision}: decode step of {visitors}, plain calls ÷ recorded"
        yield at_least(name, 1.0, plain[visitors] / step, f"{1e3 * step:.2f} ms")
    planned = graph_bytes(bench.loaded.shape, precision, models.device.place)
    taken = sum(recorded.taken.values())
    rows = f"{', '.join(map(str, recorded.buckets))} rows"
    if planned:  # a processor's stand-in is in no plan
        yield at_least(f"{precision}: bytes planned for recordings ÷ taken", 1.0, planned / max(1, taken), rows)
    yield told(f"{precision}: seconds to record", cost(bench.record), rows)


def compiled(models: Models, precision: str) -> Iterator[Row]:
    """What is compiled between the products ÷ the plain functions, both within recorded steps if there are any."""
    bench, pace = models.get(precision), models.pace(precision)
    decoder = bench.running.decoder
    pieces = decoder.layers.pieces
    if pieces == Pieces():
        raise TurnedOff("nothing is compiled here")
    try:
        bench.set_pieces(Pieces())
        plain = {visitors: bench.step_seconds(visitors) for visitors in (1, 8)}
    finally:
        bench.set_pieces(pieces)
    for visitors, step in ((1, pace.one), (8, pace.eight)):
        yield at_least(
            f"{precision}: decode step of {visitors}, plain functions ÷ compiled", 1.0, plain[visitors] / step
        )


def prompts(models: Models, precision: str) -> Iterator[Row]:
    count = models.sizes.prompt
    seconds, gain = models.get(precision).reading()
    yield at_least(
        f"{precision}: reading {count:,} tokens, `generate` ÷ ours", 1.0, gain, f"{count / seconds:.0f} tokens/s"
    )


def turns(models: Models, precision: str) -> Iterator[Row]:
    bench = models.get(precision)
    what = f"{precision}: turn 10 of 8k, time to the first token ÷ `generate`"
    yield at_most(what, 1 / 12, bench.tenth_turn(keep_reasoning=True, length=models.sizes.turns))


def sampling(models: Models, precision: str) -> Iterator[Row]:
    for rows in (1, 8):
        seconds, syncs = models.get(precision).sampling(rows)
        yield told(f"{precision}: drawing {rows} at once, µs", seconds * 1e6, f"waits for the device: {syncs}")


def step_costs(models: Models, precision: str) -> Iterator[Row]:
    one, eight = (models.get(precision).step_counts(visitors) for visitors in (1, 8))
    yield at_most(f"{precision}: waits for the device in a step of 8", 1, eight.syncs)
    yield at_most(f"{precision}: calls of torch's dispatcher in a step of 8 ÷ of 1", 1.3, eight.calls / one.calls)


def speculation(models: Models, precision: str) -> Iterator[Row]:
    bench, count, readers = models.get(precision), models.sizes.sentences, models.sizes.readers
    for what, goal, texts in (
        ("an answer that quotes its reasoning", 1.4, [quoting(1, count)]),
        ("one that quotes nothing", 0.98, [plain(2, count)]),
        (f"{readers} visitors at once, who quote", 0.98, [quoting(20 + n, max(1, count // 2)) for n in range(readers)]),
    ):
        gain, right = bench.speculation(texts)
        yield at_least(
            f"{precision}: {what}, tokens/s with drafts ÷ without", goal, gain, f"{right:.0%} of the drafts right"
        )


def attention(models: Models) -> Iterator[Row]:
    shape = inspect_folder(models.folder).shape
    dtype = torch.bfloat16 if models.device.type == "cuda" else torch.float32
    bench = AttentionBench(shape.heads, shape.kv_heads, shape.head_dim, dtype, models.device, models.sizes)
    name = bench.chosen.decode.name
    for sequences, tokens in models.sizes.attention:
        gain, rate = bench.gain(sequences, tokens)
        what = f"attention over pages, {sequences} × {tokens:,} tokens: reference ÷ {name}"
        yield told(what, gain, f"{rate / 1e9:.0f} GB/s of keys and values")


CORE: tuple[tuple[str, Measure], ...] = (
    ("tokens/s ÷ `generate`", paces),
    (f"tokens/s of {MAGISTRAL_LAYERS} layers", all_layers),
    ("decode step, plain calls ÷ recorded", graphs),
    ("share of the roofline", roofline),
    ("decode step, plain functions ÷ compiled", compiled),
)
MORE: tuple[tuple[str, Measure], ...] = (
    ("reading a prompt", prompts),
    ("drawing tokens", sampling),
    ("what a step costs", step_costs),
    ("speculation ÷ without", speculation),
    ("turn 10", turns),
)


def tasks(models: Models, precisions: list[str]) -> Iterator[Task]:
    """The most telling first; after the last precision's own figures, so that no model is loaded twice."""
    yield Task("memory: GB/s", partial(memory_rate, models))
    for precision in precisions:
        for what, measure in CORE:
            yield Task(f"{precision}: {what}", partial(measure, models, precision))
    for what, measure in MORE:
        yield Task(f"{precisions[-1]}: {what}", partial(measure, models, precisions[-1]))
    yield Task("attention over pages", partial(attention, models))


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measure, print, and write the table, unless it is a tiny one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="after which it ends, with what it has")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--precision", nargs="+", default=["bfloat16", "nf4"])
    parser.add_argument("--model", type=Path, help="a real checkpoint, or a tiny one")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a test of the benchmark itself; writes no table")
    chosen = parser.parse_args(arguments)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        sys.exit("There is no CUDA GPU here, so there is nothing to measure.")
    return run(chosen)


def run(chosen: argparse.Namespace) -> list[Row]:
    end = time.monotonic() + 60 * chosen.minutes - LAST_SECONDS
    device = find_device(chosen.device).first(1)
    made = Path(tempfile.gettempdir()) / f"magistral-ui-bench-gpu-{chosen.layers}"
    folder = chosen.model or make_model(made, {**MAGISTRAL, "num_hidden_layers": chosen.layers}, device=chosen.device)
    models = Models(folder, TINY if chosen.tiny else Sizes(), device)
    rows = measured(within(end - time.monotonic(), tasks(models, chosen.precision)))
    models.close()
    if not chosen.tiny:
        what = f"the checkpoint in {folder.name}" if chosen.model else f"{chosen.layers} layers of Magistral's width"
        write_table(DOCUMENT_MARK, rows, f"Measured on {date.today():%-d %B %Y} with {what}: {machine(device)}.")
    return rows


if __name__ == "__main__":
    main()
