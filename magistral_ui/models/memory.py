"""Plans devices' bytes: weights, keys and values, room to work in, and hence what fits; pure arithmetic, it looks at no device.

Over several devices a model is spread layer by layer: each holds its layers' weights, and their keys and values.
"""

from dataclasses import dataclass, replace

from magistral_ui.models.shape import ModelShape
from magistral_ui.models.sizes import (
    kv_bytes_per_token,
    value_bytes,
    weight_bytes,
    working_bytes,
)

GIB = 2**30
PRECISIONS = ("bfloat16", "int8", "nf4")
"""All but float32, the most exact first. `auto` takes int8 only on processors on which nf4 is slower still."""
MAX_FLOAT32_PARAMETERS = 100_000_000
"""Parameters below which float32 costs nothing worth saving."""
GOOD_CONTEXT = 40_960
"""Tokens for which a more exact precision is given up: as long as Magistral's makers recommend its first versions to think."""
MIN_CONTEXT = 4_096
"""Tokens below which a reasoning model is no use: it would run out of room in the middle of its thoughts."""
TYPICAL_CONTEXT = 8_192
"""Tokens of a usual conversation: what the number of visitors is counted in."""
MAX_GROWTH_TOKENS = 2_048
"""Tokens by which a conversation's buffers grow ahead at most, otherwise by a quarter; never beyond the longest context."""


@dataclass(frozen=True, slots=True)
class Place:
    """A device's bytes; `free` is what nobody uses now."""

    type: str
    """`cuda`, `mps` or `cpu`."""
    free: int
    total: int
    others: tuple["Place", ...] = ()
    """More devices of this type, over which a model can be spread; the freest first."""
    fused: bool = True
    """Whether attention is computed without its scores being written down, as on all NVIDIA cards from Ampere on."""

    @property
    def all(self) -> tuple["Place", ...]:
        """This one and the others."""
        return (replace(self, others=()), *self.others)


