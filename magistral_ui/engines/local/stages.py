"""What a forward computes between two attentions: as plain calls, or replayed as CUDA graphs; attention itself is elsewhere.

A decode step is many small kernels: on a GPU their launches from Python cost as much as the work. Everything between two
attentions has fixed shapes for a given number of rows, so it is recorded once for that number and replayed. Where the next
layer lies on another device, what is recorded ends before the move and begins again behind it.
"""

import logging
from collections.abc import Callable
from typing import Any, Protocol

import torch

log = logging.getLogger(__name__)

Tensors = tuple[torch.Tensor, ...]
Record = Callable[[Callable[[], Tensors], torch.device], tuple[Callable[[], None], Tensors]]
"""Takes a computation and its device; gives what replays it, and the tensors in which its results lie each time."""
Move = Callable[[torch.Tensor, torch.device], torch.Tensor]

TOLERANCE = 0.02
"""Largest difference between replayed and plain logits, as a share of their spread, for graphs to be used."""


class Stages(Protocol):
    """One forward, from attention to attention."""

    def begin(self, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
        """Start with embeddings (rows, hidden) and the rows' rotary tables (rows, 1, head_dim)."""

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
        self._hidden = self._cos = self._sin = torch.empty(0)

    def begin(self, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
        """Start a forward."""
        self._hidden, self._cos, self._sin = hidden, cos, sin

    def advance(self, index: int, attended: torch.Tensor | None) -> Tensors:
        """The next layer's queries, keys and values: (rows, heads, head_dim) each."""
        if attended is not None:
            self._hidden = self.close(index - 1, self._hidden, attended)
        if self.borders(index):
            here = self.places[index]
            self._hidden, self._cos, self._sin = (self.move(x, here) for x in (self._hidden, self._cos, self._sin))
        return self.open(index, self._hidden, self._cos, self._sin)

    def finish(self, attended: torch.Tensor, last: torch.Tensor | None) -> torch.Tensor:
        """The logits."""
        hidden = self.close(len(self.layers) - 1, self._hidden, attended)
        hidden = hidden if last is None else hidden[last]
        return self.logits(self.move(hidden, self.places[-1]) if self.borders(len(self.layers)) else hidden)

    def borders(self, index: int) -> bool:
        """Whether layer `index` (the head, behind the last) lies on another device than the layer before it."""
        return index > 0 and self.places[index] != self.places[index - 1]

    def open(self, index: int, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> Tensors:
        """The first half of a layer, up to its attention."""
        layer = self.layers[index]
        attention, normed = layer.self_attn, layer.input_layernorm(hidden)
        shape = (len(hidden), -1, attention.head_dim)
        queries = rotated(attention.q_proj(normed).view(shape), cos, sin)
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

    def __init__(self, plain: PlainStages, hidden: torch.Tensor, cos: torch.Tensor, record: Record) -> None:
        """`hidden` (rows, hidden) and `cos` (rows, 1, head_dim) give shapes and type."""
        self._plain, self._record = plain, record
        self._hidden = hidden.clone()
        self._angles = {place: [plain.move(cos, place).clone() for _ in range(2)] for place in plain.places}
        attended = plain.open(0, self._hidden, *self._angles[plain.places[0]])[0].flatten(1)
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
            return hidden, *plain.open(index, hidden, *self._angles[place])

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

    def begin(self, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
        """Start a forward."""
        self._hidden.copy_(hidden)
        for kept_cos, kept_sin in self._angles.values():
            kept_cos.copy_(cos)
            kept_sin.copy_(sin)

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

    Turns itself off for good where recording fails or gives other logits than the plain calls.
    """

    def __init__(self, plain: PlainStages, record: Record | None, most_rows: int = 16) -> None:
        """`record` None: never record (this is the switch)."""
        self._plain, self._record, self._most_rows = plain, record, most_rows
        self._recorded: dict[int, RecordedStages] = {}

    def choose(self, hidden: torch.Tensor, cos: torch.Tensor, decoding: bool) -> Stages:
        """Stages for a forward over `hidden` (rows, hidden)."""
        rows = len(hidden)
        if self._record is None or not decoding or rows > self._most_rows:
            return self._plain
        if rows not in self._recorded:
            try:
                made = RecordedStages(self._plain, hidden, cos, self._record)
                if not self._same(made, hidden, cos):
                    raise RuntimeError("replayed logits differ")
                self._recorded[rows] = made
            except (RuntimeError, NotImplementedError) as error:
                log.warning("decode steps are not recorded as graphs: %s", error)
                self._record = None
                return self._plain
        return self._recorded[rows]

    def _same(self, made: RecordedStages, hidden: torch.Tensor, cos: torch.Tensor) -> bool:
        logits = [_through(stages, hidden, cos, len(self._plain.layers)) for stages in (self._plain, made)]
        worst = (logits[0].float() - logits[1].float()).abs().max()
        return bool(worst <= TOLERANCE * logits[0].float().std().clamp(min=1e-6))


def _through(stages: Stages, hidden: torch.Tensor, cos: torch.Tensor, layers: int) -> torch.Tensor:
    """Logits where each row attends to nothing but its own value."""
    stages.begin(hidden, cos, torch.zeros_like(cos))
    attended = None
    for index in range(layers):
        queries, _, values = stages.advance(index, attended)
        attended = values.repeat_interleave(queries.shape[1] // values.shape[1], dim=1).flatten(1)
    assert attended is not None
    return stages.finish(attended, None).clone()


def record_on_cuda(compute: Callable[[], Tensors], place: torch.device) -> tuple[Callable[[], None], Tensors]:
    """Record a computation as a CUDA graph, after a warm-up on a stream of its own as torch asks."""
    with torch.cuda.device(place):
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            compute()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = compute()
    return graph.replay, results


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding of (rows, heads, head_dim), the two halves of a head being the pair (as in Llama)."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + turned * sin
