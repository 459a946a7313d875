"""Counts the memory of decode steps that are recorded as CUDA graphs; pure arithmetic, no device is queried.

All recordings of a device share one pool of torch's allocator, whose segments have 2 MiB for tensors of up to 1 MiB, and 20 MiB
or more for larger ones. `tests/benchmarks/graph_memory.py` compares this with what the engine's own step would allocate.
"""

from magistral_ui.models.device_budget import DeviceBudget
from magistral_ui.models.shape import ModelShape, value_bytes

BUCKETS = (1, 2, 4, 8, 16)
"""Row counts for which a decode step is recorded; one in between is padded to the next."""
MIN_GRAPH_CAPABILITY = (8, 0)
"""Earlier cards have no bfloat16 arithmetic and no attention over pages: recording would gain nothing."""
MIB = 2**20
SMALL, SMALL_SEGMENT, LARGE_SEGMENT = MIB, 2 * MIB, 20 * MIB
"""The largest tensor in a small segment, and the sizes of segments."""
WORKSPACE, LARGE_WORKSPACE = 20 * MIB, 32 * MIB
"""cuBLAS' workspace for the stream on which steps are recorded: 8.1 MiB in a segment, and 32 MiB from Hopper on."""
LARGE_WORKSPACE_CAPABILITY = (9, 0)
"""From here on, cuBLAS has the large workspace."""
GAPS = 1.2
"""What gaps between tensors add to small segments."""
SPLIT_BYTES = 5 * MIB // 8
"""What FlashAttention takes for the parts of long sequences. Of more than eight rows it may be more than 1 MiB."""


def planned_buckets(shape: ModelShape, precision: str, place: DeviceBudget) -> tuple[int, ...]:
    """Row counts for which decode steps are recorded as CUDA graphs, on NVIDIA GPUs since Ampere."""
    if place.type != "cuda" or not place.fused or precision not in ("bfloat16", "nf4"):
        return ()  # int8 waits for the host in each product, and float32 has no attention over pages
    return BUCKETS if precision == "bfloat16" or place.fused_buckets is None else place.fused_buckets(shape.linears)


def graph_bytes(shape: ModelShape, precision: str, place: DeviceBudget, *, head: bool = True) -> int:
    """Bytes that recorded decode steps take on `place`: the shared pool, cuBLAS' workspace and the inputs.

    The scratch page, which belongs to the pool of keys and values, is not among them. `head`: whether logits are computed there.
    """
    buckets = planned_buckets(shape, precision, place)
    if not buckets:
        return 0
    rows = max(buckets)
    logits = rows * shape.vocabulary * value_bytes(precision) if head else 0
    small, large = _layer_bytes(shape, precision, rows)
    if logits > SMALL:  # of the largest step, which are kept, and of the next, until they are copied there
        large += logits + logits // 2
    else:
        small = max(small, logits + _layer_bytes(shape, precision, rows // 2)[0])
    if rows > 8:
        large = max(large, SMALL + 1)
    pool = SMALL_SEGMENT * -(-small // SMALL_SEGMENT) + LARGE_SEGMENT * -(-large // LARGE_SEGMENT)
    products = precision != "nf4" or head
    large_workspace = place.capability is None or place.capability >= LARGE_WORKSPACE_CAPABILITY
    workspace = (LARGE_WORKSPACE if large_workspace else WORKSPACE) if products else 0
    return pool + workspace + SMALL_SEGMENT


def _layer_bytes(shape: ModelShape, precision: str, rows: int) -> tuple[int, int]:
    """Bytes that a layer holds at the same time, in small and in large segments.

    The MLP has tensors of its width: nf4 three of them, else one of them for gate and up together.
    """
    inner, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    row = rows * value_bytes(precision)
    kept = row * (4 * shape.hidden + 3 * inner + 4 * keys)
    wide = row * shape.intermediate
    tensors = (wide, wide, wide) if precision == "nf4" else (2 * wide, wide)
    mlp = sum(each for each in tensors if each <= SMALL)
    return int(GAPS * (kept + max(mlp, SPLIT_BYTES))), sum(tensors) - mlp
