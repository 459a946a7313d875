"""What a forward computes between two attentions: as plain calls, or replayed as CUDA graphs; attention itself is elsewhere.

A decode step is many small kernels: on a GPU their launches from Python cost as much as the work. Everything between two
attentions has fixed shapes for a given number of rows, so it is recorded once for that number and replayed. Where the next
layer lies on another device, what is recorded ends before the move and begins again behind it.
"""

import gc
import logging
from collections.abc import Callable
from typing import Any, Protocol

import torch

from magistral_ui.engines.weights.device_memory import empty_device_cache, is_out_of_memory

log = logging.getLogger(__name__)

Tensors = tuple[torch.Tensor, ...]
Record = Callable[[Callable[[], Tensors], torch.device], tuple[Callable[[], None], Tensors]]
"""Takes a computation and its device; gives what replays it, and the tensors in which its results lie each time."""
Move = Callable[[torch.Tensor, torch.device], torch.Tensor]

MAX_RECORDED_ROWS = 16
"""Rows of the largest step that is recorded."""
FUSED_ROWS = {(8, 0): 5, (8, 6): 8, (8, 9): 8, (9, 0): 5, (12, 0): 8, (12, 1): 8}
"""Compute capability → rows up to which nf4 products of the sizes of Magistral's are fused there, by bitsandbytes 0.50's own
rule (`_gemm_4bit_use_custom_cuda`), whatever the number of multiprocessors."""
ALWAYS_FUSED = 4
"""Rows that are fused on every card and for every size."""
SMALL_WEIGHT = 4 * 2**20
"""Numbers in a weight below which bitsandbytes unpacks sooner, depending on the card."""
MIN_CAPABILITY = (8, 0)
"""Cards before it have no bfloat16 arithmetic: there is nothing to be gained by recording."""
TOLERANCE = 0.02
"""Largest difference between replayed and plain numbers, as a share of their spread, for graphs to be used."""


class Stages(Protocol):
    """One forward, from attention to attention."""

    def begin(self, hidden: torch.Tensor, tables: Tensors) -> None:
        """Start with embeddings (rows, hidden) and what `open` takes of the rows' positions."""

    def advance(self, index: int, attended: torch.Tensor | None) -> Tensors:
        """Queries, keys and values of layer `index`, from what layer `index - 1` attended to (None at the first)."""

    def finish(self, attended: torch.Tensor, last: torch.Tensor | None) -> torch.Tensor:
        """Logits of the rows `last` (None: of all)."""


def move(tensor: torch.Tensor, place: torch.device) -> torch.Tensor:
    """The tensor on `place`, itself where it lies there."""
    return tensor.to(place, non_blocking=True)


