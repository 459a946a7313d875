"""Records whole decode steps as CUDA graphs when a model is loaded, and replays them; what a step computes is decoder.py's.

A decode step is hundreds of small kernels: launching them from Python costs as much as the work itself. So a step is recorded
once for each of a few row counts, with its attention, which reads pages of fixed addresses by tables of fixed size. A step in
between is padded to the next. A graph belongs to one device, so a model over several devices has one for each segment.

All graphs of a device share one memory pool. The largest is recorded first, and the others find room in what it has freed.
"""

import gc
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from magistral_ui.engines.local.cuda_recorder import Compute, CudaRecorder, Recorder, Recording, recorded_buckets
from magistral_ui.engines.local.decode_step import DecodeStep, SegmentedStep, StepInputs
from magistral_ui.engines.local.kv_cache import SCRATCH_PAGE, PagePool
from magistral_ui.engines.local.static_inputs import StaticInputs
from magistral_ui.engines.weights.freed_memory import empty_device_cache
from magistral_ui.engines.weights.load_errors import is_out_of_memory
from magistral_ui.models.graph_memory import BUCKETS
from magistral_ui.models.memory import PAGE_TOKENS, pages_of

log = logging.getLogger(__name__)

TOLERANCE = 0.02
"""Largest difference between replayed and plain results, as a share of their standard deviation, for graphs to be used."""
EARLIER_KEYS = 40
"""Tokens before those of the step that checks a recording."""


FEW_ROWS, NARROW_TABLES = 4, (128, 32)
"""Steps of at most so many rows are also recorded for tables of so many pages.

FlashAttention splits sequences by the width of their tables: with 512 pages, into parts of some 4,700 tokens for a single row.
Shorter ones are not split, and each head with keys is read by one multiprocessor alone. With many rows, all are busy anyway.
"""
Size = tuple[int, int]
"""Rows, and pages of the tables."""


