"""Counts the memory of decode steps that are recorded as CUDA graphs; pure arithmetic, no device is queried.

All recordings of a device share one pool of torch's allocator, whose segments have 2 MiB for tensors of up to 1 MiB, and 20 MiB
or more for larger ones. `tests/benchmarks/graph_memory.py` compares this with what the engine's own step would allocate.
"""

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
MLP_TENSORS, HIDDEN_TENSORS = 3, 7
"""Tensors of the MLP's width, and of the hidden size, that a layer holds at the same time."""
SPLIT_BYTES = 5 * MIB // 8
"""What FlashAttention takes at most for parts of long sequences, where at most four rows are recorded."""


def graph_bytes(
    shape: ModelShape, precision: str, buckets: tuple[int, ...], large_workspace: bool = True, *, head: bool = True
) -> int:
    """Bytes that recorded decode steps take on one device: shared pool, workspace, inputs.

    `buckets` are the row counts that are recorded; the scratch page, which every pool of keys and values has, is not counted.
    `large_workspace` is for cards from compute capability 9.0 on. `head`: whether the device computes the logits.
    """
    if not buckets:
        return 0
    rows, size = max(buckets), value_bytes(precision)
    logits = rows * shape.vocabulary * size if head else 0
    wide, hidden = rows * shape.intermediate * size, rows * shape.hidden * size
    small = HIDDEN_TENSORS * hidden
    large = 0
    for tensor, count in ((logits, 2), (wide, MLP_TENSORS)):
        if tensor > SMALL:
            large += count * tensor
        else:
            small += tensor * count
    if rows > 4:  # the parts of eight rows may be larger than 1 MiB
        large = max(large, SMALL + 1)
    else:
        small += SPLIT_BYTES
    pool = SMALL_SEGMENT * (1 + -(-small // SMALL_SEGMENT)) + -(-large // LARGE_SEGMENT) * LARGE_SEGMENT
    products = precision != "nf4" or head
    workspace = (LARGE_WORKSPACE if large_workspace else WORKSPACE) if products else 0
    return pool + workspace + SMALL_SEGMENT
