"""How many bytes attention holds at once where no fused kernel spares it its scores; pure arithmetic, it knows no devices."""

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
