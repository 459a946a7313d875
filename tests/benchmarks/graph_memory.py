"""What the recorded decode steps of a real model take on a card, counted without one, beside what is planned for them.

The engine's own step runs on tensors without data, and everything that it allocates and frees goes through a model of torch's
allocator, in the order in which the graphs are recorded.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Ministral3Config, Ministral3ForCausalLM, MistralConfig, MistralForCausalLM

from magistral_ui.engines.local.cuda_recorder import WARM_UPS
from magistral_ui.engines.local.decode_step import DecodeStep
from magistral_ui.engines.local.fused_ops import Pieces
from magistral_ui.engines.local.kv_cache import PagePool
from magistral_ui.engines.local.model_layers import ModelLayers
from magistral_ui.engines.local.paged_kernels import VarlenAttention
from magistral_ui.engines.local.static_inputs import StaticInputs
from magistral_ui.engines.weights.fused_products import fused_buckets
from magistral_ui.engines.weights.joined_weights import joined_like
from magistral_ui.engines.weights.packing import join_linears
from magistral_ui.models.cards import FAMILY
from magistral_ui.models.device_budget import DeviceBudget
from magistral_ui.models.graph_memory import graph_bytes, planned_buckets
from magistral_ui.models.memory import PAGE_TOKENS, pages_of, scratch_bytes
from magistral_ui.models.shape import ModelShape, kv_bytes_per_token
from tests.benchmarks.caching_allocator import Block, CachingAllocator, splits
from tests.benchmarks.table import Row, at_least, at_most
from tests.engines.weights.library_rule import rule_on

NOWHERE = torch.device("meta")
LAYERS = 3
"""Of a segment: more of them only repeat what these allocate and free."""
PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default)
"""What cuBLAS computes, in a workspace that it keeps for each stream."""


@dataclass(frozen=True, slots=True)
class GraphicsCard:
    name: str
    capability: tuple[int, int]
    processors: int

    @property
    def place(self) -> DeviceBudget:
        """As the plan knows it."""
        rule = rule_on(self.capability, self.processors)
        asked = partial(fused_buckets, capability=self.capability, rule=rule)
        return DeviceBudget("cuda", 0, 0, capability=self.capability, fused_buckets=asked)

    @property
    def workspace(self) -> int:
        """Bytes of cuBLAS' workspace for a stream (`parseChosenWorkspaceSize` in CublasHandlePool.cpp)."""
        return 32 * 2**20 if self.capability[0] >= 9 else 8 * 2**20 + 128 * 2**10


CARDS = (
    GraphicsCard("A100", (8, 0), 108),
    GraphicsCard("RTX 3090", (8, 6), 82),
    GraphicsCard("A10G", (8, 6), 80),
    GraphicsCard("L4", (8, 9), 58),
    GraphicsCard("RTX 4060 Ti", (8, 9), 34),
    GraphicsCard("RTX 4090", (8, 9), 128),
    GraphicsCard("L40S", (8, 9), 142),
    GraphicsCard("H100", (9, 0), 132),
    GraphicsCard("B200", (10, 0), 148),
    GraphicsCard("RTX 5060 Ti", (12, 0), 36),
    GraphicsCard("RTX 5090", (12, 0), 170),
    GraphicsCard("RTX PRO 6000", (12, 0), 188),
)


class FusedProduct(nn.Module):
    """A linear layer as bitsandbytes' fused kernels compute it: they allocate their result and nothing else."""

    def __init__(self, out: int) -> None:
        super().__init__()
        self._out = out

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.new_empty(*rows.shape[:-1], self._out)


class Event(NamedTuple):
    """What an operation does with memory: `allocate` and `free` name a tensor, `attend` and `product` an operation's own."""

    kind: str
    number: int = 0
    size: int = 0
    sizes: tuple[int, ...] = ()
    """Of an attention: rows, heads, heads of the keys, and the size of a head."""


