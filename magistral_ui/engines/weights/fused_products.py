"""Tells for which row counts bitsandbytes multiplies 4-bit weights without unpacking them; the library's own rule is asked."""

import importlib
from collections.abc import Callable, Iterable
from typing import Any

import torch

from magistral_ui.models.graph_memory import BUCKETS

Sizes = Iterable[tuple[int, int]]
"""(out, in) of linear layers."""
Rule = Callable[..., Any]
FUSED_ROWS = {(8, 0): 4, (8, 6): 8, (8, 9): 8, (9, 0): 4, (12, 0): 8, (12, 1): 8}
"""Compute capability → rows up to which nf4 products of Magistral's sizes are fused there, whatever the number of
multiprocessors: bitsandbytes 0.50's rule, for when it cannot be asked."""
ALWAYS_FUSED = 4
"""Rows that are fused on every card and for every size."""
SMALL_WEIGHT = 4 * 2**20
"""Elements of a weight below which bitsandbytes unpacks sooner, depending on the card."""
BLOCK = 64
"""Weights that share a scale; a row of another multiple is never multiplied by the fused kernels."""


def fused_buckets(
    sizes: Sizes, capability: tuple[int, int], index: int = 0, rule: Rule | None = None
) -> tuple[int, ...]:
    """Those of BUCKETS for which products with nf4 weights of all these `sizes` are fused on card `index`.

    Otherwise bitsandbytes unpacks the whole weight first: a recorded step would keep that memory, layer after layer. `rule` is
    by default the library's.
    """
    sizes = set(sizes)
    if any(into % BLOCK for _, into in sizes):
        return ()
    rule = rule or library_rule()
    if rule is not None:
        try:
            return tuple(n for n in BUCKETS if all(rule(index, torch.bfloat16, n, out, into) for out, into in sizes))
        except TypeError:  # another version asks it for other things
            pass
    small = any(out * into < SMALL_WEIGHT for out, into in sizes)
    most = ALWAYS_FUSED if small else FUSED_ROWS.get(capability, ALWAYS_FUSED)
    return tuple(n for n in BUCKETS if n <= most)


def library_rule() -> Rule | None:
    """bitsandbytes' rule: card, dtype, rows, out, in → whether it is fused; None without a card, or in another version."""
    if not torch.cuda.is_available() or torch.version.hip is not None:
        return None
    try:
        library = importlib.import_module("bitsandbytes.backends.cuda.ops")
    except (ImportError, OSError, RuntimeError):
        return None
    rule: Rule | None = getattr(library, "_gemm_4bit_use_custom_cuda", None)
    return rule
