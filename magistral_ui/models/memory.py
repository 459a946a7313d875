"""Plans the memory of devices: weights, keys and values, working memory, and so what fits; pure arithmetic, no device is queried.

Over several devices a model is split by layers: each device holds its layers' weights, and their keys and values.
"""

from dataclasses import dataclass, replace

from magistral_ui.models.device_budget import DeviceBudget
from magistral_ui.models.graph_memory import graph_bytes, planned_buckets
from magistral_ui.models.shape import ModelShape, kv_bytes_per_token, value_bytes, weight_bytes, working_bytes

GIB = 2**30
PRECISIONS = ("bfloat16", "int8", "nf4")
"""All but float32, the most exact first. `auto` picks int8 only on processors where nf4 is slower still."""
MAX_FLOAT32_PARAMETERS = 100_000_000
"""A model with fewer parameters always runs in float32."""
GOOD_CONTEXT = 40_960
"""Context for which a more exact precision is given up: what Mistral recommends for the first versions of Magistral."""
MIN_CONTEXT = 4_096
"""Context below which a reasoning model is useless: it would run out of tokens while thinking."""
TYPICAL_CONTEXT = 8_192
"""Tokens of a typical conversation, by which the number of visitors is counted."""
SMALL_IMAGE = 1_024
"""Longest side of images, in pixels, where larger ones cost too much context. Smaller ones free nothing: prompts need it."""
MIN_CONTEXT_GAIN = 1.1
"""Factor by which smaller images must lengthen the context to be worth it."""
PAGE_TOKENS = 256
"""Tokens in a page of keys and values, the unit in which a conversation takes memory: FlashAttention's paged kernels need
multiples of 256."""


