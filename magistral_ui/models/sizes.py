"""How many bytes the parts of a model take, loaded and at work; pure arithmetic, it knows nothing of devices and what fits.

What is allocated per linear layer follows bitsandbytes 0.50 (functional.py, quantize_4bit and int8_vectorwise_quant).
"""

from magistral_ui.models.shape import ModelShape

MAX_SEQUENCES = 8
"""Sequences in one forward, as the scheduler has it."""
PREFILL_CHUNK = {"cuda": 2_048, "mps": 2_048, "cpu": 512}
"""Prompt tokens in one forward at most, as the scheduler has it."""
BLOCK, NESTED_BLOCK = 64, 256
"""Weights that share a scale in nf4, and scales that share one in double quantization."""


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
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * value_bytes(precision)


def prefill_bytes(shape: ModelShape, precision: str, chunk: int) -> int:
    """Bytes that one forward of `chunk` tokens holds at once: the wide middle of a layer, the mask, and the logits.

    The factors are rounded up from measurements on one layer of Magistral's width: 253 to 295 kB a token in bfloat16.
    """
    activations = chunk * value_bytes(precision) * (8 * shape.hidden + 3 * shape.intermediate)
    logits = MAX_SEQUENCES * shape.vocabulary * 4 * 6
    unpacked = 2 * shape.hidden * shape.intermediate if precision in ("nf4", "int8") else 0
    return activations + logits + unpacked


def picture_bytes(shape: ModelShape, precision: str, fused: bool = True) -> int:
    """Bytes that the largest picture takes while the vision tower looks at it: two masks of patches × patches, and a layer.

    Where bfloat16 has no fused attention, the tower's is computed in float32, which has: one more mask, and queries, keys and
    values once more.
    """
    vision = shape.vision
    if vision is None:
        return 0
    layer = vision.patches * (6 * vision.hidden + 3 * vision.intermediate)
    again = 0 if fused else 4 * (vision.patches**2 + 4 * vision.patches * vision.hidden)
    return value_bytes(precision) * (2 * vision.patches**2 + layer) + again


def working_bytes(shape: ModelShape, precision: str, type: str, fused: bool = True) -> int:
    """Bytes that must stay free for one forward or one picture, which never happen at once.

    `fused` tells whether a CUDA card has fused attention; Apple's GPU never has.
    """
    scores = attention_bytes(fused and type != "mps", shape.heads, shape.context_length)
    return max(prefill_bytes(shape, precision, PREFILL_CHUNK[type]) + scores, picture_bytes(shape, precision, fused))


def value_bytes(precision: str) -> int:
    """Bytes of one number that is not quantized."""
    return 4 if precision == "float32" else 2


SCORE_BYTES = 2**28
"""For the scores of one block of queries, on devices without fused attention: Apple's GPUs, and cards before compute 8.0."""
BYTES_PER_SCORE = 12
"""A score in 16 bits, in float32, as a weight in float32, and that in 16 bits again."""


def queries_at_once(heads: int, keys: int) -> int:
    """Queries whose scores over so many keys fit into SCORE_BYTES; one at least."""
    return max(1, SCORE_BYTES // (BYTES_PER_SCORE * heads * keys))


def attention_bytes(fused: bool, heads: int, longest: int) -> int:
    """What a plan has to count for attention over sequences of at most `longest` tokens, beside the activations."""
    return 0 if fused else max(SCORE_BYTES, BYTES_PER_SCORE * heads * longest)