class PlainStages:
    """The stages as calls of the model's own modules."""

    def __init__(self, layers: list[Any], norm: Any, head: Any, places: list[torch.device], move: Move = move) -> None:
        """`places` are the devices of the layers, in order, and of norm and head behind them."""
        self.layers, self._norm, self._head = layers, norm, head
        self.places, self.move = places, move
        self._hidden = torch.empty(0)
        self._tables: Tensors = ()

    def begin(self, hidden: torch.Tensor, tables: Tensors) -> None:
        """Start a forward."""
        self._hidden, self._tables = hidden, tables

    def advance(self, index: int, attended: torch.Tensor | None) -> Tensors:
        """The next layer's queries, keys and values: (rows, heads, head_dim) each."""
        if attended is not None:
            self._hidden = self.close(index - 1, self._hidden, attended)
        if self.borders(index):
            here = self.places[index]
            self._hidden = self.move(self._hidden, here)
            self._tables = tuple(self.move(each, here) for each in self._tables)
        return self.open(index, self._hidden, self._tables)

    def finish(self, attended: torch.Tensor, last: torch.Tensor | None) -> torch.Tensor:
        """The logits."""
        hidden = self.close(len(self.layers) - 1, self._hidden, attended)
        hidden = hidden if last is None else hidden[last]
        return self.logits(self.move(hidden, self.places[-1]) if self.borders(len(self.layers)) else hidden)

    def borders(self, index: int) -> bool:
        """Whether layer `index` (the head, behind the last) lies on another device than the layer before it."""
        return index > 0 and self.places[index] != self.places[index - 1]

    def open(self, index: int, hidden: torch.Tensor, tables: Tensors) -> Tensors:
        """The first half of a layer, up to its attention.

        `tables` are cos and sin, (rows, 1, head_dim), and where queries are scaled by position, that scale, (rows, 1, 1).
        """
        layer = self.layers[index]
        attention, normed = layer.self_attn, layer.input_layernorm(hidden)
        shape = (len(hidden), -1, attention.head_dim)
        cos, sin, *scale = tables
        queries = rotated(attention.q_proj(normed).view(shape), cos, sin)
        if scale:
            queries = queries * scale[0]
        keys = rotated(attention.k_proj(normed).view(shape), cos, sin)
        return queries, keys, attention.v_proj(normed).view(shape)

    def close(self, index: int, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """The second half of a layer, behind its attention."""
        layer = self.layers[index]
        hidden = hidden + layer.self_attn.o_proj(attended)
        out: torch.Tensor = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return out

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(rows, vocabulary)."""
        out: torch.Tensor = self._head(self._norm(hidden))
        return out


class RecordedStages:
    """The stages of a decode step of `rows` sequences, recorded on given tensors and replayed on new values in them."""

    def __init__(self, plain: PlainStages, hidden: torch.Tensor, tables: Tensors, record: Record) -> None:
        """`hidden` (rows, hidden) and `tables`, as `begin` takes them, give shapes and type."""
        self._plain, self._record = plain, record
        self._hidden = hidden.clone()
        self._tables = {place: tuple(plain.move(each, place).clone() for each in tables) for place in plain.places}
        attended = plain.open(0, self._hidden, self._tables[plain.places[0]])[0].flatten(1)
        self._attended = {place: torch.zeros_like(plain.move(attended, place)) for place in plain.places}
        self._borders: dict[int, Callable[[], None]] = {}
        self._parts: list[tuple[Callable[[], None], Tensors]] = []
        state, count = self._hidden, len(plain.layers)
        for index in range(count + 1):
            if plain.borders(index):
                self._borders[index], state = self._border(index, state)
            replay, results = record(self._computation(index, count, state), plain.places[index])
            self._parts.append((replay, results))
            state = results[0]

    def _computation(self, index: int, count: int, state: torch.Tensor) -> Callable[[], Tensors]:
        """Everything between attention `index - 1`, or a border behind it, and attention `index`; first the hidden state."""
        plain, place = self._plain, self._plain.places[index]
        closed = index == 0 or plain.borders(index)

        def compute() -> Tensors:
            hidden = state if closed else plain.close(index - 1, state, self._attended[place])
            if index == count:
                return hidden, plain.logits(hidden)
            return hidden, *plain.open(index, hidden, self._tables[place])

        return compute

    def _border(self, index: int, state: torch.Tensor) -> tuple[Callable[[], None], torch.Tensor]:
        """What ends layer `index - 1` and takes the hidden state to the next device, and where it arrives there."""
        plain, before = self._plain, self._plain.places[index - 1]
        replay, (left,) = self._record(lambda: (plain.close(index - 1, state, self._attended[before]),), before)
        arrived = plain.move(left, plain.places[index]).clone()

        def cross() -> None:
            replay()
            arrived.copy_(left)

        return cross, arrived

    def begin(self, hidden: torch.Tensor, tables: Tensors) -> None:
        """Start a forward."""
        self._hidden.copy_(hidden)
        for kept in self._tables.values():
            for mine, given in zip(kept, tables, strict=True):
                mine.copy_(given)

    def advance(self, index: int, attended: torch.Tensor | None) -> Tensors:
        """The next layer's queries, keys and values; valid until this layer is replayed again."""
        return self._play(index, attended)[1:]

    def finish(self, attended: torch.Tensor, last: torch.Tensor | None) -> torch.Tensor:
        """The logits of all rows."""
        logits = self._play(len(self._parts) - 1, attended)[1]
        return logits if last is None else logits[last]

    def _play(self, index: int, attended: torch.Tensor | None) -> Tensors:
        if attended is not None:
            self._attended[self._plain.places[index - 1]].copy_(attended)
        if index in self._borders:
            self._borders[index]()
        replay, results = self._parts[index]
        replay()
        return results


class StageChoice:
    """Gives the stages of a forward: recorded ones for decode steps where they hold, else plain ones.

    Turns itself off for good where recording fails or gives other numbers than the plain calls. A number of rows for which
    there was no memory is not tried again; the others are.
    """

    def __init__(self, plain: PlainStages, record: Record | None, most_rows: int = MAX_RECORDED_ROWS) -> None:
        """`record` None: never record (this is the switch)."""
        self._plain, self._record, self._most_rows = plain, record, most_rows
        self._recorded: dict[int, RecordedStages] = {}
        self._too_large: set[int] = set()

    def choose(self, hidden: torch.Tensor, tables: Tensors, decoding: bool) -> Stages:
        """Stages for a forward over `hidden` (rows, hidden)."""
        rows = len(hidden)
        if self._record is None or not decoding or rows > self._most_rows or rows in self._too_large:
            return self._plain
        if rows not in self._recorded:
            self._try(rows, hidden, tables)
        return self._recorded.get(rows, self._plain)

    def _try(self, rows: int, hidden: torch.Tensor, tables: Tensors) -> None:
        """Record a step of so many rows, or see to it that this is not tried again."""
        try:
            self._recorded[rows] = self._checked(hidden, tables)
            return
        except (RuntimeError, NotImplementedError) as error:
            if is_out_of_memory(error):
                log.warning("decode steps of %d rows are not recorded as graphs: there is no memory for them", rows)
                self._too_large.add(rows)
            else:
                log.warning("decode steps are not recorded as graphs: %s", error)
                self._record = None
        gc.collect()  # what was begun goes now, and its memory serves others
        empty_device_cache()

    def _checked(self, hidden: torch.Tensor, tables: Tensors) -> RecordedStages:
        assert self._record is not None
        made = RecordedStages(self._plain, hidden, tables, self._record)
        if not self._same(made, hidden, tables):
            raise RuntimeError("what is replayed differs")
        return made

    def _same(self, made: RecordedStages, hidden: torch.Tensor, tables: Tensors) -> bool:
        """Whether a replay says what the plain calls say, on other values than those that were recorded."""
        hidden, tables = hidden.flip(-1), tuple(0.75 * each for each in tables)
        said = (_through(stages, hidden, tables, len(self._plain.layers)) for stages in (self._plain, made))
        return all(_close(*pair) for pair in zip(*said, strict=True))


def _through(stages: Stages, hidden: torch.Tensor, tables: Tensors, layers: int) -> list[torch.Tensor]:
    """Queries, keys and values of all layers and the logits, where each row attends to nothing but its own value."""
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


def recorded_rows(layer: Any, place: torch.device) -> int:
    """Rows of the largest decode step to record of a model with such a `layer`; 0: none."""
    linears = [*layer.self_attn.children(), *layer.mlp.children()]
    weights = [each.weight for each in linears if hasattr(each, "weight")]
    if any(weight.dtype == torch.int8 for weight in weights):
        return 0  # each of these products waits for the host, which no recording can
    states = [state for weight in weights if (state := getattr(weight, "quant_state", None)) is not None]
    if not states:
        return MAX_RECORDED_ROWS
    capability = torch.cuda.get_device_capability(place)
    if capability < MIN_CAPABILITY:
        return 0
    small = any(state.shape[0] * state.shape[1] < SMALL_WEIGHT for state in states)
    return ALWAYS_FUSED if small else FUSED_ROWS.get(capability, ALWAYS_FUSED)


def record_on_cuda(compute: Callable[[], Tensors], place: torch.device) -> tuple[Callable[[], None], Tensors]:
    """Record a computation as a CUDA graph, after a warm-up on a stream of its own as torch asks.

    The stream is one of `place`: the one that torch would take belongs to the device of the first recording. It is left here,
    since torch stays on it where a recording breaks.
    """
    with torch.cuda.device(place):
        stream, graph = torch.cuda.Stream(place), torch.cuda.CUDAGraph()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(place))
        with torch.cuda.stream(stream):
            compute()
            with torch.cuda.graph(graph, stream=stream):
                results = compute()
        torch.cuda.current_stream(place).wait_stream(stream)
    return graph.replay, results


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding of (rows, heads, head_dim), the two halves of a head being the pair (as in Llama)."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + turned * sin
