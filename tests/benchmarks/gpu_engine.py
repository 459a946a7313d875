"""What the GPU benchmark measures of one model in one precision: steps, prompts, and pieces of a step with and without them.

A model with few of its layers is measured twice, whole and with half of them: what a layer costs gives the pace of all forty.
"""

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.local.fused_ops import Pieces
from magistral_ui.engines.local.paged_attention import ReferenceAttention
from magistral_ui.engines.local.running_model import RunningModel
from magistral_ui.engines.local.sampler import sample_batch
from magistral_ui.engines.local.sampling_state import Draw
from magistral_ui.engines.weights.devices import Device
from magistral_ui.engines.weights.freed_memory import empty_device_cache
from magistral_ui.engines.weights.loader import Loaded, load
from magistral_ui.engines.weights.quantization import held_bytes
from magistral_ui.engines.weights.source import ModelSource
from magistral_ui.models.folder import inspect_folder
from tests.benchmarks.budget import TurnedOff
from tests.benchmarks.engine import Bench, cost, written
from tests.benchmarks.requests import UniqueRequests
from tests.benchmarks.speculation import Recital
from tests.engines.local.dispatch_count import DispatchCount

MAGISTRAL_LAYERS = 40


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: a test's is tiny, to run the same code in a moment on a processor."""

    new: int = 128
    """Tokens of a reply."""
    steps: int = 32
    """Decode steps that are timed together."""
    times: int = 3
    """Measurements, whose median counts."""
    prompt: int = 2_048
    """Tokens of a long prompt."""
    turns: int = 8_000
    """Tokens of a conversation of ten turns."""
    sentences: int = 14
    """Of the reasoning, and of the answer, of replies that are drafted."""
    readers: int = 8
    """Visitors at once whose replies are drafted."""
    context: int = 40_960
    copied: int = 2**30
    """Bytes of the copy that tells the memory's bandwidth."""
    attention: tuple[tuple[int, int], ...] = ((1, 8_192), (8, 8_192), (1, 32_768), (8, 32_768), (1, 1_024), (8, 1_024))
    """(Sequences, tokens of each) over which attention is timed, the most telling first."""


