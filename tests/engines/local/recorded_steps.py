"""A small decode step over pages, and what records it on the CPU as a CUDA graph would: with results in fixed tensors."""

from collections.abc import Callable, Sequence

import torch

from magistral_ui.engines.local.cuda_recorder import Compute, Recording
from magistral_ui.engines.local.decode_step import StepInputs
from magistral_ui.engines.local.kv_cache import PagePool
from magistral_ui.models.memory import PAGE_TOKENS

HEADS, SIZE, VOCABULARY = 2, 8, 300
WIDTH = 3
"""Pages of the longest sequence."""


class SmallStep:
    """Embedding, a layer of attention and two more products for each of `places`, and a head on the last of them."""

    def __init__(self, places: list[torch.device], pages: int = 12) -> None:
        torch.manual_seed(0)
        self.devices = [place for n, place in enumerate(places) if n == 0 or place != places[n - 1]]
        self.places, width = places, HEADS * SIZE
        self.embedding = torch.randn(VOCABULARY, width, device=places[0])
        self.weights = [[torch.randn(width, width, device=place) / 4 for _ in range(4)] for place in places]
        self.head = torch.randn(width, VOCABULARY, device=places[-1])
        self.pool = PagePool(places, HEADS, SIZE, torch.float32, pages)
        self.prepared: list[tuple[int, list[int]]] = []

    def prepare(self, lengths: Sequence[int], tables: Sequence[Sequence[int]]) -> None:
        self.prepared = [*zip(lengths, map(list, tables), strict=True)]

    def segment(self, index: int, state: torch.Tensor | None, inputs: StepInputs) -> torch.Tensor:
        hidden = self.embedding[inputs.tokens] if state is None else state
        number = -1
        for layer, place in enumerate(self.places):
            number += layer == 0 or place != self.places[layer - 1]
            if number == index:
                hidden = hidden + self._layer(layer, hidden, inputs)
        return hidden @ self.head if index == len(self.devices) - 1 else hidden

    def _layer(self, layer: int, hidden: torch.Tensor, inputs: StepInputs) -> torch.Tensor:
        turned = hidden + inputs.positions[:, None] / 7
        queries, keys, values = ((turned @ each).tanh().view(-1, HEADS, SIZE) for each in self.weights[layer][:3])
        pool = self.pool.layer(layer)
        for held, new in zip(pool, (keys, values), strict=True):
            held.flatten(0, 1)[inputs.slots] = new
        seen_keys, seen_values = (held[inputs.tables.long()].flatten(1, 2) for held in pool)
        scores = torch.einsum("rhd,rkhd->rhk", queries, seen_keys)
        numbers = torch.arange(scores.shape[-1], device=scores.device)
        hidden_keys = numbers[None, None] >= inputs.lengths[:, None, None]
        weights = scores.masked_fill(hidden_keys, -torch.inf).softmax(-1)
        return torch.einsum("rhk,rkhd->rhd", weights, seen_values).flatten(1) @ self.weights[layer][3]


def sequences(step: SmallStep, rows: int, seed: int = 0) -> StepInputs:
    """A step of `rows` rows, on the host: a token with three drafts, then sequences of one row, one of them with two pages."""
    torch.manual_seed(seed)
    pages = step.pool.take(6)
    for layer in range(len(step.places)):
        for held in step.pool.layer(layer):
            held[pages] = torch.randn(held[pages].shape, device=held.device)
    lengths = torch.tensor([*range(100, 104), *(17 * n + 1 for n in range(rows))])[:rows]
    tables = torch.zeros(rows, 2, dtype=torch.int32)
    tables[:, 0] = torch.tensor([pages[0 if n < 4 else 1 + n % 4] for n in range(rows)])
    if rows > 4:
        lengths[4], tables[4, 1] = PAGE_TOKENS + 9, pages[5]
    positions = lengths - 1
    page = tables.gather(1, (positions // PAGE_TOKENS)[:, None])[:, 0]
    slots = page * PAGE_TOKENS + positions % PAGE_TOKENS
    return StepInputs(torch.randint(VOCABULARY, (rows,)), positions, slots, tables, lengths.int())


class Tape:
    """Records as a graph does: what is replayed reads and writes the tensors of the recording.

    `spoil` is done to the result with each replay of recording number `spoiled`.
    """

    def __init__(self, spoil: Callable[[torch.Tensor], object] | None = None, spoiled: int = 0) -> None:
        self.made: list[tuple[torch.device, torch.Tensor]] = []
        self.asked: list[tuple[torch.device, int]] = []
        self.forgotten = 0
        self._spoil, self._spoiled = spoil, spoiled

    def __call__(self, compute: Compute, device: torch.device) -> Recording:
        compute()  # to warm up
        made = compute()
        earlier = any(made.data_ptr() == result.data_ptr() for _, result in self.made)
        result = made if earlier else made.clone()
        number = len(self.asked)
        self.asked.append((device, len(result)))
        self.made.append((device, result))

        def replay() -> None:
            new = compute()
            if new.data_ptr() != result.data_ptr():
                result.copy_(new)
            if self._spoil is not None and number == self._spoiled:
                self._spoil(result)

        return replay, result

    def forget(self) -> None:
        self.made.clear()
        self.forgotten += 1

    def reserved(self, device: torch.device) -> int:
        return sum(result.nbytes for place, result in self.made if place == device)
