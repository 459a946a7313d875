"""What a forward computes between two attentions, recorded as CUDA graphs and replayed; decoder.py has it as plain calls.

A decode step is many small kernels: on a GPU, launching them from Python costs as much as the work itself. Between two
attentions all shapes are fixed for a given number of rows, so this part is recorded once per number of rows and replayed.
Attention stays outside, since its shapes change with every token. If the next layer is on another device, the recording ends
before the move and a new one begins after it, since a graph belongs to one device.

A recording keeps its own memory. A quantized product for which bitsandbytes has no fused kernel unpacks the whole weight into
that memory, layer after layer: gigabytes for one number of rows. So quantized steps are recorded only up to the number of rows
that the fused kernels take.
"""

import gc
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from magistral_ui.engines.weights.freed_memory import empty_device_cache
from magistral_ui.engines.weights.load_errors import is_out_of_memory

if TYPE_CHECKING:
    from magistral_ui.engines.local.decoder import PlainStages, Stages

log = logging.getLogger(__name__)

Tensors = tuple[torch.Tensor, ...]
Record = Callable[[Callable[[], Tensors], torch.device], tuple[Callable[[], None], Tensors]]
"""Takes a computation and its device; returns what replays it, and the tensors that hold its results after each replay."""

MAX_RECORDED_ROWS = 16
"""Rows (sequences) of the largest decode step that is recorded."""
FUSED_ROWS = {(8, 0): 5, (8, 6): 8, (8, 9): 8, (9, 0): 5, (12, 0): 8, (12, 1): 8}
"""Compute capability → rows up to which nf4 products of Magistral's sizes are fused there, by bitsandbytes 0.50's own rule
(`_gemm_4bit_use_custom_cuda`), whatever the number of multiprocessors."""
ALWAYS_FUSED = 4
"""Rows that are fused on every card and for every size."""
SMALL_WEIGHT = 4 * 2**20
"""Elements of a weight below which bitsandbytes unpacks sooner, depending on the card."""
MIN_CAPABILITY = (8, 0)
"""Earlier cards have no bfloat16 arithmetic: recording would gain nothing."""
TOLERANCE = 0.02
"""Largest difference between replayed and plain results, as a share of their standard deviation, for graphs to be used."""