class StepGraphs:
    """The recordings of a decode step, one for each row count of `buckets`, and more of them for few rows with short tables.

    Nothing is recorded after `record`. A size for which there is no memory is left out; if one fails otherwise, or gives other
    results than the plain step, none is used.
    """

    def __init__(
        self,
        step: SegmentedStep,
        record: Recorder,
        pool: PagePool,
        width: int,
        buckets: Iterable[int] = BUCKETS,
    ) -> None:
        """`width` is the number of pages of the longest sequence, as in the tables of all inputs."""
        self._step, self._record, self._pool = step, record, pool
        self._wanted = sorted(buckets, reverse=True)
        self._width = width
        self._static: dict[torch.device, StaticInputs] = {}
        self._host: StaticInputs | None = None
        self._arrived: dict[int, torch.Tensor] = {}
        self._recorded: dict[Size, list[Recording]] = {}
        self.taken: dict[torch.device, int] = {}
        """Bytes that recording took on each device, as its allocator counts them."""

    @property
    def buckets(self) -> tuple[int, ...]:
        """The row counts that are recorded."""
        return tuple(sorted({rows for rows, _ in self._recorded}))

    @torch.inference_mode()
    def record(self) -> None:
        """Record and check all buckets, the largest first; call this once, while nothing else uses the devices."""
        devices = dict.fromkeys(self._step.devices)
        empty_device_cache()
        before = {device: self._record.reserved(device) for device in devices}
        for size in self._sizes():
            if not self._try(size):
                self._recorded.clear()
                break
        self._free()
        self.taken = {device: self._record.reserved(device) - before[device] for device in devices}
        if self._recorded:
            sizes = ", ".join(f"{count / 2**20:.0f} MiB on {device}" for device, count in self.taken.items())
            log.info("decode steps of up to %d rows are recorded as graphs: %s", self.buckets[-1], sizes)

    def _sizes(self) -> Iterator[Size]:
        """What to record: each row count with tables of full width first, and with narrow ones only if that succeeded."""
        for rows in self._wanted:
            yield rows, self._width
            for width in NARROW_TABLES if rows <= FEW_ROWS else ():
                if width < self._width and (rows, self._width) in self._recorded:
                    yield rows, width

    @torch.inference_mode()
    def run(self, inputs: StepInputs) -> torch.Tensor | None:
        """Logits (rows, vocabulary), valid until the next call; None if no recording has so many rows.

        `inputs` are on the host.
        """
        rows = len(inputs.tokens)
        bucket = self.bucket(rows)
        if bucket is None:
            return None
        pages = pages_of(int(inputs.lengths.max()))
        width = min(each for count, each in self._recorded if count == bucket and each >= pages)
        self._fill(inputs, bucket)
        return self._replay((bucket, width))[:rows]

    def bucket(self, rows: int) -> int | None:
        """The recorded row count to which a step of `rows` rows is padded."""
        return min((each for each, _ in self._recorded if each >= rows), default=None)

    def _try(self, size: Size) -> bool:
        """Record a step of `size`, if there is memory for it; False if recording does not hold."""
        reason, out_of_memory = "replayed results differ", False
        try:
            self._recorded[size] = self._record_segments(size)
            if self._agrees(size):
                return True
        except (RuntimeError, NotImplementedError) as error:
            reason, out_of_memory = str(error), is_out_of_memory(error)
        if out_of_memory:
            log.warning("decode steps of %d rows are not recorded as graphs: there is no memory for them", size[0])
        else:
            log.warning("decode steps are not recorded as graphs: %s", reason)
        self._recorded.pop(size, None)
        self._free()
        return out_of_memory

    def _free(self) -> None:
        """Free what no recording needs any longer."""
        if not self._recorded:
            self._static.clear()
            self._arrived.clear()
            self._host = None
            self._record.forget()
        gc.collect()  # what is unfinished is freed now, not whenever its reference cycles are found
        empty_device_cache()

    def _record_segments(self, size: Size) -> list[Recording]:
        made: list[Recording] = []
        state: torch.Tensor | None = None
        self._step.prepare([1] * size[0], [[SCRATCH_PAGE]] * size[0])
        for index, device in enumerate(self._step.devices):
            if made:
                state = self._border(index, made[-1][1])
            made.append(self._record(self._computation(index, size, state), device))
        return made

    def _computation(self, index: int, size: Size, state: torch.Tensor | None) -> Compute:
        """A segment of a step of `size`. Smaller ones leave their result in the first rows of the largest's."""
        inputs, rows = self._inputs(self._step.devices[index]).first(*size), size[0]
        if not self._recorded:
            return lambda: self._step.segment(index, state, inputs)
        result = self._recorded[max(self._recorded)][index][1][:rows]
        return lambda: result.copy_(self._step.segment(index, state, inputs))

    def _inputs(self, device: torch.device) -> StaticInputs:
        if device not in self._static:
            self._static[device] = StaticInputs(max(self._wanted), self._width, device)
        return self._static[device]

    def _border(self, index: int, left: torch.Tensor) -> torch.Tensor:
        """Where the hidden state arrives before segment `index`, for all buckets."""
        if index not in self._arrived:
            shape = (max(self._wanted), *left.shape[1:])
            self._arrived[index] = torch.zeros(shape, dtype=left.dtype, device=self._step.devices[index])
        return self._arrived[index][: len(left)]

    def _fill(self, inputs: StepInputs, bucket: int) -> None:
        """Copy the inputs, padded to `bucket` rows, to where the recordings read them: one copy for each device."""
        if self._host is None:
            self._host = StaticInputs(max(self._wanted), self._width, torch.device("cpu"))
        for static in self._static.values():
            static.wait()
        self._host.write(inputs, bucket)
        for static in self._static.values():
            static.copy(self._host, bucket)

    def _replay(self, size: Size) -> torch.Tensor:
        result: torch.Tensor | None = None
        for index, (replay, holds) in enumerate(self._recorded[size]):
            if result is not None:
                self._arrived[index][: size[0]].copy_(result)
            replay()
            result = holds
        assert result is not None
        return result

    def _plain(self, size: Size) -> torch.Tensor:
        """What a replay computes, as calls."""
        state: torch.Tensor | None = None
        for index, device in enumerate(self._step.devices):
            moved = None if state is None else state.to(device)
            state = self._step.segment(index, moved, self._static[device].first(*size))
        assert state is not None
        return state

    def _agrees(self, size: Size) -> bool:
        """Whether a replay gives the logits, keys and values of the plain step, on other values than it was recorded with."""
        pages = self._pool.take(min(2, self._pool.free))
        try:
            inputs = _check_inputs(size[0], pages, self._width)
            for held in self._held():
                held[pages] = _waves(held[pages])
            self._step.prepare(inputs.lengths.tolist(), inputs.tables[:, :1].tolist())
            self._fill(inputs, size[0])
            plain = [self._plain(size).clone(), *self._written(inputs.slots)]
            replayed = [self._replay(size), *self._written(inputs.slots)]
            return all(_close(*pair) for pair in zip(plain, replayed, strict=True))
        finally:
            self._pool.release(pages)

    def _written(self, slots: torch.Tensor) -> list[torch.Tensor]:
        """The keys and values in `slots`, which are then emptied."""
        found: list[torch.Tensor] = []
        for held in self._held():
            rows, here = held.flatten(0, 1), slots.to(held.device)
            found.append(rows[here])
            rows[here] = 0
        return found

    def _held(self) -> Iterator[torch.Tensor]:
        """Each layer's keys, and its values."""
        for index in range(self._pool.layers):
            yield from self._pool.layer(index)


def _check_inputs(rows: int, pages: list[int], width: int) -> StepInputs:
    """A step of two sequences, half of its rows in each, behind EARLIER_KEYS tokens."""
    numbers = torch.arange(rows)
    page, offsets = torch.tensor(pages)[numbers % len(pages)], EARLIER_KEYS + numbers // len(pages)
    tables = torch.zeros(rows, width, dtype=torch.int32)
    tables[:, 0] = page
    return StepInputs(1 + 3 * numbers, offsets, page * PAGE_TOKENS + offsets, tables, (offsets + 1).int())


def _waves(like: torch.Tensor) -> torch.Tensor:
    """Numbers between -1 and 1 without a short period."""
    return torch.arange(like.numel(), device=like.device).sin().view(like.shape).to(like.dtype)


def _close(plain: torch.Tensor, replayed: torch.Tensor) -> bool:
    worst = (plain.float() - replayed.float()).abs().max()
    return bool(worst <= TOLERANCE * plain.float().std().clamp(min=1e-6))


def record_steps(
    step: DecodeStep, layer: Any, pool: PagePool, width: int, record: Recorder | None = None
) -> StepGraphs | None:
    """Record `step`, whose layers are like `layer`, where that holds and pays; None where it does not.

    `record` is what records, by default CUDA. `width` is the number of pages of the longest sequence.
    """
    buckets = set(BUCKETS)
    for device in step.devices:
        attention = step.attentions.get(device)  # none where there is only the head
        buckets &= set(recorded_buckets(layer, device) if attention is None or attention.graphable else ())
    graphs = StepGraphs(step, record or CudaRecorder(), pool, width, buckets)
    graphs.record()
    return graphs if graphs.buckets else None
