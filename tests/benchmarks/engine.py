"""Measures the in-process engine against transformers' `generate` in the same run; writes a table to docs/benchmarks.md.

    python -m tests.benchmarks.engine [--quick] [--only NAME]

All times are CPU seconds of one thread, so that a busy machine changes little; every figure is a ratio of two of them.
"""

import argparse
import gc
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

from magistral_ui.chat.prompt import AssistantTurn, Prompt, Turn, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.local import running_model
from magistral_ui.engines.local.compiled_ops import compile_pieces
from magistral_ui.engines.local.fused_ops import Pieces
from magistral_ui.engines.local.running_model import RunningModel
from magistral_ui.engines.weights.devices import Device
from magistral_ui.engines.weights.loader import load
from magistral_ui.engines.weights.quantization import has_fast_nf4
from magistral_ui.engines.weights.source import ModelSource
from magistral_ui.models.folder import DEMO_FOLDER, inspect_folder
from tests.benchmarks import branching, dispatch, gguf, graph_memory, speculation
from tests.benchmarks.gguf_model import make_gguf
from tests.benchmarks.measuring import measuring
from tests.benchmarks.models import make_model
from tests.benchmarks.requests import WORDS, UniqueRequests
from tests.benchmarks.table import Row, at_least, at_most, measured, told, write_table

CPU = Device("cpu", "CPU", 2**34, 2**34)


def cost(job: Callable[[], Any]) -> float:
    """Seconds of `job`: of the CPU, all threads together; where there is a GPU, of the clock until it is done."""
    gc.collect()
    if not torch.cuda.is_available():
        start = time.process_time()
        job()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    job()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def ratio(above: Callable[[], Any], below: Callable[[], Any], times: int) -> float:
    """The median of above ÷ below, each pair run one right after the other."""
    return statistics.median(cost(above) / cost(below) for _ in range(times))


