"""Plans the memory of a GGUF model for llama.cpp: layers on GPUs, keys and values, buffers; pure arithmetic, no device is queried."""

from collections.abc import Mapping
from dataclasses import dataclass

from magistral_ui.models.memory import DeviceBudget, MemoryPlan
from magistral_ui.models.shape import ModelShape


@dataclass(frozen=True, slots=True)
class GGUFWeights:
    """Bytes of a model's parts in its GGUF file, and so in memory."""

    quantization: str
    layers: tuple[int, ...]
    """One for each decoder layer, in their order."""
    embedding: int
    """Always in RAM. Of a tied head too: llama.cpp then has `head` bytes more on the GPU."""
    head: int
    """The output matrix and its norm; where the head is tied, a copy of the embedding, only made on a GPU."""
    mmproj: int = 0
    """Bytes of the projector's file; 0 without one."""


QUANTIZATIONS: Mapping[str, float] = {
    "F32": 4.0,
    "BF16": 2.0,
    "F16": 2.0,
    "Q8_0": 1.0625,
    "Q6_K": 0.8203,
    "Q5_K_M": 0.7113,
    "Q5_K_S": 0.6875,
    "Q4_K_M": 0.6065,
    "Q4_K_S": 0.5747,
    "Q4_0": 0.5625,
    "Q3_K_M": 0.4885,
    "Q2_K": 0.3776,
}
"""Bytes per parameter of the decoder's layers, by llama.cpp's name of the file type, the most exact first."""


def estimated_weights(shape: ModelShape, quantization: str, mmproj: bool = True) -> GGUFWeights:
    """The weights of a file that has not been seen; KeyError if the quantization is not known. `mmproj`: with its projector."""
    size = QUANTIZATIONS[quantization]
    layer = int(size * shape.linear_parameters / shape.layers)
    table = int(size * shape.vocabulary * shape.hidden)
    tower = 2 * shape.vision.parameters(shape.hidden) if shape.vision and mmproj else 0
    return GGUFWeights(quantization, (layer,) * shape.layers, table, table, tower)


def plan_gguf(
    shape: ModelShape,
    weights: GGUFWeights,
    place: DeviceBudget,
    *,
    kv_type: str = "auto",
    context: int | None = None,
) -> MemoryPlan:
    """How `place` would be divided for llama.cpp.

    `place.type` is `cpu`, or that of a GPU: `cuda`, `mps`, `gpu`; `place.host` is what is free in RAM for what is not on GPUs.
    `kv_type` is `f16`, `q8_0` or `auto`; `context` is the longest conversation asked for, None: as long as is of use.
    """
    raise NotImplementedError