TINY = Sizes(
    4, 2, 1, prompt=24, turns=40, sentences=1, readers=2, context=512, copied=2**20, attention=((1, 40), (2, 300))
)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds that a model with so many layers takes."""

    layers: int
    one: float
    """A decode step of one visitor."""
    eight: float
    """One of eight."""
    generate: float
    """A token of `generate`."""

    def with_layers(self, other: "Pace", layers: int) -> "Pace":
        """Of a model with `layers` layers, by what `other`, with fewer than this one, takes less; TurnedOff if it takes more."""
        if other.one >= self.one or other.eight >= self.eight or other.generate >= self.generate:
            raise TurnedOff("half of the layers took no less time: what one costs is lost in the noise")
        share = (layers - self.layers) / (self.layers - other.layers)

        def extrapolated(name: str) -> float:
            mine = float(getattr(self, name))
            return mine + share * (mine - float(getattr(other, name)))

        return Pace(layers, extrapolated("one"), extrapolated("eight"), extrapolated("generate"))


class GPUBench(Bench):
    """Two copies of a model: the engine's, which drafts nothing unless asked to, and one for transformers' `generate`."""

    def __init__(self, folder: Path, precision: str, sizes: Sizes, device: Device) -> None:
        self.times, self.precision, self.device, self.sizes = sizes.times, precision, device, sizes
        source = ModelSource(inspect_folder(folder).card, folder)
        self.plain = load(source, device, precision, lambda _: None).model
        self.loaded = load(source, device, precision, lambda _: None)
        self.running = self._run(self.loaded)
        self.requests = UniqueRequests()

    def _run(self, loaded: Loaded) -> RunningModel:
        """The engine on half of the free memory: `generate` needs some, too."""
        with memory_kept(self.device):
            running = RunningModel(loaded, self.device, self.sizes.context, speculate=False)
        if self.device.type == "cpu":  # a card's way of decoding, with what stands in for its kernels
            running.decoder.decode_with({self.device.torch: ReferenceAttention()})
            running.decoder.record()
        return running

    @property
    def layers(self) -> int:
        return len(self.running.decoder.layers)

    def step_seconds(self, visitors: int) -> float:
        """A decode step of so many replies."""
        sizes, scheduler = self.sizes, self.running.scheduler

        def seconds() -> float:
            self.fresh()
            asked = [self.request(16, 2 * sizes.steps + 32, n) for n in range(visitors)]
            generations = [self.running.submit(each) for each in asked]
            while not all(generation.ended or written(generation) for generation in generations):
                scheduler.step()
            scheduler.step()
            took = cost(lambda: [scheduler.step() for _ in range(sizes.steps)]) / sizes.steps
            for generation in generations:
                generation.stop()
            scheduler.step()
            return took

        return statistics.median(seconds() for _ in range(self.times))

    def generate_seconds(self) -> float:
        """A token of `generate`: what the second half of a reply adds."""
        new = self.sizes.new

        def seconds() -> float:
            short, long = (cost(lambda n=n: self.generate([self.request(16, n)])) for n in (new, 2 * new))
            return max(long - short, 1e-9) / new

        return statistics.median(seconds() for _ in range(self.times))

    def pace(self) -> Pace:
        return Pace(self.layers, self.step_seconds(1), self.step_seconds(8), self.generate_seconds())

    def half_pace(self) -> Pace:
        """The same with half of the layers, which is what a layer costs, and all that costs the same for any number of them."""
        whole, half = self.running, max(1, self.layers // 2)
        with layers_kept(self.loaded.model, half), layers_kept(self.plain, half):
            self.running = self._run(self.loaded)
            try:
                return self.pace()
            finally:
                self.running.close()
                self.running = whole
                empty_device_cache()

    def set_pieces(self, pieces: Pieces) -> None:
        """Let the layers have these functions between their products, in recorded steps, too."""
        decoder = self.running.decoder
        decoder.layers.pieces = pieces
        if decoder.graphs is not None:
            self.record()

    def record(self) -> None:
        """Record decode steps again; what the recordings before take is free first."""
        self.running.decoder.graphs = None
        empty_device_cache()
        self.running.decoder.record()

    def read_bytes(self) -> int:
        """Bytes of weights that a token of one visitor needs: all but the embedding, of which it takes a row, and the images'."""
        model: Any = self.loaded.model
        inner = getattr(model.model, "language_model", model.model)
        tied = model.lm_head.weight.data_ptr() == inner.embed_tokens.weight.data_ptr()
        return (
            held_bytes(inner)
            - (0 if tied else inner.embed_tokens.weight.nbytes)
            + held_bytes(model.lm_head) * (not tied)
        )

    def reading(self) -> tuple[float, float]:
        """Seconds in which a long prompt is read, and those of `generate` ÷ these."""
        count = self.sizes.prompt

        def read() -> None:
            self.serve([self.request(count, 1)])

        ratios, took = [], []
        for _ in range(self.times):
            self.fresh()
            took.append(cost(read))
            ratios.append(cost(lambda: self.generate([self.request(count, 1)])) / took[-1])
        return statistics.median(took), statistics.median(ratios)

    def sampling(self, rows: int) -> tuple[float, int]:
        """Seconds in which the tokens of so many replies are drawn at the default settings, and waits for the device."""
        logits = (
            torch.randn(rows, self.loaded.shape.vocabulary, device=self.device.torch, dtype=self.running.decoder.dtype)
            * 4
        )
        draws = [Draw(SamplingParams(seed=n), n) for n in range(rows)]
        times = self.sizes.steps

        def draw() -> None:
            for _ in range(times):
                sample_batch(logits, draws)

        draw()
        took = statistics.median(cost(draw) for _ in range(self.times)) / times
        with DispatchCount() as count:
            sample_batch(logits, draws)
        return took, count.syncs

    def step_counts(self, visitors: int) -> DispatchCount:
        """What a decode step asks of torch and of the device."""
        generations = [self.running.submit(self.request(16, 64, n)) for n in range(visitors)]
        while not all(generation.ended or written(generation) for generation in generations):
            self.running.scheduler.step()
        with DispatchCount() as count:
            self.running.scheduler.step()
        for generation in generations:
            generation.stop()
        self.running.scheduler.step()
        return count

    def speculation(self, texts: list[tuple[str, str]]) -> tuple[float, float]:
        """Seconds of replies that recite `texts`, without drafts ÷ with them, and the share of drafts that were right."""
        scheduler = self.running.scheduler
        drafted, accepted = scheduler.drafted, scheduler.accepted
        try:
            ratio = Recital(self.running, texts, cost).ratio(self.times)
        finally:
            scheduler.speculative_rows = 0
        return ratio, (scheduler.accepted - accepted) / max(1, scheduler.drafted - drafted)


@contextmanager
def memory_kept(device: Device, share: float = 0.5) -> Iterator[None]:
    """Leave so much of a GPU's free memory to others than what is opened meanwhile."""
    kept = None
    if device.type == "cuda":
        empty_device_cache()
        free = torch.cuda.mem_get_info(device.torch)[0]
        kept = torch.empty(int(share * free), dtype=torch.uint8, device=device.torch)
    yield
    del kept
    empty_device_cache()


@contextmanager
def layers_kept(model: Any, count: int) -> Iterator[None]:
    """Let a model of transformers have its first `count` layers only."""
    inner = getattr(model.model, "language_model", model.model)
    whole, config = inner.layers, inner.config
    inner.layers, config.num_hidden_layers = nn.ModuleList(whole[:count]), count
    try:
        yield
    finally:
        inner.layers, config.num_hidden_layers = whole, len(whole)
