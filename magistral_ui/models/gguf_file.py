"""Recognises a GGUF file by its header: a model of the family with its card, shape and weights, or a projector."""

from dataclasses import dataclass, replace
from pathlib import Path

from magistral_ui.models.cards import ModelCard
from magistral_ui.models.gguf_header import GGUFHeader
from magistral_ui.models.gguf_plan import GGUFWeights
from magistral_ui.models.shape import ModelShape, VisionShape


@dataclass(frozen=True, slots=True)
class MmprojFacts:
    """What a projector's file holds: the vision tower and its projector."""

    vision: VisionShape
    bytes: int
    """Of its tensors."""
    width: int
    """Of the decoder that it fits: the decoder's `hidden`."""


@dataclass(frozen=True, slots=True)
class GGUFFacts:
    """What the header of a model's file, or of the first file of several, says."""

    architecture: str
    """`llama` or `mistral3`."""
    quantization: str
    """llama.cpp's name for the file's type, as `Q4_K_M`."""
    shape: ModelShape
    """Without a vision tower, which is in a file of its own."""
    weights: GGUFWeights
    card: ModelCard
    """Facts from the file; sampling and system prompt from the nearest card."""
    name: str
    split_count: int = 1
    """Files over which the model is split."""

    def with_mmproj(self, mmproj: MmprojFacts) -> "GGUFFacts":
        """The same model, seeing images."""
        shape = replace(self.shape, vision=mmproj.vision)
        card = replace(self.card, shape=shape, vision=True)
        return replace(self, shape=shape, card=card, weights=replace(self.weights, mmproj=mmproj.bytes))


def facts_of(header: GGUFHeader, name: str) -> GGUFFacts:
    """The facts in a header, which may be that of the first of several files. `name` is how errors name the model.

    Raises NotAMistralModel or ModelFilesBroken.
    """
    raise NotImplementedError


def inspect_gguf(path: Path) -> tuple[GGUFFacts, tuple[Path, ...]]:
    """The facts of the model of which `path` is the file, or one of several, and all of its files, in order.

    All of them are there and as long as their headers say. Raises ModelNotFound, NotAMistralModel or ModelFilesBroken.
    """
    raise NotImplementedError


def read_mmproj(path: Path) -> MmprojFacts:
    """What a projector's file holds. Raises ModelNotFound, NotAMistralModel or ModelFilesBroken."""
    raise NotImplementedError


def is_mmproj(path: Path) -> bool:
    """Whether the file is a projector, by its contents; False if it cannot be read."""
    raise NotImplementedError
