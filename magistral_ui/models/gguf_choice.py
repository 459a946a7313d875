"""Chooses the quantization of a GGUF model by memory plans if none is named; it reads no file and makes no plan itself."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from magistral_ui.models.gguf_names import Quantization
from magistral_ui.models.gguf_plan import QUANTIZATIONS, GGUFWeights
from magistral_ui.models.ladder import LADDER_CONTEXT
from magistral_ui.models.memory import GOOD_CONTEXT, MIN_CONTEXT, MemoryPlan
from magistral_ui.models.shape import ModelShape

EXACT_BITS = 9.5
"""Bits per parameter beyond which more exact weights are only slower: 8 and the blocks' scales, some layers in 16."""
GOOD_BITS = 4.0
"""Bits below which answers are clearly worse. Which model is best is not chosen here: while another one of the family fits in
this many bits, `ladder.COARSE` prefers that one, and says why."""
MIN_BITS = 3.0
"""Bits below which a reasoning model loses its thread."""
FAST_BITS = 5.2
"""Bits of 4-bit quantizations with their more exact layers."""
MAX_CPU_BYTES = 8_000_000_000
"""Weights that a usual processor reads for each token faster than people read along."""
LIKE_UNKNOWN = "Q4_K_M"
"""As what a quantization counts that is like none of those that are planned."""


@dataclass(frozen=True, slots=True)
class PlannedQuantization:
    """A quantization that fits."""

    quantization: Quantization
    plan: MemoryPlan


def counted_as(label: str) -> str:
    """The planned quantization that is most like the one a repository names: Q4_K_M for UD-Q4_K_XL."""
    name = label.upper().removeprefix("UD-").removeprefix("I")
    alike = (each for start in (name, name[:4], name[:2]) for each in QUANTIZATIONS if start and each.startswith(start))
    return name if name in QUANTIZATIONS else next(alike, LIKE_UNKNOWN)


def scaled_weights(shape: ModelShape, weights: GGUFWeights, quantization: Quantization) -> GGUFWeights:
    """Estimated weights of a model in `quantization`: as large as its files, divided as `weights` are; the projector stays."""
    held = sum(weights.layers) + weights.embedding + (0 if shape.tied else weights.head)
    factor = quantization.bytes / held if held else 0.0
    layers = tuple(int(each * factor) for each in weights.layers)
    embedding, head = int(weights.embedding * factor), int(weights.head * factor)
    return replace(weights, quantization=quantization.label, layers=layers, embedding=embedding, head=head)


def choose_quantization(shape: ModelShape, planned: Sequence[PlannedQuantization]) -> PlannedQuantization | None:
    """The most exact one that runs as a whole on the GPU (or on the processor, if there is none) with a good context.

    What is clearly worse is taken for want of room only: first a shorter context is accepted, then fewer bits, and then layers
    beside the GPU, where fewer bits are faster. None if nothing fits.
    """
    limit = _limit(planned)
    on_gpu = any(each.plan.gpu_layers for each in planned)
    whole = [each for each in planned if not on_gpu or (each.plan.gpu_layers or 0) > shape.layers]
    usable = [each for each in whole if _bits(shape, each) <= EXACT_BITS and (on_gpu or _is_fast(shape, each))]
    for bits, context in ((GOOD_BITS, GOOD_CONTEXT), (GOOD_BITS, LADDER_CONTEXT), (MIN_BITS, LADDER_CONTEXT)):
        if found := _most_exact(shape, usable, bits, min(context, limit)):
            return found
    fast = [each for each in planned if _bits(shape, each) <= FAST_BITS]
    for some, bits in ((usable, MIN_BITS), (fast, MIN_BITS), (usable, 0.0), (fast, 0.0)):
        if found := _most_exact(shape, some, bits, min(MIN_CONTEXT, limit)):
            return found
    return min(planned, key=lambda each: each.quantization.bytes, default=None)


def _limit(planned: Sequence[PlannedQuantization]) -> int:
    """The context that was asked for, or the model's own, if that is why several plans have the same; else no limit."""
    contexts = [each.plan.context for each in planned]
    longest = max(contexts, default=0)
    return longest if len(contexts) == 1 or contexts.count(longest) > 1 else GOOD_CONTEXT


def _is_fast(shape: ModelShape, each: PlannedQuantization) -> bool:
    """Whether a processor reads the weights fast enough; of larger models, 4-bit quantizations count as such."""
    return each.quantization.bytes <= MAX_CPU_BYTES or _bits(shape, each) <= FAST_BITS


def _most_exact(
    shape: ModelShape, planned: Sequence[PlannedQuantization], bits: float, context: int
) -> PlannedQuantization | None:
    found = [each for each in planned if _bits(shape, each) >= bits and each.plan.context >= context]
    return max(found, key=lambda each: each.quantization.bytes, default=None)


def _bits(shape: ModelShape, each: PlannedQuantization) -> float:
    return 8 * each.quantization.bytes / max(1, shape.without_vision().parameters)
