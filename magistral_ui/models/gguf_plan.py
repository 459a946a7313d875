"""Plans the memory of a GGUF model for llama.cpp: which layers are on GPUs, and the pool of keys and values; pure arithmetic.

How llama.cpp places layers was read in its source: the last ones on the GPUs, in the order of the GPUs, and the head with the
last one; the embedding in RAM, the projector on the first GPU.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from magistral_ui.models.device_budget import DeviceBudget
from magistral_ui.models.gguf_buffers import (
    KV_TYPES,
    POOL_STEP,
    batch_bytes,
    image_buffer_bytes,
    kv_bytes_per_layer,
    pool_token_bytes,
    process_bytes,
)
from magistral_ui.models.memory import (
    GIB,
    GOOD_CONTEXT,
    MIN_CONTEXT,
    MIN_CONTEXT_GAIN,
    SMALL_IMAGE,
    TYPICAL_CONTEXT,
    MemoryPlan,
    Share,
    margin_bytes,
    visitors_of,
)
from magistral_ui.models.shape import MAX_SEQUENCES, ModelShape

QUANTIZATIONS: Mapping[str, float] = {
    "F32": 4.0,
    "BF16": 2.0,
    "F16": 2.0,
    "Q8_0": 1.0625,
    "Q6_K": 0.8204,
    "Q5_K_M": 0.7068,
    "Q5_K_S": 0.6877,
    "Q4_K_M": 0.6001,
    "Q4_K_S": 0.5671,
    "Q4_0": 0.5625,
    "Q3_K_L": 0.5237,
    "Q3_K_M": 0.4796,
    "Q3_K_S": 0.4298,
    "Q2_K": 0.3677,
}
"""Bytes per parameter of the decoder's layers, by llama.cpp's name of the file type, the most exact first.

From the types that llama.cpp's quantizer gives to each matrix (`llama-quant.cpp`), for the family's shapes. With them, 18
published files of four sizes are met within 0.9 %."""
HEAD_BYTES = 0.8203
"""Bytes per parameter of the head in Q6_K, which llama.cpp's quantizer takes for the head of anything coarser."""
MIN_GPU_SHARE = 0.25
"""Share of the layers from which it pays to keep them on the GPU and the rest in RAM. A token's time is that of reading all
weights, from memory that is about five times as fast on a GPU: with fewer layers, less than a fifth of it is saved."""
GPU_BANDWIDTH, RAM_BANDWIDTH = 200e9, 40e9
"""Bytes per second that slow graphics cards and ordinary computers read."""
OFFLOAD_CONTEXT = 16_384
"""Context for which layers stay in RAM rather than that all of the model is on the GPU."""


@dataclass(frozen=True, slots=True)
class GGUFWeights:
    """Bytes of a model's parts in its GGUF file, and so in memory."""

    quantization: str
    layers: tuple[int, ...]
    """One for each decoder layer, in their order."""
    embedding: int
    """Always in RAM."""
    head: int
    """The output matrix and its norm. Where it is tied to the embedding: bytes of the copy that is made on a GPU."""
    mmproj: int = 0
    """Bytes of the projector's file; 0 without one."""
    tied: bool = False
    """Whether the embedding is also the head."""


def estimated_weights(shape: ModelShape, quantization: str, mmproj: bool = True) -> GGUFWeights:
    """The weights of a file that has not been seen; KeyError if the quantization is not known. `mmproj`: with its projector."""
    size = QUANTIZATIONS[quantization]
    layer = int(size * shape.linear_parameters / shape.layers) + 8 * shape.hidden
    head = int(max(size, HEAD_BYTES) * shape.vocabulary * shape.hidden) + 4 * shape.hidden
    embedding = head if shape.tied else int(size * shape.vocabulary * shape.hidden)
    tower = 2 * shape.vision.parameters(shape.hidden) if shape.vision and mmproj else 0
    return GGUFWeights(quantization, (layer,) * shape.layers, embedding, head, tower, shape.tied)


