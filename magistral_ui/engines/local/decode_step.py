"""One decode step of all sequences over paged keys and values, on tensors of fixed shapes, as a CUDA graph needs it.

Every row is a query of its own, so nothing here depends on which sequence it belongs to, and attention is one call a layer.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Protocol

import torch

from magistral_ui.engines.local.attention import write
from magistral_ui.engines.local.kv_cache import KVCache, PagePool
from magistral_ui.models.memory import PAGE_TOKENS

if TYPE_CHECKING:
    from magistral_ui.engines.local.paged_attention import PagedAttention


@dataclass(frozen=True, slots=True)
class StepInputs:
    """A row is a query of its own: a token and its drafts have the same table and growing lengths.

    A padding row has token 0, position 0, slot 0 (in the scratch page), a table of zeros and length 1.
    """

    tokens: torch.Tensor
    """(rows,) int64."""
    positions: torch.Tensor
    """(rows,) int64."""
    slots: torch.Tensor
    """(rows,) int64: where the row's key and value go in the pool, page × PAGE_TOKENS + offset."""
    tables: torch.Tensor
    """(rows, pages of the longest sequence) int32: the pages of the row's sequence, in order; zeros after the last."""
    lengths: torch.Tensor
    """(rows,) int32: the keys that the row sees, its own among them."""


class SegmentedStep(Protocol):
    """A decode step in segments, one for each run of layers on the same device; a graph belongs to one device."""

    devices: list[torch.device]
    """Of the segments, in order."""

    def prepare(self, lengths: Sequence[int], tables: Sequence[Sequence[int]]) -> None:
        """Take in what each row sees, padding rows among them, before the step runs, or a recording of it is made or replayed.

        `tables` names each row's pages without zeros after the last.
        """

    def segment(self, index: int, state: torch.Tensor | None, inputs: StepInputs) -> torch.Tensor:
        """The hidden state (rows, hidden) after segment `index`; after the last, logits (rows, vocabulary).

        `state` is what the segment before returned, on this segment's device; None for the first. `inputs` are on it too.
        """


class Layers(Protocol):
    """What a step computes beside attention; see `model_layers.ModelLayers`."""

    devices: list[torch.device]
    """Of the layers, in order, then of the head."""

    def scale(self, index: int) -> float: ...

    def embed(self, tokens: torch.Tensor) -> torch.Tensor: ...

    def tables(self, hidden: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, ...]: ...

    def open(self, index: int, hidden: torch.Tensor, tables: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]: ...

    def close(self, index: int, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor: ...

    def logits(self, hidden: torch.Tensor) -> torch.Tensor: ...


class DecodeStep:
    """A SegmentedStep: the plain computation of a decode step, which a graph may record."""

    def __init__(self, layers: Layers, pool: PagePool, attentions: "dict[torch.device, PagedAttention]") -> None:
        """`attentions` are those of the devices of the layers."""
        self._layers, self._pool, self.attentions = layers, pool, attentions
        *each, head = layers.devices
        self.devices: list[torch.device] = []
        self._bounds: list[tuple[int, int]] = []
        """The first layer of each segment, and the one after its last."""
        for index, device in enumerate(each):
            if not self.devices or device != self.devices[-1]:
                self.devices.append(device)
                self._bounds.append((index, index))
            self._bounds[-1] = (self._bounds[-1][0], index + 1)
        if head != self.devices[-1]:
            self.devices.append(head)
            self._bounds.append((len(each), len(each)))

    def prepare(self, lengths: Sequence[int], tables: Sequence[Sequence[int]]) -> None:
        for attention in self.attentions.values():
            attention.prepare(lengths, tables)

    def segment(self, index: int, state: torch.Tensor | None, inputs: StepInputs) -> torch.Tensor:
        hidden = self._layers.embed(inputs.tokens) if state is None else state
        first, end = self._bounds[index]
        tables = self._layers.tables(hidden, inputs.positions) if end > first else ()
        for layer in range(first, end):
            queries, keys, values = self._layers.open(layer, hidden, tables)
            pool = self._pool.layer(layer)
            write(pool, keys, values, inputs.slots)
            attended = self.attentions[self.devices[index]].attend(queries, *pool, inputs, self._layers.scale(layer))
            hidden = self._layers.close(layer, hidden, attended)
        return self._layers.logits(hidden) if index == len(self.devices) - 1 else hidden

    def __call__(self, inputs: StepInputs) -> torch.Tensor:
        """Logits (rows, vocabulary); `inputs` may be anywhere."""
        state = None
        for index, device in enumerate(self.devices):
            here = inputs_on(inputs, device)
            state = self.segment(index, None if state is None else state.to(device, non_blocking=True), here)
        assert state is not None
        return state


def inputs_on(inputs: StepInputs, device: torch.device) -> StepInputs:
    """The inputs on `device`."""
    return StepInputs(*(getattr(inputs, each.name).to(device, non_blocking=True) for each in fields(StepInputs)))


def slots_of(cache: KVCache, count: int) -> list[int]:
    """Where the next `count` tokens of a sequence go in the pool; room for them is reserved."""
    return [
        cache.pages[n // PAGE_TOKENS] * PAGE_TOKENS + n % PAGE_TOKENS for n in range(cache.length, cache.length + count)
    ]


def step_inputs(parts: list[tuple[KVCache, list[int]]], width: int) -> StepInputs:
    """The inputs, on the host, of a step over each sequence's next tokens; `width` pages a row hold the longest sequence.

    The device waits for it in each step, so it takes no longer for a wider table: only for more pages.
    """
    tokens, positions, slots = array("q"), array("q"), array("q")
    tables = array("i", bytes(4 * width * sum(len(new) for _, new in parts)))  # of SCRATCH_PAGE
    for cache, new in parts:
        pages = array("i", cache.pages)
        if len(pages) > width:
            raise ValueError(f"a sequence of {len(pages)} pages, where the longest has {width}")
        for row in range(len(tokens), len(tokens) + len(new)):
            tables[row * width : row * width + len(pages)] = pages
        tokens.extend(new)
        positions.extend(range(cache.length, cache.length + len(new)))
        slots.extend(slots_of(cache, len(new)))
    lengths = array("i", (position + 1 for position in positions))
    return StepInputs(
        torch.frombuffer(tokens, dtype=torch.int64),
        torch.frombuffer(positions, dtype=torch.int64),
        torch.frombuffer(slots, dtype=torch.int64),
        torch.frombuffer(tables, dtype=torch.int32).view(-1, width),
        torch.frombuffer(lengths, dtype=torch.int32),
    )