@dataclass(frozen=True, slots=True)
class Share:
    """One device's part of a plan; `index` is llama.cpp's number of the device."""

    layers: int
    weights: int
    working: int
    margin: int
    kv_bytes: int
    index: int = 0


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How the memory of one or more devices is divided; all figures but `shares` are totals."""

    precision: str
    weights: int
    working: int
    """For the activations of one forward or one image, whichever needs more, and for recorded decode steps."""
    margin: int
    """For the driver, fragmentation and other programs."""
    kv_per_token: int
    kv_bytes: int
    """For the keys and values of all conversations; 0 or less: the model does not fit."""
    context: int
    """Tokens of the longest conversation that fits."""
    visitors: int
    """Typical conversations that fit in memory together."""
    shares: tuple[Share, ...]
    """One for each device used, in the order of `DeviceBudget.all`."""
    image_side: int = 0
    """Longest side of an image in pixels, for which the working memory is; 0 without vision."""
    kv_type: str = ""
    """How llama.cpp keeps keys and values, `f16` or `q8_0`; empty for other engines."""
    gpu_layers: int | None = None
    """Layers that llama.cpp keeps on the GPU, the head among them; None for other engines."""
    slots: int = 0
    """Replies that llama.cpp writes at the same time; 0 for other engines."""
    in_ram: int = 0
    """Bytes that llama.cpp takes in RAM beside those on GPUs, which are all that the other figures count."""
    ram_layers: int = 0
    """Layers that llama.cpp keeps in RAM and runs on the processor beside those on GPUs."""


def margin_bytes(place: DeviceBudget) -> int:
    """Bytes kept in reserve: a share of the device, and the driver's (on a small computer, a tenth)."""
    if place.type == "cpu":
        return min(GIB, place.total // 10)
    return int(0.03 * place.total) + GIB * 3 // 4


def plan(
    shape: ModelShape,
    precision: str,
    place: DeviceBudget,
    *,
    weights: int | None = None,
    good: int = GOOD_CONTEXT,
) -> MemoryPlan:
    """How `place` would be divided: over the fewest devices that leave room for a `good` context, or else the most room.

    Where none is that long, images are scaled down if that lengthens it. `weights` are the bytes of the weights, if they are
    known better than by counting.
    """
    if weights is None:
        weights = weight_bytes(shape, precision, place.type)
    weights += head_copy_bytes(shape, precision, place.type)
    good = min(good, shape.context_length)
    planned = _fewest_devices(shape, precision, place, weights, good)
    smaller = shape.with_images(SMALL_IMAGE)
    if planned.context >= good or smaller == shape:
        return planned
    other = _fewest_devices(smaller, precision, place, weights, good)
    only_so = fits(smaller, other) and not fits(shape, planned)
    return other if only_so or other.context > planned.context * MIN_CONTEXT_GAIN else planned


def head_copy_bytes(shape: ModelShape, precision: str, type: str) -> int:
    """Bytes of the head's packed copy: on a processor, where it is also the embedding, which stays as it is."""
    return shape.vocabulary * shape.hidden * value_bytes(precision) if type == "cpu" and shape.tied else 0


def _fewest_devices(shape: ModelShape, precision: str, place: DeviceBudget, weights: int, good: int) -> MemoryPlan:
    plans = [_spread(shape, precision, place.all[: n + 1], weights) for n in range(len(place.all))]
    return next((each for each in plans if each.context >= good), max(plans, key=lambda each: each.context))


def plan_loaded(
    shape: ModelShape, precision: str, place: DeviceBudget, layers: tuple[int, ...], weights: int
) -> MemoryPlan:
    """How `place` is divided once the weights are loaded, and so no longer part of its `free` bytes."""
    parts = _parts(shape, precision, weights)
    return _shared(shape, precision, place.all, layers, parts, loaded=True)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Bytes of the weights on the first device, on the last one, and in each layer."""

    first: int
    last: int
    layer: int


def _parts(shape: ModelShape, precision: str, weights: int) -> _Parts:
    size = value_bytes(precision)
    last = size * (shape.hidden + (0 if shape.tied else shape.vocabulary * shape.hidden))
    first = size * (shape.vocabulary * shape.hidden + (shape.vision.parameters(shape.hidden) if shape.vision else 0))
    if shape.tied:  # the head is the embedding, so it stays on the first device
        first, last = first + last, 0
    layer = max(0, weights - first - last) // shape.layers
    return _Parts(first, weights - first - shape.layers * layer, layer)


def _spread(shape: ModelShape, precision: str, places: tuple[DeviceBudget, ...], weights: int) -> MemoryPlan:
    """Divide the layers so that the longest context fits."""
    parts = _parts(shape, precision, weights)
    if len(places) == 1:
        return _shared(shape, precision, places, (shape.layers,), parts)
    rooms = [_room(shape, precision, places, n, parts) for n in range(len(places))]
    per_layer = kv_bytes_per_token(shape, precision) // shape.layers
    scratch = [scratch_bytes(shape, precision, place) for place in places]

    def most_layers(tokens: int) -> list[int]:
        per = [parts.layer + page + tokens * per_layer for page in scratch]
        return [min(shape.layers, max(0, room // each)) for room, each in zip(rooms, per, strict=True)]

    low, high = 0, max(1, sum(places[n].free for n in range(len(places))) // per_layer)
    while low < high:  # the most tokens for which all layers fit
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sum(most_layers(middle)) >= shape.layers else (low, middle - 1)
    layers: list[int] = []
    for most in most_layers(low):
        layers.append(min(most, shape.layers - sum(layers)))
    layers[-1] += shape.layers - sum(layers)  # if it does not fit at all
    return _shared(shape, precision, places, tuple(layers), parts)


def _room(shape: ModelShape, precision: str, places: tuple[DeviceBudget, ...], n: int, parts: _Parts) -> int:
    """Bytes on device `n` for layers and their keys and values."""
    fixed = (parts.first if n == 0 else 0) + (parts.last if n == len(places) - 1 else 0)
    working = _working(shape, precision, places[n], n, len(places))
    return places[n].free - fixed - working - margin_bytes(places[n])


def _working(shape: ModelShape, precision: str, place: DeviceBudget, n: int, count: int) -> int:
    """Working memory of device `n` of `count`; the vision tower is only on the first, the head on the last."""
    graphs = graph_bytes(shape, precision, place, head=n == count - 1)
    return graphs + working_bytes(shape if n == 0 else shape.without_vision(), precision, place.type, place.fused)


def scratch_bytes(shape: ModelShape, precision: str, place: DeviceBudget) -> int:
    """Bytes, in each layer, of the page for rows that only fill up a recorded step."""
    page = PAGE_TOKENS * kv_bytes_per_token(shape, precision) // shape.layers
    return page if planned_buckets(shape, precision, place) else 0


def _shared(
    shape: ModelShape,
    precision: str,
    places: tuple[DeviceBudget, ...],
    layers: tuple[int, ...],
    parts: _Parts,
    *,
    loaded: bool = False,
) -> MemoryPlan:
    """The plan for these `layers`. On a processor, half of what is left is kept for other programs."""
    per_token = kv_bytes_per_token(shape, precision)
    weights, rooms, scratch = [], [], []
    for n, place in enumerate(places):
        fixed = (parts.first if n == 0 else 0) + (parts.last if n == len(places) - 1 else 0)
        weights.append(fixed + layers[n] * parts.layer)
        scratch.append(layers[n] * scratch_bytes(shape, precision, place))
        room = _room(shape, precision, places, n, parts) - layers[n] * parts.layer - scratch[n]
        room += weights[n] if loaded else 0
        rooms.append(max(0, room // 2 if place.type == "cpu" else room))
    kv_bytes = min(room * shape.layers // count for room, count in zip(rooms, layers, strict=True) if count)
    shares = tuple(
        Share(
            count,
            held,
            _working(shape, precision, place, n, len(places)) + scratch[n],
            margin_bytes(place),
            kv_bytes * count // shape.layers,
        )
        for n, (place, count, held) in enumerate(zip(places, layers, weights, strict=True))
    )
    tokens = kv_bytes // per_token
    return MemoryPlan(
        precision=precision,
        weights=sum(weights),
        working=sum(share.working for share in shares),
        margin=sum(share.margin for share in shares),
        kv_per_token=per_token,
        kv_bytes=kv_bytes,
        context=min(shape.context_length, tokens),
        visitors=visitors_of(shape, tokens),
        shares=shares,
        image_side=shape.image_side,
    )


def with_less(shape: ModelShape, planned: MemoryPlan, kv_bytes: int) -> MemoryPlan:
    """The plan with at most `kv_bytes` for keys and values, divided over its devices as before."""
    kv_bytes = min(planned.kv_bytes, kv_bytes)
    tokens = kv_bytes // planned.kv_per_token
    return replace(
        planned,
        kv_bytes=kv_bytes,
        context=min(planned.context, tokens),
        visitors=visitors_of(shape, tokens),
        shares=tuple(
            replace(share, kv_bytes=share.kv_bytes * kv_bytes // max(1, planned.kv_bytes)) for share in planned.shares
        ),
    )


def visitors_of(shape: ModelShape, tokens: int) -> int:
    """How many typical conversations fit into `tokens` of keys and values."""
    return tokens // min(TYPICAL_CONTEXT, shape.context_length)


def pages_of(tokens: int) -> int:
    """Pages that hold `tokens` of one conversation."""
    return -(-tokens // PAGE_TOKENS)


def best_plan(
    shape: ModelShape, place: DeviceBudget, precisions: tuple[str, ...] | None = None, good: int = GOOD_CONTEXT
) -> MemoryPlan:
    """The most exact precision that leaves room for a `good` context, or else the one that leaves the most room.

    Whether that is enough, `fits` says. `precisions` are those that this machine runs well, the most exact first; by default
    bfloat16 and nf4. Not int8: on a processor it is no faster than bfloat16, and on a GPU each of its products waits for the
    host, so that a token takes 3 to 7 times as long as in nf4.
    """
    if shape.parameters < MAX_FLOAT32_PARAMETERS:
        return plan(shape, "float32", place)
    choices = precisions or [p for p in PRECISIONS if p != "int8"]
    good = min(good, shape.context_length)
    plans = [plan(shape, precision, place, good=good) for precision in choices]
    return next((each for each in plans if each.context >= good), max(plans[::-1], key=lambda each: each.context))


def fits(shape: ModelShape, planned: MemoryPlan, wanted: int | None = None) -> bool:
    """Whether there is room for a useful conversation, or for the `wanted` number of tokens if that is smaller."""
    return planned.context >= min(wanted or MIN_CONTEXT, MIN_CONTEXT, shape.context_length)


def needed_bytes(
    shape: ModelShape,
    precision: str,
    type: str = "cuda",
    context: int = MIN_CONTEXT,
    count: int = 1,
    fused: bool = True,
) -> int:
    """Bytes of the smallest, unused device of this `type` that runs the model with `context` tokens.

    With `count` equal devices: the total, if the layers divide evenly.
    """
    shape, place = shape.with_images(SMALL_IMAGE), DeviceBudget(type, 0, 0, fused=fused)
    kv = min(context, shape.context_length) * kv_bytes_per_token(shape, precision)
    working = sum(_working(shape, precision, place, n, count) for n in range(count))
    working += shape.layers * scratch_bytes(shape, precision, place)
    fixed = weight_bytes(shape, precision, type) + head_copy_bytes(shape, precision, type) + working
    if type == "cpu":
        return fixed + GIB + 2 * kv
    return int((fixed + kv + count * GIB * 3 // 4) / 0.97) + 1
