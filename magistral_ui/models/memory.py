"""Plans a device's bytes: weights, keys and values, room to work in, and hence what fits; pure arithmetic, it looks at no device.

What is allocated per linear layer follows bitsandbytes 0.50 (functional.py, quantize_4bit and int8_vectorwise_quant).
"""

from dataclasses import dataclass

from magistral_ui.models.shape import ModelShape

GIB = 2**30
PRECISIONS = ("bfloat16", "int8", "nf4")
"""What `auto` chooses from, the most exact first."""
SMALL = 100_000_000
"""Parameters below which float32 costs nothing worth saving."""
GOOD_CONTEXT = 40_960
"""Tokens for which a more exact precision is given up: as long as Magistral's makers recommend its first versions to think."""
LEAST_CONTEXT = 4_096
"""Tokens below which a reasoning model is no use: it would run out of room in the middle of its thoughts."""
TYPICAL_CONTEXT = 8_192
"""Tokens of a usual conversation: what the number of visitors is counted in."""
RUNNING = 8
"""Sequences in one forward, as the scheduler has it."""
CHUNKS = {"cuda": 2_048, "mps": 2_048, "cpu": 512}
"""Prompt tokens in one forward at most, as the scheduler has it."""
SPARE = 1.25
"""A conversation's buffers grow by a quarter, so at worst so much more is allocated than its tokens need."""
BLOCK, NESTED_BLOCK = 64, 256
"""Weights that share a scale in nf4, and scales that share one in double quantization."""


@dataclass(frozen=True, slots=True)
class Place:
    """A device's bytes; `free` is what nobody uses now."""

    type: str
    """`cuda`, `mps` or `cpu`."""
    free: int
    total: int


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How the bytes of a place are shared out."""

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


def weight_bytes(shape: ModelShape, precision: str, double_quant: bool = True) -> int:
    """Bytes of all weights once they are loaded, scales and tables of the quantization included."""
    if precision == "float32":
        return 4 * shape.parameters
    if precision == "bfloat16":
        return 2 * shape.parameters
    one = _int8_bytes if precision == "int8" else _nf4_nested_bytes if double_quant else _nf4_bytes
    return 2 * shape.other_parameters + shape.layers * sum(one(rows, columns) for rows, columns in shape.linears)


def _int8_bytes(rows: int, columns: int) -> int:
    return rows * columns + 4 * rows


def _nf4_bytes(rows: int, columns: int) -> int:
    blocks = -(-rows * columns // BLOCK)
    return -(-rows * columns // 2) + 4 * blocks + 4 * 16


def _nf4_nested_bytes(rows: int, columns: int) -> int:
    blocks = -(-rows * columns // BLOCK)
    nested = blocks + 4 * -(-blocks // NESTED_BLOCK) + 4 * 256 + 4
    return -(-rows * columns // 2) + nested + 4 * 16


def kv_bytes_per_token(shape: ModelShape, precision: str) -> int:
    """Bytes of keys and values of one token in all layers."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * _size(precision)


def prefill_bytes(shape: ModelShape, precision: str, chunk: int) -> int:
    """Bytes that one forward of `chunk` tokens holds at once: the wide middle of a layer, the mask, and the logits.

    The factors are rounded up from measurements on one layer of Magistral's width: 253 to 295 kB a token in bfloat16.
    """
    activations = chunk * _size(precision) * (8 * shape.hidden + 3 * shape.intermediate)
    logits = RUNNING * shape.vocabulary * 4 * 6
    unpacked = 2 * shape.hidden * shape.intermediate if precision in ("nf4", "int8") else 0
    return activations + logits + unpacked


def picture_bytes(shape: ModelShape, precision: str) -> int:
    """Bytes that the largest picture takes while the vision tower looks at it: two masks of patches × patches, and a layer."""
    vision = shape.vision
    if vision is None:
        return 0
    layer = vision.patches * (6 * vision.hidden + 3 * vision.intermediate)
    return _size(precision) * (2 * vision.patches**2 + layer)


def working_bytes(shape: ModelShape, precision: str, type: str) -> int:
    """Bytes that must stay free for one forward or one picture, which never happen at once."""
    return max(prefill_bytes(shape, precision, CHUNKS[type]), picture_bytes(shape, precision))


def margin_bytes(place: Place) -> int:
    """Bytes that are never planned with: a share of the device, and what a driver takes (on a small computer, a tenth)."""
    if place.type == "cpu":
        return min(GIB, place.total // 10)
    return int(0.03 * place.total) + GIB * 3 // 4


def plan(
    shape: ModelShape, precision: str, place: Place, *, weights: int | None = None, loaded: bool = False
) -> MemoryPlan:
    """How `place` would be shared out; where the weights are `loaded`, they are not in `place.free` any more.

    `weights` says how many bytes they are where that is known better than by counting. On a processor, half of what is left
    stays with the other programs.
    """
    if weights is None:
        weights = weight_bytes(shape, precision, double_quant=place.type != "mps")
    working, margin = working_bytes(shape, precision, place.type), margin_bytes(place)
    room = place.free - (0 if loaded else weights) - working - margin
    if place.type == "cpu":
        room //= 2
    per_token = kv_bytes_per_token(shape, precision)
    room = max(0, room)
    tokens = int(room / (SPARE * per_token))
    visitors = tokens // min(TYPICAL_CONTEXT, shape.context_length)
    context = min(shape.context_length, tokens)
    return MemoryPlan(precision, weights, working, margin, per_token, room, context, visitors)


def best_plan(shape: ModelShape, place: Place, precisions: tuple[str, ...] = PRECISIONS) -> MemoryPlan:
    """The most exact precision that leaves room for a good context, or else the one that leaves most room.

    Whether that is enough, `fits` tells. On a processor int8 is left out: it is no faster than bfloat16 there, and nf4 is.
    """
    if shape.parameters < SMALL:
        return plan(shape, "float32", place)
    choices = [p for p in precisions if place.type == "cuda" or p != "int8"]
    plans = [plan(shape, precision, place) for precision in choices]
    good = min(GOOD_CONTEXT, shape.context_length)
    return next((each for each in plans if each.context >= good), max(plans[::-1], key=lambda each: each.context))


def fits(shape: ModelShape, planned: MemoryPlan, wanted: int | None = None) -> bool:
    """Whether there is room for a conversation worth having, or for as many tokens as are `wanted`."""
    return planned.context >= min(wanted or LEAST_CONTEXT, LEAST_CONTEXT, shape.context_length)


def needed_bytes(shape: ModelShape, precision: str, type: str = "cuda", context: int = LEAST_CONTEXT) -> int:
    """Size of the smallest device of this `type`, all of it free, that runs the model with a `context` of so many tokens."""
    kv = int(SPARE * min(context, shape.context_length) * kv_bytes_per_token(shape, precision))
    fixed = weight_bytes(shape, precision, type != "mps") + working_bytes(shape, precision, type)
    if type == "cpu":
        return fixed + GIB + 2 * kv
    return int((fixed + kv + GIB * 3 // 4) / 0.97) + 1


def _size(precision: str) -> int:
    return 4 if precision == "float32" else 2