class Trace(TorchDispatchMode):
    """Lists what the operations under it allocate and free."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self._number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.collect()
        given = {_storage(each).cdata for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        if "varlen_attn" in func.name():
            self.events.append(Event("attend", size=args[0].nbytes, sizes=(*args[0].shape[:2], *args[1].shape[2:])))
        for each in tree_leaves(out):
            if isinstance(each, torch.Tensor) and (found := _storage(each)).cdata not in given | self._live.keys():
                self._number += 1
                self._live[found.cdata] = found, self._number
                self.events.append(Event("allocate", self._number, each.untyped_storage().nbytes()))
        if func in PRODUCTS:
            self.events.append(Event("product"))
        return out

    def collect(self) -> None:
        """Note as freed what nobody holds any longer."""
        for key in [key for key, (found, _) in self._live.items() if found.expired()]:
            self.events.append(Event("free", self._live.pop(key)[1]))


def _storage(tensor: torch.Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())


def meta_layers(shape: ModelShape, precision: str, ministral: bool) -> ModelLayers:
    """The model's own modules, without data."""
    kinds: tuple[Any, Any] = (
        (Ministral3Config, Ministral3ForCausalLM) if ministral else (MistralConfig, MistralForCausalLM)
    )
    config = kinds[0](
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=2 * LAYERS,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.context_length,
        sliding_window=None,
    )
    with NOWHERE:
        model = kinds[1](config).to(torch.bfloat16).eval()
    for layer in model.model.layers:
        for part in (layer.self_attn, layer.mlp):
            if precision == "bfloat16":
                join_linears(part, joined_like)
            else:
                for name, child in list(part.named_children()):
                    if isinstance(child, nn.Linear):
                        setattr(part, name, FusedProduct(child.out_features))
    layers = ModelLayers(model.model, model.lm_head)
    layers.pieces = Pieces(normalized, added_and_normalized)
    return layers


