"""Computes the bytes of a model's parts, loaded and in use; pure arithmetic that knows no devices and not what fits.

What each linear layer allocates follows bitsandbytes 0.50 (functional.py, quantize_4bit and int8_vectorwise_quant).
"""

from magistral_ui.models.shape import ModelShape

MAX_SEQUENCES = 8
"""Sequences in one forward, as in the scheduler."""
PREFILL_CHUNK = {"cuda": 2_048, "mps": 2_048, "cpu": 512}
"""Most prompt tokens in one forward, as in the scheduler."""
BLOCK, NESTED_BLOCK = 64, 256
"""Weights that share a scale in nf4, and scales that share one in double quantization."""


def weight_bytes(shape: ModelShape, precision: str, double_quant: bool = True) -> int:
    """Bytes of all loaded weights, including quantization scales and tables."""
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
    """Bytes of one token's keys and values in all layers."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * value_bytes(precision)


def prefill_bytes(shape: ModelShape, precision: str, chunk: int) -> int:
    """Peak bytes of one forward of `chunk` tokens: a layer's MLP, the mask, and the logits.

    The factors are rounded up from measurements on one layer of Magistral's width: 253 to 295 kB a token in bfloat16.
    """
    activations = chunk * value_bytes(precision) * (8 * shape.hidden + 3 * shape.intermediate)
    logits = MAX_SEQUENCES * shape.vocabulary * 4 * 6
    unpacked = 2 * shape.hidden * shape.intermediate if precision in ("nf4", "int8") else 0
    return activations + logits + unpacked


def image_bytes(shape: ModelShape, precision: str, fused: bool = True) -> int:
    """Peak bytes of the vision tower for the largest image: two masks of patches × patches, and a layer.

    Where bfloat16 has no fused attention, the tower attends in float32, which has: one more mask, and another copy of queries,
    keys and values.
    """
    vision = shape.vision
    if vision is None:
        return 0
    layer = vision.patches * (6 * vision.hidden + 3 * vision.intermediate)
    again = 0 if fused else 4 * (vision.patches**2 + 4 * vision.patches * vision.hidden)
    return value_bytes(precision) * (2 * vision.patches**2 + layer) + again


def working_bytes(shape: ModelShape, precision: str, type: str, fused: bool = True) -> int:
    """Bytes that must stay free for one forward or one image, which never happen at the same time.

    `fused` says whether a CUDA GPU has fused attention; MPS never has.
    """
    scores = attention_bytes(fused and type != "mps", shape.heads, shape.context_length)
    return max(prefill_bytes(shape, precision, PREFILL_CHUNK[type]) + scores, image_bytes(shape, precision, fused))


def value_bytes(precision: str) -> int:
    """Bytes of one unquantized number."""
    return 4 if precision == "float32" else 2


SCORE_BYTES = 2**28
"""Bytes for the scores of one block of queries on devices without fused attention: MPS, and CUDA before capability 8.0."""
BYTES_PER_SCORE = 12
"""A score in 16 bits and in float32, its softmax in float32 and in 16 bits."""


def queries_at_once(heads: int, keys: int) -> int:
    """Queries whose scores over `keys` fit into SCORE_BYTES, at least one."""
    return max(1, SCORE_BYTES // (BYTES_PER_SCORE * heads * keys))


def attention_bytes(fused: bool, heads: int, longest: int) -> int:
    """Bytes that a plan reserves for attention over sequences of at most `longest` tokens, beside the activations."""
    return 0 if fused else max(SCORE_BYTES, BYTES_PER_SCORE * heads * longest)