def move(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on `device`, or itself if it is there."""
    return tensor.to(device, non_blocking=True)


class RecordedStages:
    """The stages of a decode step for one number of rows, recorded once and replayed for each step.

    A graph reads and writes the very tensors it was recorded on. So the inputs are copies that are kept (`_hidden`, `_tables`,
    `_attended`, one of each per device), every step copies its values into them, and results are read from where the recording
    left them.
    """

    def __init__(self, plain: "PlainStages", hidden: torch.Tensor, tables: Tensors, record: Record) -> None:
        """`hidden` (rows, hidden) and `tables`, as `begin` takes them, give shapes and dtype."""
        self._plain, self._record = plain, record
        self._hidden = hidden.clone()
        self._tables = {device: tuple(move(each, device).clone() for each in tables) for device in plain.devices}
        attended = plain.open(0, self._hidden, self._tables[plain.devices[0]])[0].flatten(1)
        self._attended = {device: torch.zeros_like(move(attended, device)) for device in plain.devices}
        self._borders: dict[int, Callable[[], None]] = {}
        self._parts: list[tuple[Callable[[], None], Tensors]] = []
        state, count = self._hidden, len(plain.layers)
        for index in range(count + 1):
            if plain.borders(index):
                self._borders[index], state = self._border(index, state)
            replay, results = record(self._computation(index, count, state), plain.devices[index])
            self._parts.append((replay, results))
            state = results[0]

    def _computation(self, index: int, count: int, state: torch.Tensor) -> Callable[[], Tensors]:
        """Everything from attention `index - 1`, or the border after it, to attention `index`; the hidden state comes first."""
        plain, device = self._plain, self._plain.devices[index]
        closed = index == 0 or plain.borders(index)

        def compute() -> Tensors:
            hidden = state if closed else plain.close(index - 1, state, self._attended[device])
            if index == count:
                return hidden, plain.logits(hidden)
            return hidden, *plain.open(index, hidden, self._tables[device])

        return compute

    def _border(self, index: int, state: torch.Tensor) -> tuple[Callable[[], None], torch.Tensor]:
        """What ends layer `index - 1` and moves the hidden state to the next device, and the tensor where it arrives."""
        plain, before = self._plain, self._plain.devices[index - 1]
        replay, (left,) = self._record(lambda: (plain.close(index - 1, state, self._attended[before]),), before)
        arrived = move(left, plain.devices[index]).clone()

        def cross() -> None:
            replay()
            arrived.copy_(left)

        return cross, arrived

    def begin(self, hidden: torch.Tensor, tables: Tensors) -> None:
        self._hidden.copy_(hidden)
        for kept in self._tables.values():
            for mine, given in zip(kept, tables, strict=True):
                mine.copy_(given)

    def advance(self, index: int, attended: torch.Tensor | None) -> Tensors:
        """The next layer's queries, keys and values; valid until this layer is replayed again."""
        return self._play(index, attended)[1:]

    def finish(self, attended: torch.Tensor, last: torch.Tensor | None) -> torch.Tensor:
        logits = self._play(len(self._parts) - 1, attended)[1]
        return logits if last is None else logits[last]

    def _play(self, index: int, attended: torch.Tensor | None) -> Tensors:
        if attended is not None:
            self._attended[self._plain.devices[index - 1]].copy_(attended)
        if index in self._borders:
            self._borders[index]()
        replay, results = self._parts[index]
        replay()
        return results


class StageChoice:
    """Chooses the stages of a decode step: recorded ones if they are right, plain ones otherwise.

    Recording is turned off for good if it fails or gives other results than the plain calls. A number of rows for which there
    was no memory is not tried again; the others are.
    """

    def __init__(self, plain: "PlainStages", record: Record | None, most_rows: int = MAX_RECORDED_ROWS) -> None:
        """`record` None: plain ones only."""
        self._plain, self.record, self._most_rows = plain, record, most_rows
        self._recorded: dict[int, RecordedStages] = {}
        self._too_large: set[int] = set()

    def choose(self, hidden: torch.Tensor, tables: Tensors) -> "Stages":
        """Stages for a decode step over `hidden` (rows, hidden), while there is a `record`."""
        rows = len(hidden)
        if rows > self._most_rows or rows in self._too_large:
            return self._plain
        if rows not in self._recorded:
            self._try(rows, hidden, tables)
        return self._recorded.get(rows, self._plain)

    def _try(self, rows: int, hidden: torch.Tensor, tables: Tensors) -> None:
        """Record a step of `rows` rows, or make sure that this is not tried again."""
        try:
            self._recorded[rows] = self._checked(hidden, tables)
            return
        except (RuntimeError, NotImplementedError) as error:
            if is_out_of_memory(error):
                log.warning("decode steps of %d rows are not recorded as graphs: there is no memory for them", rows)
                self._too_large.add(rows)
            else:
                log.warning("decode steps are not recorded as graphs: %s", error)
                self.record = None
        gc.collect()  # the unfinished recording is freed now, not whenever its reference cycles are found
        empty_device_cache()

    def _checked(self, hidden: torch.Tensor, tables: Tensors) -> RecordedStages:
        assert self.record is not None
        made = RecordedStages(self._plain, hidden, tables, self.record)
        if not self._same(made, hidden, tables):
            raise RuntimeError("replayed results differ")
        return made

    def _same(self, made: RecordedStages, hidden: torch.Tensor, tables: Tensors) -> bool:
        """Whether a replay gives the results of the plain calls, on other values than those it was recorded with."""
        hidden, tables = hidden.flip(-1), tuple(0.75 * each for each in tables)
        said = (_through(stages, hidden, tables, len(self._plain.layers)) for stages in (self._plain, made))
        return all(_close(*pair) for pair in zip(*said, strict=True))


def _through(stages: "Stages", hidden: torch.Tensor, tables: Tensors, layers: int) -> list[torch.Tensor]:
    """Queries, keys and values of all layers and the logits, with each row attending to nothing but its own value."""
    said: list[torch.Tensor] = []
    stages.begin(hidden, tables)
    attended = None
    for index in range(layers):
        queries, keys, values = stages.advance(index, attended)
        said += [each.clone() for each in (queries, keys, values)]
        attended = values.repeat_interleave(queries.shape[1] // values.shape[1], dim=1).flatten(1)
    assert attended is not None
    return [*said, stages.finish(attended, None).clone()]


def _close(plain: torch.Tensor, replayed: torch.Tensor) -> bool:
    worst = (plain.float() - replayed.float()).abs().max()
    return bool(worst <= TOLERANCE * plain.float().std().clamp(min=1e-6))


def recorded_rows(layer: Any, device: torch.device) -> int:
    """Rows of the largest decode step to record, for a model with such a `layer`; 0: none."""
    linears = [*layer.self_attn.children(), *layer.mlp.children()]
    weights = [each.weight for each in linears if hasattr(each, "weight")]
    if any(weight.dtype == torch.int8 for weight in weights):
        return 0  # each int8 product waits for the host, which a recording cannot
    states = [state for weight in weights if (state := getattr(weight, "quant_state", None)) is not None]
    if not states:
        return MAX_RECORDED_ROWS
    capability = torch.cuda.get_device_capability(device)
    if capability < MIN_CAPABILITY:
        return 0
    small = any(state.shape[0] * state.shape[1] < SMALL_WEIGHT for state in states)
    return ALWAYS_FUSED if small else FUSED_ROWS.get(capability, ALWAYS_FUSED)


def record_on_cuda(compute: Callable[[], Tensors], device: torch.device) -> tuple[Callable[[], None], Tensors]:
    """Record a computation as a CUDA graph, after a warm-up on a stream of its own, as torch requires.

    The stream is made on `device`, since torch's default stream for recording belongs to the device of the first recording.
    `torch.cuda.stream` makes sure that it is left again: when a recording breaks, torch alone would stay on it.
    """
    with torch.cuda.device(device):
        stream, graph = torch.cuda.Stream(device), torch.cuda.CUDAGraph()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            compute()
            with torch.cuda.graph(graph, stream=stream):
                results = compute()
        torch.cuda.current_stream(device).wait_stream(stream)
    return graph.replay, results