def normalized(hidden: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """As the CUDA kernel for it: the result, and each row's scale."""
    scales = hidden.new_empty(len(hidden), 1, dtype=torch.float32)
    del scales
    return torch.empty_like(hidden)


def added_and_normalized(
    hidden: torch.Tensor, change: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    total = hidden + change
    return total, normalized(total, weight, eps)


@dataclass(frozen=True, slots=True)
class Counted:
    """Bytes that a device's allocator reserves for recorded steps, and that the scratch page takes."""

    pool: int
    workspace: int
    inputs: int
    scratch: int

    @property
    def total(self) -> int:
        return self.pool + self.workspace + self.inputs + self.scratch


class SimulatedCard:
    """What a device's allocator holds while steps are recorded there."""

    def __init__(self, card: GraphicsCard, longest: int) -> None:
        self._card, self._longest = card, longest
        self.pool, self.stream = CachingAllocator(), CachingAllocator()
        self._workspace = False

    def record(self, events: list[Event]) -> None:
        """Two runs to warm up, which leave nothing but cuBLAS' workspace, and a recording, which leaves its result."""
        for _ in range(WARM_UPS):
            for left in self._play(events, self.stream).values():
                self.stream.free(left)
        self.stream.give_back()
        self._play(events, self.pool)

    def _play(self, events: list[Event], allocator: CachingAllocator) -> dict[int, Block]:
        live: dict[int, Block] = {}
        for event in events:
            if event.kind == "allocate":
                live[event.number] = allocator.allocate(event.size)
            elif event.kind == "free":
                allocator.free(live.pop(event.number))
            elif event.kind == "attend":
                self._attend(event, allocator)
            elif not self._workspace:
                self._workspace = True
                allocator.allocate(self._card.workspace)
        return live

    def _attend(self, event: Event, allocator: CachingAllocator) -> None:
        """What `mha_varlen_fwd` allocates for one row of each sequence: heads that share keys are its rows there."""
        rows, heads, shared, width = event.sizes
        turned, out, sums = (allocator.allocate(size) for size in (event.size, event.size, 4 * rows * heads))
        kept = [turned, sums]
        parts = splits(rows * shared, self._card.processors, self._longest)
        if parts > 1:
            kept += [allocator.allocate(4 * parts * rows * heads * each) for each in (1, width)]
        kept += [allocator.allocate(16), allocator.allocate(8), allocator.allocate(event.size)]
        allocator.free(out)
        kept.append(allocator.allocate(event.size))
        for each in kept:
            allocator.free(each)


class TracedModel:
    """The steps of a model over some devices, for each row count and device, as what they allocate and free."""

    def __init__(
        self, shape: ModelShape, precision: str, context: int, devices: int = 1, *, ministral: bool = False
    ) -> None:
        layers = meta_layers(shape, precision, ministral)
        self._shape, self._precision, self._count = shape, precision, devices
        self._width = pages_of(context)
        layers.devices = [torch.device("meta", index * devices // len(layers)) for index in range(len(layers))]
        layers.devices.append(layers.devices[-1])
        pool = PagePool([NOWHERE] * len(layers), shape.kv_heads, shape.head_dim, torch.bfloat16, self._width)
        attention = VarlenAttention(NOWHERE)
        self._step = DecodeStep(layers, pool, dict.fromkeys(layers.devices, attention))
        self._border = 0
        self._events: dict[int, list[list[Event]]] = {}

    def counted(self, card: GraphicsCard) -> list[Counted]:
        """What each device reserves for the steps that are recorded on such a card."""
        buckets = planned_buckets(self._shape, self._precision, card.place)
        most, found = max(buckets), []
        for index in range(len(self._step.devices)):
            device = SimulatedCard(card, self._width * PAGE_TOKENS)
            for rows in sorted(buckets, reverse=True):
                device.record(self._traced(rows, rows == most)[index])
            default = CachingAllocator()
            default.allocate(StaticInputs(most, self._width, NOWHERE).nbytes)
            if index:
                default.allocate(most * self._border)
            page = PAGE_TOKENS * kv_bytes_per_token(self._shape, self._precision) // self._count
            found.append(Counted(device.pool.reserved, device.stream.reserved, default.reserved, page))
        return found

    def planned(self, card: GraphicsCard) -> list[int]:
        """What the plan has for each device."""
        heads = [index == self._count - 1 for index in range(self._count)]
        scratch = self._shape.layers * scratch_bytes(self._shape, self._precision, card.place) // self._count
        return [graph_bytes(self._shape, self._precision, card.place, head=head) + scratch for head in heads]

    def _traced(self, rows: int, keeps: bool) -> list[list[Event]]:
        """The events of each segment; `keeps`: whether it keeps its result, as the largest does, or copies it."""
        if rows not in self._events:
            inputs = StaticInputs(rows, self._width, NOWHERE).first(rows)
            state = None
            for index in range(len(self._step.devices)):
                trace = Trace()
                with torch.no_grad(), trace:
                    state = self._step.segment(index, state, inputs)
                trace.collect()
                self._border = state[0].nbytes if index < len(self._step.devices) - 1 else self._border
                self._events.setdefault(rows, []).append(trace.events)
        if keeps:
            return self._events[rows]
        return [[*events, *(Event("free", n) for n in _left(events))] for events in self._events[rows]]


def _left(events: list[Event]) -> set[int]:
    """What is still allocated in the end."""
    return {e.number for e in events if e.kind == "allocate"} - {e.number for e in events if e.kind == "free"}


def rows() -> Iterator[Row]:
    """Over all cards, models and precisions: how near what is planned comes to what is counted."""
    ratios: dict[float, str] = {}
    for card in FAMILY:
        assert card.shape is not None
        for precision in ("bfloat16", "nf4"):
            model = TracedModel(card.shape, precision, card.shape.context_length, ministral=card.shape.tied)
            for each in CARDS:
                counted = sum(found.total for found in model.counted(each))
                ratios[sum(model.planned(each)) / counted] = f"{card.name} in {precision} on {each.name}"
    least, most = min(ratios), max(ratios)
    yield at_least("planned ÷ counted bytes of recorded steps, least", 1.0, least, ratios[least])
    yield at_most("planned ÷ counted bytes of recorded steps, most", 1.03, most, ratios[most])