def plan_gguf(
    shape: ModelShape,
    weights: GGUFWeights,
    place: DeviceBudget,
    *,
    kv_type: str = "auto",
    context: int | None = None,
    recommended: int | None = None,
) -> MemoryPlan:
    """How `place` would be divided for llama.cpp.

    `place.type` is `cpu`, or that of a GPU: `cuda`, `mps`, `gpu`; `place.host` is what is free in RAM for what is not on GPUs.
    `kv_type` is `f16`, `q8_0` or `auto`; `context` is the longest conversation that was asked for; None: at most
    `recommended`, and on a processor at most GOOD_CONTEXT, because the whole pool is taken when the model is loaded.

    The whole model is on the GPUs if that leaves OFFLOAD_CONTEXT. Keys and values are in q8_0 where f16 would cost a good
    context, and images smaller where that lengthens it. Otherwise some layers stay in RAM, if it pays; else all do.
    """
    if not weights.mmproj:
        shape = shape.without_vision()
    limit = min(context or recommended or shape.context_length, shape.context_length)
    if place.type == "cpu" and context is None:
        limit = min(limit, GOOD_CONTEXT)
    enough = limit if context else min(OFFLOAD_CONTEXT, limit)
    planners = [
        _Planner(smaller, weights, place, kv, limit)
        for smaller in dict.fromkeys((shape, shape.with_images(SMALL_IMAGE)))
        for kv in (KV_TYPES if kv_type == "auto" else (kv_type,))
    ]
    whole = _longest([each.whole() for each in planners], min(GOOD_CONTEXT, limit))
    if whole.context >= enough or place.type == "cpu":
        return whole
    partly = [planned for each in planners if (planned := each.partly(enough)) is not None]
    if partly:
        return max(partly, key=lambda each: each.gpu_layers or 0)
    if whole.context >= min(MIN_CONTEXT, limit) or not place.host:
        return whole
    in_ram = DeviceBudget("cpu", place.host, place.host)
    slow = plan_gguf(shape, weights, in_ram, kv_type=kv_type, context=context, recommended=recommended)
    return slow if slow.context >= min(MIN_CONTEXT, limit) else whole


def _longest(plans: Sequence[MemoryPlan], good: int) -> MemoryPlan:
    """The first with a `good` context; if none has one, the first of those that nearly have the longest."""
    most = max(each.context for each in plans)
    return next(each for each in plans if each.context >= good or each.context * MIN_CONTEXT_GAIN >= most)


def _in_order(places: Sequence[DeviceBudget]) -> Sequence[DeviceBudget]:
    """GPUs as llama.cpp fills them."""
    return sorted(places, key=lambda place: place.index)