@dataclass(frozen=True, slots=True)
class Share:
    """What one device of a plan gets."""

    layers: int
    weights: int
    working: int
    margin: int
    kv_bytes: int


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How the bytes of one or more devices are shared out; all figures but `shares` are of all of them together."""

    precision: str
    weights: int
    working: int
    """For the activations of one forward, or of one picture, whichever needs more."""
    margin: int
    """For the driver, for what the allocator cannot use, and for others."""
    kv_per_token: int
    kv_bytes: int
    """For keys and values of all conversations together; 0 or less: it does not fit."""
    context: int
    """Tokens of the longest conversation that fits."""
    visitors: int
    """Conversations of a usual length that stay in memory side by side."""
    shares: tuple[Share, ...]
    """One for each device that is used, in the order of `Place.all`."""


def margin_bytes(place: Place) -> int:
    """Bytes that are never planned with: a share of the device, and what a driver takes (on a small computer, a tenth)."""
    if place.type == "cpu":
        return min(GIB, place.total // 10)
    return int(0.03 * place.total) + GIB * 3 // 4


def plan(shape: ModelShape, precision: str, place: Place, *, weights: int | None = None) -> MemoryPlan:
    """How `place` would be shared out: as few of its devices as leave room for a good context, or else as leave most.

    `weights` says how many bytes they are where that is known better than by counting.
    """
    plans = [_spread(shape, precision, place.all[: n + 1], weights) for n in range(len(place.all))]
    good = min(GOOD_CONTEXT, shape.context_length)
    return next((each for each in plans if each.context >= good), max(plans, key=lambda each: each.context))


def plan_loaded(shape: ModelShape, precision: str, place: Place, layers: tuple[int, ...], weights: int) -> MemoryPlan:
    """How `place` is shared out where the weights are loaded, so that they are not in its devices' `free` any more."""
    parts = _parts(shape, precision, place.type, weights)
    return _shared(shape, precision, place.all, layers, parts, loaded=True)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Bytes of the weights: what lies on the first device, on the last one, and in each layer."""

    first: int
    last: int
    layer: int


def _parts(shape: ModelShape, precision: str, type: str, weights: int | None) -> _Parts:
    if weights is None:
        weights = weight_bytes(shape, precision, double_quant=type != "mps")
    size = value_bytes(precision)
    last = size * (shape.hidden + (0 if shape.tied else shape.vocabulary * shape.hidden))
    first = size * (shape.vocabulary * shape.hidden + (shape.vision.parameters(shape.hidden) if shape.vision else 0))
    if shape.tied:  # the head is the embedding, so it lies with it
        first, last = first + last, 0
    layer = max(0, weights - first - last) // shape.layers
    return _Parts(first, weights - first - shape.layers * layer, layer)


def _spread(shape: ModelShape, precision: str, places: tuple[Place, ...], weights: int | None) -> MemoryPlan:
    """The layers so divided that the longest context fits."""
    parts = _parts(shape, precision, places[0].type, weights)
    if len(places) == 1:
        return _shared(shape, precision, places, (shape.layers,), parts)
    rooms = [_room(shape, precision, places, n, parts) for n in range(len(places))]
    per_layer = kv_bytes_per_token(shape, precision) // shape.layers

    def most_layers(tokens: int) -> list[int]:
        return [min(shape.layers, max(0, room // (parts.layer + tokens * per_layer))) for room in rooms]

    low, high = 0, max(1, sum(places[n].free for n in range(len(places))) // per_layer)
    while low < high:  # the most tokens for which all layers find a place
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sum(most_layers(middle)) >= shape.layers else (low, middle - 1)
    layers: list[int] = []
    for most in most_layers(low):
        layers.append(min(most, shape.layers - sum(layers)))
    layers[-1] += shape.layers - sum(layers)  # where it does not fit at all
    return _shared(shape, precision, places, tuple(layers), parts)


def _room(shape: ModelShape, precision: str, places: tuple[Place, ...], n: int, parts: _Parts) -> int:
    """Bytes of device `n` for layers with their keys and values."""
    fixed = (parts.first if n == 0 else 0) + (parts.last if n == len(places) - 1 else 0)
    return places[n].free - fixed - _working(shape, precision, places[n], n) - margin_bytes(places[n])


def _working(shape: ModelShape, precision: str, place: Place, n: int) -> int:
    """Of the device `n`: the vision tower lies on the first one alone."""
    return working_bytes(shape if n == 0 else shape.without_vision(), precision, place.type, place.fused)


def _shared(
    shape: ModelShape,
    precision: str,
    places: tuple[Place, ...],
    layers: tuple[int, ...],
    parts: _Parts,
    *,
    loaded: bool = False,
) -> MemoryPlan:
    """The plan for layers divided so. On a processor, half of what is left stays with the other programs."""
    per_token = kv_bytes_per_token(shape, precision)
    weights, rooms = [], []
    for n, place in enumerate(places):
        fixed = (parts.first if n == 0 else 0) + (parts.last if n == len(places) - 1 else 0)
        weights.append(fixed + layers[n] * parts.layer)
        room = _room(shape, precision, places, n, parts) - layers[n] * parts.layer + (weights[n] if loaded else 0)
        rooms.append(max(0, room // 2 if place.type == "cpu" else room))
    kv_bytes = min(room * shape.layers // count for room, count in zip(rooms, layers, strict=True) if count)
    shares = tuple(
        Share(
            count,
            held,
            _working(shape, precision, place, n),
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
        visitors=_visitors(shape, tokens),
        shares=shares,
    )


def with_less(shape: ModelShape, planned: MemoryPlan, kv_bytes: int) -> MemoryPlan:
    """The plan of one device where `kv_bytes` at most are given to keys and values."""
    kv_bytes = min(planned.kv_bytes, kv_bytes)
    tokens = kv_bytes // planned.kv_per_token
    return replace(
        planned,
        kv_bytes=kv_bytes,
        context=min(planned.context, tokens),
        visitors=_visitors(shape, tokens),
        shares=tuple(replace(share, kv_bytes=kv_bytes) for share in planned.shares),
    )


def _visitors(shape: ModelShape, tokens: int) -> int:
    return tokens // min(held_tokens(TYPICAL_CONTEXT), shape.context_length)


def held_tokens(tokens: int) -> int:
    """Tokens for which a conversation of so many has room at worst, since its buffers grow ahead."""
    return tokens + min(tokens // 4, MAX_GROWTH_TOKENS)


def best_plan(
    shape: ModelShape, place: Place, precisions: tuple[str, ...] | None = None, good: int = GOOD_CONTEXT
) -> MemoryPlan:
    """The most exact precision that leaves room for a `good` context, or else the one that leaves most room.

    Whether that is enough, `fits` tells. `precisions` are those that this machine is good at, the most exact first; where that
    is not known, bfloat16 and nf4. Not int8: on a processor it is no faster than bfloat16, and on a graphics card each of its
    products waits for the host, so that a token takes 3 to 7 times as long as in nf4.
    """
    if shape.parameters < MAX_FLOAT32_PARAMETERS:
        return plan(shape, "float32", place)
    choices = precisions or [p for p in PRECISIONS if p != "int8"]
    plans = [plan(shape, precision, place) for precision in choices]
    good = min(good, shape.context_length)
    return next((each for each in plans if each.context >= good), max(plans[::-1], key=lambda each: each.context))


def fits(shape: ModelShape, planned: MemoryPlan, wanted: int | None = None) -> bool:
    """Whether there is room for a conversation worth having, or for as many tokens as are `wanted`."""
    return planned.context >= min(wanted or MIN_CONTEXT, MIN_CONTEXT, shape.context_length)


def needed_bytes(
    shape: ModelShape,
    precision: str,
    type: str = "cuda",
    context: int = MIN_CONTEXT,
    count: int = 1,
    fused: bool = True,
) -> int:
    """Bytes of the smallest device of this `type` that runs the model with a `context` of so many tokens, all of it free.

    With `count` equal devices: of all of them together, where the layers divide evenly.
    """
    place = Place(type, 0, 0, fused=fused)
    kv = min(context, shape.context_length) * kv_bytes_per_token(shape, precision)
    working = sum(_working(shape, precision, place, n) for n in range(count))
    fixed = weight_bytes(shape, precision, type != "mps") + working
    if type == "cpu":
        return fixed + GIB + 2 * kv
    return int((fixed + kv + count * GIB * 3 // 4) / 0.97) + 1