class Bench:
    """One precision's models: the engine's, and an untouched one for transformers."""

    def __init__(self, folder: Path, precision: str, times: int, device: Device = CPU) -> None:
        self.times, self.precision, self.device = times, precision, device
        card = inspect_folder(folder).card
        self.plain = load(ModelSource(card, folder), device, precision, lambda _: None).model
        # On the CPU the engine lays its weights out anew: transformers gets its own.
        loaded = load(ModelSource(card, folder), device, precision, lambda _: None)
        # `speculation.py` measures drafts: random weights write nothing that they would find.
        self.running = RunningModel(loaded, device, speculate=False)
        self.requests = UniqueRequests()

    def fresh(self) -> RunningModel:
        """The engine with an empty cache."""
        self.running.cache.shrink(0)
        return self.running

    def request(self, tokens: int, new: int, visitor: int = 0, turns: tuple[Turn, ...] = ()) -> GenerationRequest:
        return self.requests.make(tokens, new, visitor, turns)

    def serve(self, requests: list[GenerationRequest]) -> list[Generation]:
        """All `requests` at once, to the end."""
        generations = [self.running.submit(request) for request in requests]
        while not all(generation.ended for generation in generations):
            self.running.scheduler.step()
        return generations

    def generate(self, requests: list[GenerationRequest]) -> None:
        """(a) what a typical Space does: one `generate` per request, one after the other."""
        for request in requests:
            ids = torch.tensor([self.running.tokenizer.encode(request.prompt).ids], device=self.device.torch)
            n = request.params.max_tokens
            with torch.inference_mode():
                self.plain.generate(input_ids=ids, max_new_tokens=n, min_new_tokens=n, do_sample=False, pad_token_id=11)

    def single(self) -> float:
        """Tokens/s of one visitor ÷ those of `generate`."""
        new = 64
        return ratio(
            lambda: self.generate([self.request(16, new)]), lambda: self.serve([self.request(16, new)]), self.times
        )

    def whole_job(self, tokens: int, new: int, visitors: int = 8) -> float:
        """Total tokens/s of `visitors` at once ÷ those of `generate`, one after the other."""

        def requests() -> list[GenerationRequest]:
            self.fresh()
            return [self.request(tokens, new, n) for n in range(visitors)]

        return ratio(lambda: self.generate(requests()), lambda: self.serve(requests()), self.times)

    def continuous_batching(self, tokens: int, new: int, visitors: int = 8) -> float:
        """(b) transformers' own continuous batching ÷ `generate`, the same job."""
        requests = [self.request(tokens, new, n) for n in range(visitors)]
        ids = [self.running.tokenizer.encode(request.prompt).ids for request in requests]
        config = GenerationConfig(max_new_tokens=new, do_sample=False, eos_token_id=-1, pad_token_id=11)
        blocks = visitors * (tokens + new + 64) // 16 + 16
        batching = ContinuousBatchingConfig(num_blocks=blocks, page_size=16, max_batch_tokens=512)
        manager = self.plain.init_continuous_batching(generation_config=config, continuous_batching_config=batching)

        def serve() -> None:
            manager.start()
            for each in ids:
                manager.add_request(each, max_new_tokens=new)
            done = 0
            while done < visitors:
                got = manager.get_result(timeout=300)
                assert got is not None, "continuous batching gave no result"
                done += got.is_finished()
            manager.stop(block=True)

        return cost(lambda: self.generate(requests)) / cost(serve)

    def decode_gain(self, context: int, steps: int = 24, visitors: int = 8) -> float:
        """Tokens per CPU second of a decode step of `visitors` ÷ one of a single visitor, at `context` tokens."""

        def seconds(count: int) -> float:
            self.fresh()
            generations = [self.running.submit(self.request(context, steps + 8, n)) for n in range(count)]
            while any(not written(generation) for generation in generations):
                self.running.scheduler.step()
            self.running.scheduler.step()
            took = cost(lambda: [self.running.scheduler.step() for _ in range(steps)])
            for generation in generations:
                generation.stop()
            self.running.scheduler.step()
            return took / count

        return statistics.median(seconds(1) / seconds(visitors) for _ in range(self.times))

    def compiled(self, steps: int = 16) -> float:
        """A decode step of one visitor with what torch compiles between products ÷ one without, at 64 tokens."""
        layers, decoder = self.running.decoder.layers, self.running.decoder
        plain = layers.pieces
        compile_pieces(layers, decoder.config.hidden_size, decoder.dtype, allowed=lambda _: True)
        pieces = layers.pieces
        assert pieces is not plain, "nothing was compiled"
        generation = self.running.submit(self.request(64, 4 * steps * self.times + 8))
        while not written(generation):
            self.running.scheduler.step()

        def seconds(chosen: Pieces) -> float:
            layers.pieces = chosen
            return cost(lambda: [self.running.scheduler.step() for _ in range(steps)])

        reached = statistics.median(seconds(pieces) / seconds(plain) for _ in range(2 * self.times))
        generation.stop()
        self.running.scheduler.step()
        layers.pieces = plain
        return reached

    def tenth_turn(self, keep_reasoning: bool, length: int = 8_000) -> float:
        """CPU to the first token of turn 10: the engine, which has read all but the last turn, ÷ `generate`."""
        said = " ".join(WORDS[i % len(WORDS)] for i in range(length // 18))
        history: list[Turn] = []
        for n in range(9):
            history += [UserTurn(f"{n} {said}"), AssistantTurn(said[: len(said) // 2], said[len(said) // 2 :])]
        self.fresh()
        self.serve([self.request(8, 1, turns=tuple(history))])
        last = history[-1]
        assert isinstance(last, AssistantTurn)
        if not keep_reasoning:
            history[-1] = AssistantTurn(last.answer)
        asked = self.request(100, 1, turns=tuple(history))
        ours = cost(lambda: self.serve([asked]))
        return ours / cost(lambda: self.generate([asked]))

    def waiting(self, length: int = 8_000) -> float:
        """The costliest step while a long prompt is read ÷ (one prefill chunk + one decode step)."""
        self.fresh()
        writer = self.running.submit(self.request(64, 400, 1))
        while not written(writer):
            self.running.scheduler.step()
        step = statistics.median(cost(self.running.scheduler.step) for _ in range(8))
        reader = self.running.submit(self.request(length, 1, 2))
        costs = []
        while not reader.ended:
            costs.append(cost(self.running.scheduler.step))
        writer.stop()
        self.running.scheduler.step()
        late = costs[3 * len(costs) // 4 :]  # chunks behind more text cost more: the last quarter is their measure
        chunk = statistics.median(late) - step
        return max(late) / (chunk + step)


def written(generation: Generation) -> int:
    """Tokens that a generation has written so far."""
    return sum(getattr(stamped.event, "tokens", 0) for stamped in generation.take())


def overhead(tokens: int) -> tuple[float, float]:
    """Microseconds per token of control, reader, events and accounting: at the first and at the last of `tokens`."""
    from magistral_ui.engines.local.sequence import Sequence

    loaded = load(ModelSource(inspect_folder(DEMO_FOLDER).card, DEMO_FOLDER), CPU, "float32", lambda _: None)
    running = RunningModel(loaded, CPU)
    request = GenerationRequest(Prompt((), (UserTurn("?"),)), SamplingParams(temperature=0, max_tokens=131_072, seed=0))
    generation = Generation()
    sequence = Sequence(request, running.tokenizer.encode(request.prompt), generation, running.tokenizer, tokens + 1)

    def write(count: int) -> float:
        return cost(lambda: [sequence.write(300 + i % 1000) for i in range(count)]) / count * 1e6

    span = tokens // 10
    first = write(span)
    for _ in range(8):
        write(span)
    return first, write(span)


GROWTH_PAGES = 100
"""Of the pool in which memory must not grow: 63 MiB of the demo model's."""


def growth(turns: int) -> float:
    """Resident bytes gained over `turns` turns of many visitors ÷ the cache's budget, which is the whole pool."""
    loaded = load(ModelSource(inspect_folder(DEMO_FOLDER).card, DEMO_FOLDER), CPU, "float32", lambda _: None)
    with patch.object(running_model, "pages_held", lambda planned, longest: GROWTH_PAGES):
        running = RunningModel(loaded, CPU)
    process, held = psutil.Process(), 0
    for n in range(turns):
        text = f"{n} " + " ".join(WORDS) * (n % 5)
        request = GenerationRequest(
            Prompt(running.system, (UserTurn(text),)), SamplingParams(max_tokens=12, seed=n), f"visitor {n % 50}"
        )
        generation = running.submit(request)
        while not generation.ended:
            running.scheduler.step()
        if n == turns // 5:
            gc.collect()
            held = process.memory_info().rss
    gc.collect()
    return (process.memory_info().rss - held) / running.cache.budget


def beside_llama_cpp(folder: Path, bench: Bench) -> float:
    """Tokens/s of one visitor of the engine for GGUF files with Q4_0 ÷ those of `bench`."""
    with closing(gguf.GGUF(make_gguf(folder, "Q4_0"))) as theirs:
        theirs.cost(16, 4)
        pairs = [(cost(lambda: bench.serve([bench.request(16, 64)])), theirs.cost(16, 64)) for _ in range(bench.times)]
    return statistics.median(ours / other for ours, other in pairs)


def rows(folder: Path, quick: bool, only: str) -> Iterator[Row]:
    """All measurements, one after the other; the quick ones once, and with fewer tokens."""
    times = 1 if quick else 3
    if only in ("", "bfloat16"):
        bench = Bench(folder, "bfloat16", times)
        yield at_least("bfloat16: tokens/s of one visitor ÷ `generate`", 1.15, bench.single())
        yield at_least("bfloat16: tokens/s of 8 visitors, long answers ÷ `generate`", 11, bench.whole_job(24, 128))
        if shutil.which("g++"):
            yield told("bfloat16: a decode step of one visitor, compiled between products ÷ plain", bench.compiled())
        yield from dispatch.rows(bench.fresh(), bench.requests)
        yield from turn_rows("bfloat16", bench)
        del bench
    if only in ("", "nf4") and has_fast_nf4():
        bench = Bench(folder, "nf4", times)
        yield at_least("nf4: tokens/s of one visitor ÷ `generate`", 1.5, bench.single())
        yield told("llama.cpp Q4_0 ÷ nf4: tokens/s of one visitor", beside_llama_cpp(folder, bench))
        del bench
    if only in ("", "float32"):
        bench = Bench(folder, "float32", times)
        yield at_least("float32: tokens/s of one visitor ÷ `generate`", 1.0, bench.single())
        for prompt, new, goal in ((64, 32, 2.4), (1024, 16, 1.2)):
            theirs = bench.continuous_batching(prompt, new)
            what = f"float32: 8 visitors, {prompt} tokens + {new} new ÷ `generate`"
            note = f"transformers' own batching: {theirs:.2f}"
            yield at_least(what, max(goal, theirs), bench.whole_job(prompt, new), note)
        yield at_least("float32: a decode step at 1k context, 8 visitors ÷ one", 2.7, bench.decode_gain(1000))
        yield from turn_rows("float32", bench)
        del bench
    if only in ("", "drafts"):
        yield from speculation.rows(folder, quick)
    if only in ("", "small"):
        first, last = overhead(20_000 if quick else 100_000)
        yield at_most("events, detokenizing, parsing: µs per token", 100, last)
        yield at_most("the same, last token ÷ first", 1.3, last / first)
        seconds, share = measuring()
        what = "measuring a message behind 100k tokens ÷ encoding all anew"
        yield at_most(what, 1 / 20, share, f"{seconds * 1000:.1f} ms")
        yield from branching.rows()
        yield from graph_memory.rows()
        yield at_most("memory gained over 1,000 turns ÷ cache budget", 1.0, growth(200 if quick else 1000))


def turn_rows(name: str, bench: Bench) -> Iterator[Row]:
    """What a new turn costs, and what one visitor costs another."""
    what = f"{name}: turn 10 of 8k, CPU to the first token ÷ `generate`"
    yield at_most(f"{what}, history kept", 1 / 25, bench.tenth_turn(keep_reasoning=True))
    yield at_most(f"{what}, last reasoning dropped", 1 / 12, bench.tenth_turn(keep_reasoning=False))
    yield at_most(f"{name}: costliest step while 8k tokens are read ÷ (chunk + step)", 1.25, bench.waiting())


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="each once, and fewer tokens; writes no table")
    parser.add_argument("--only", default="", help="float32, bfloat16, nf4, drafts, small or gguf")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    folder = make_model(Path(tempfile.gettempdir()) / "magistral-ui-bench-model")
    lines: list[Row] = []
    if chosen.only != "gguf":
        lines = measured(rows(folder, chosen.quick, chosen.only))
        if not chosen.quick and not chosen.only:
            write_table("engine", lines)
    if chosen.only in ("", "gguf"):
        beside = measured(gguf.rows(folder, chosen.quick))
        if not chosen.quick:
            write_table("gguf", beside, gguf.versions())
        lines += beside
    sys.exit(not all(row.met for row in lines))


if __name__ == "__main__":
    main()