@dataclass(frozen=True, slots=True)
class _Planner:
    """Plans with keys and values of one type, and images of one size."""

    shape: ModelShape
    weights: GGUFWeights
    place: DeviceBudget
    kv_type: str
    limit: int
    """Tokens of the longest conversation."""

    def whole(self) -> MemoryPlan:
        """With all layers on the processor, or on the fewest GPUs that leave a good context."""
        if self.place.type == "cpu":
            return self._on_cpu()
        places, good = self.place.all, min(GOOD_CONTEXT, self.limit)
        plans = [self._on_gpus(_in_order(places[: n + 1])) for n in range(len(places))]
        return next((each for each in plans if each.context >= good), max(plans, key=lambda each: each.context))

    def partly(self, tokens: int) -> MemoryPlan | None:
        """With the first layers in RAM and as many as fit on the GPUs, for a pool of `tokens`; None if it does not pay.

        An Apple GPU has no memory of its own. While a prompt is read, a layer of those in RAM is copied to the GPU.
        """
        layers, places = self.weights.layers, _in_order(self.place.all)
        if self.place.type == "mps" or not self.place.host:
            return None
        rooms = [self._room(place, n) - (max(layers) if n == 0 else 0) for n, place in enumerate(places)]
        tokens = -(-tokens // POOL_STEP) * POOL_STEP
        for count in range(len(layers) - 1, max(1, int(MIN_GPU_SHARE * len(layers))) - 1, -1):
            held = self._ram(len(layers) - count, tokens)
            divided = self._divided(layers[-count:], rooms, tokens)
            if divided is not None and held + min(GIB, self.place.host // 10) <= self.place.host:
                return self._planned(places, divided, tokens, held)
        return None

    def _on_cpu(self) -> MemoryPlan:
        """Half of what is left is kept for other programs."""
        fixed = self._ram(len(self.weights.layers), 0) + self.weights.mmproj + image_buffer_bytes(self.shape)
        if not self.weights.tied:
            fixed += self.weights.head
        room = max(0, self.place.free - fixed - margin_bytes(self.place)) // 2
        tokens = min(room // (self._kv_per_token + self._per_pool_token), -(-self.limit // POOL_STEP) * POOL_STEP)
        return self._planned((self.place,), (len(self.weights.layers),), tokens, 0)

    def _on_gpus(self, places: Sequence[DeviceBudget]) -> MemoryPlan:
        layers, rooms = self.weights.layers, [self._room(place, n) for n, place in enumerate(places)]
        low, high = 0, max(1, sum(place.free for place in places) // self._kv_per_token)
        while low < high:  # the most tokens for which all layers fit
            middle = (low + high + 1) // 2
            fitting = self._divided(layers, rooms, middle) is not None
            low, high = (middle, high) if fitting else (low, middle - 1)
        divided = self._divided(layers, rooms, low) or (len(layers), *(0 for _ in places[1:]))
        tokens = min(low, self.limit + (MAX_SEQUENCES - 1) * TYPICAL_CONTEXT)
        return self._planned(places, divided, tokens, self._ram(0, tokens))

    def _divided(self, layers: Sequence[int], rooms: Sequence[int], tokens: int) -> tuple[int, ...] | None:
        """How many `layers` each GPU holds, with keys and values of `tokens`; the last one holds the head. None: not all fit."""
        counts, waiting = [], list(layers)
        for n, room in enumerate(rooms):
            left, count = room - tokens * self._per_pool_token - (self.weights.head if n == len(rooms) - 1 else 0), 0
            while waiting and left >= waiting[0] + tokens * self._kv_per_layer:
                left -= waiting.pop(0) + tokens * self._kv_per_layer
                count += 1
            if left < 0:
                return None
            counts.append(count)
        return None if waiting else tuple(counts)

    def _room(self, place: DeviceBudget, n: int) -> int:
        """Bytes on GPU `n` for layers, head, keys and values; the first one holds the projector."""
        images = self.weights.mmproj + image_buffer_bytes(self.shape) if n == 0 else 0
        return place.free - margin_bytes(place) - batch_bytes(self.shape, self.place.type) - images

    def _ram(self, layers: int, tokens: int) -> int:
        """Bytes in RAM beside the projector and the head: the embedding, the first `layers`, and keys and values of `tokens`."""
        held = self.weights.embedding + sum(self.weights.layers[:layers]) + process_bytes(self.shape)
        kv = tokens * (layers * self._kv_per_layer + self._per_pool_token)
        return held + batch_bytes(self.shape, self.place.type) + kv

    def _planned(self, places: Sequence[DeviceBudget], divided: Sequence[int], tokens: int, in_ram: int) -> MemoryPlan:
        shape, pool = self.shape, tokens // POOL_STEP * POOL_STEP
        cpu = self.place.type == "cpu"
        buffers = batch_bytes(self.shape, self.place.type) + pool * self._per_pool_token
        first = len(self.weights.layers) - sum(divided)
        shares = []
        for n, (place, count) in enumerate(zip(places, divided, strict=True)):
            held = sum(self.weights.layers[first : first + count]) + (self.weights.mmproj if n == 0 else 0)
            if n == len(places) - 1 and not (cpu and self.weights.tied):
                held += self.weights.head
            held += self.weights.embedding if cpu else 0
            working = (
                buffers + (image_buffer_bytes(self.shape) if n == 0 else 0) + (process_bytes(self.shape) if cpu else 0)
            )
            kv = pool * count * self._kv_per_layer
            shares.append(Share(count, held, working, margin_bytes(place), kv, place.index))
            first += count
        return MemoryPlan(
            precision=self.weights.quantization,
            weights=sum(share.weights for share in shares),
            working=sum(share.working for share in shares),
            margin=sum(share.margin for share in shares),
            kv_per_token=self._kv_per_token,
            kv_bytes=pool * self._kv_per_token,
            context=min(pool, self.limit),
            visitors=visitors_of(shape, pool),
            shares=tuple(shares),
            image_side=shape.image_side,
            kv_type=self.kv_type,
            gpu_layers=0 if cpu else sum(divided) + 1,
            slots=max(1, min(MAX_SEQUENCES, pool // MIN_CONTEXT)),
            in_ram=in_ram,
            ram_layers=0 if cpu else len(self.weights.layers) - sum(divided),
        )

    @property
    def _kv_per_layer(self) -> int:
        return kv_bytes_per_layer(self.shape, self.kv_type)

    @property
    def _kv_per_token(self) -> int:
        return self._kv_per_layer * self.shape.layers

    @property
    def _per_pool_token(self) -> int:
        return pool_token_bytes(self.shape, self.place.type, self.kv_type)


def offloaded_pace(weights: GGUFWeights, planned: MemoryPlan) -> float:
    """Tokens per second with some layers in RAM, estimated: for each token all weights are read, from where they are."""
    in_ram = sum(weights.layers[: planned.ram_layers])
    on_gpu = sum(weights.layers[planned.ram_layers :]) + weights.head
    return 1 / (on_gpu / GPU_BANDWIDTH + in_ram / RAM_BANDWIDTH)


def needed_gguf_bytes(
    shape: ModelShape, weights: GGUFWeights, type: str, context: int = MIN_CONTEXT, count: int = 1
) -> int:
    """Bytes of the smallest, unused device of this `type`, or of `count` equal GPUs, that holds it all with `context` tokens."""
    shape = shape.with_images(SMALL_IMAGE) if weights.mmproj else shape.without_vision()
    tokens = -(-min(context, shape.context_length) // POOL_STEP) * POOL_STEP
    kv = tokens * (shape.layers * kv_bytes_per_layer(shape, "q8_0") + pool_token_bytes(shape, type, "q8_0"))
    fixed = sum(weights.layers) + weights.mmproj + count * batch_bytes(shape, type) + image_buffer_bytes(shape)
    if type == "cpu":
        fixed += weights.embedding + (0 if weights.tied else weights.head) + process_bytes(shape)
        return fixed + GIB + 2 * kv
    return int((fixed + weights.head + kv + count * GIB * 3 // 4) / 0.97) + 1
