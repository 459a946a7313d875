"""Computes what llama.cpp holds beside a model's weights: keys and values, and the buffers of its graphs; pure arithmetic.

All of it was measured with xllamacpp 2026.10 on a processor, and agrees to the megabyte; what is particular to GPUs was read in
llama.cpp's source and not run.
"""

from collections.abc import Mapping

from magistral_ui.models.shape import MAX_SEQUENCES, ModelShape

KV_TYPES: Mapping[str, float] = {"f16": 2.0, "q8_0": 34 / 32}
"""Bytes per number of keys and values, the most exact type first. q8_0 has a 16-bit scale for 32 numbers."""
CPU_BATCH, GPU_BATCH = 256, 512
"""Tokens of prompts read at once. On a processor, with 2,048 others wait 12 s while a prompt is read, with 256 1.4 s."""
POOL_STEP = 256
"""llama.cpp rounds the pool of keys and values up to this many tokens."""
MASK_BYTES = 2
"""Bytes of the attention mask for a token of the batch and one of the pool."""
PROCESS_BYTES = 3 * 2**25
"""What the child process holds beside all this: 80 MiB with Mistral's vocabulary, a little more with many threads."""


def batch_of(type: str) -> int:
    """Tokens of prompts read at once on a device of this `type`."""
    return CPU_BATCH if type == "cpu" else GPU_BATCH


def kv_bytes_per_layer(shape: ModelShape, kv_type: str) -> int:
    """Bytes of one token's keys and values in one layer."""
    return int(2 * shape.kv_heads * shape.head_dim * KV_TYPES[kv_type])


def batch_bytes(shape: ModelShape, type: str) -> int:
    """Bytes of the graph that reads prompts, without what grows with the pool: per token, the MLP and five hidden states."""
    return 4 * batch_of(type) * (3 * shape.intermediate + 5 * shape.hidden)


def pool_token_bytes(shape: ModelShape, type: str, kv_type: str) -> int:
    """Bytes of the graph for each token of the pool: the mask, and on a GPU one layer's keys and values unpacked to 16 bits."""
    unpacked = kv_bytes_per_layer(shape, "f16") if type != "cpu" and kv_type != "f16" else 0
    return MASK_BYTES * batch_of(type) + unpacked


def image_buffer_bytes(shape: ModelShape) -> int:
    """Bytes of the graph for the largest image, which stay held: per patch, the tower's MLP and four hidden states."""
    vision = shape.vision
    return 4 * vision.patches * (3 * vision.intermediate + 4 * vision.hidden) if vision else 0


def process_bytes(shape: ModelShape) -> int:
    """Bytes in RAM whatever runs on GPUs: the child process, and the logits of all slots."""
    return PROCESS_BYTES + MAX_SEQUENCES * shape.vocabulary * 4
