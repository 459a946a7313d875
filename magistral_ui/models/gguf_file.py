"""Recognises a GGUF file by its header: a model of the family with its card, shape and weights, or a projector.

It reads no weights. Names decide only between versions of Magistral that look the same; what a file is called does not matter.
"""

import os
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from magistral_ui.errors import ModelFilesBroken, ModelNotFound, NotAMistralModel, unreadable
from magistral_ui.models.cards import FAMILY, MAGISTRAL_1_0, MAGISTRAL_1_1, ModelCard, nearest_card, without_claims
from magistral_ui.models.gguf_header import (
    TOKENS,
    GGUFCutOff,
    GGUFDamaged,
    GGUFHeader,
    GGUFVersionUnknown,
    is_gguf,
    read_header,
)
from magistral_ui.models.gguf_parts import joined, parts_of
from magistral_ui.models.gguf_plan import GGUFWeights
from magistral_ui.models.gguf_shape import quantization_of, shape_in, weights_in
from magistral_ui.models.gguf_vocabulary import split_vocabulary
from magistral_ui.models.shape import ModelShape, VisionShape, checked_size

ARCHITECTURES = ("llama", "mistral3")
"""llama.cpp's names: Magistral is a `llama`, Ministral 3 a `mistral3`."""
PIXTRAL = "pixtral"
TEKKEN = "tekken"
ENDS = {"tokenizer.ggml.bos_token_id": "<s>", "tokenizer.ggml.eos_token_id": "</s>"}
"""The marks at which llama.cpp must begin a conversation and end a reply, where the file names any."""
TOWER_PARTS = ("v.patch_embd", "v.pre_ln", "mm.1", "mm.2")
TOWER_LAYER_PARTS = ("ln1", "attn_q", "attn_k", "attn_v", "attn_out", "ln2", "ffn_gate", "ffn_up", "ffn_down")
COLOURS = 3
MAX_IMAGE_SIDE = 2**14
"""Pixels; ten times what Pixtral takes."""
MAX_NAME_LENGTH = 100
MAX_PATH_LENGTH = 1_000
"""Characters of a path that an error repeats."""


@dataclass(frozen=True, slots=True)
class MmprojFacts:
    """What a projector's file holds: the vision tower and its projector."""

    vision: VisionShape
    bytes: int
    """Of the file."""
    width: int
    """Of the decoder that it fits: the decoder's `hidden`."""
    name: str
    """Of the model for which it was made, as the file says; may be empty."""


@dataclass(frozen=True, slots=True)
class GGUFFacts:
    """What the header of a model's file, or of the first file of several, says."""

    architecture: str
    """`llama` or `mistral3`."""
    quantization: str
    """llama.cpp's name for the file's type, as `Q4_K_M`."""
    shape: ModelShape
    """Without a vision tower, which is in a file of its own, until `with_mmproj` adds it."""
    weights: GGUFWeights
    card: ModelCard
    """Facts from the file; sampling and system prompt from the nearest card."""
    name: str
    split_count: int = 1
    """Files over which the model is split."""
    takes_mmproj: bool = False
    """Whether the model was trained to see images, for which it needs a projector."""

    def with_mmproj(self, mmproj: MmprojFacts) -> "GGUFFacts":
        """The same model, seeing images."""
        shape = replace(self.shape, vision=mmproj.vision)
        card = replace(self.card, shape=shape, vision=True)
        return replace(self, shape=shape, card=card, weights=replace(self.weights, mmproj=mmproj.bytes))


def facts_of(header: GGUFHeader, name: str) -> GGUFFacts:
    """The facts in a header, which may be that of the first of several files. `name` is how errors name the model.

    What is in other files is estimated from the tensors in this one. Raises NotAMistralModel or ModelFilesBroken.
    """
    metadata = header.metadata
    architecture = _check_kind(header, name)
    marks = _marks(metadata, name)
    try:
        split_count = checked_size(metadata.get("split.count") or 1)
        shape = shape_in(header, architecture, complete=split_count == 1)
        weights = weights_in(header, shape, quantization_of(header), complete=split_count == 1)
        window = checked_size(metadata.get(f"{architecture}.attention.sliding_window") or shape.context_length)
        shape = replace(shape, context_length=min(shape.context_length, window))
    except (LookupError, TypeError, ValueError) as error:
        raise ModelFilesBroken("gguf_damaged", model=name, file=name) from error
    shown = printable(metadata.get("general.name")) or printable(name)
    nearest = _nearest(metadata, shape, architecture, marks, name)
    card = replace(
        without_claims(nearest),
        key=name,
        name=shown,
        shape=shape,
        vision=False,
        context_length=shape.context_length,
        recommended_length=min(shape.context_length, nearest.recommended_length),
        takes_effort="[MODEL_SETTINGS]" in marks,
    )
    return GGUFFacts(architecture, weights.quantization, shape, weights, card, shown, split_count, nearest.vision)


def _check_kind(header: GGUFHeader, name: str) -> str:
    """The architecture, if the file holds a decoder with weights that runs here."""
    metadata = header.metadata
    kind, architecture = metadata.get("general.type"), metadata.get("general.architecture")
    if kind == "imatrix":
        raise NotAMistralModel("gguf_imatrix", model=name)
    if kind == "adapter" or architecture == "controlvector":
        raise NotAMistralModel("gguf_adapter", model=name)
    if is_projector(header):
        raise NotAMistralModel("gguf_projector", model=name)
    if not isinstance(architecture, str):
        raise ModelFilesBroken("gguf_damaged", model=name, file=name)
    if architecture not in ARCHITECTURES:
        raise NotAMistralModel(model=name, found=printable(architecture))
    if metadata.get(f"{architecture}.expert_count"):
        raise NotAMistralModel(model=name, found=f"{architecture}-moe")
    if not header.tensors and metadata.get("split.count", 1) in (0, 1):  # the first of several files may have none
        raise NotAMistralModel("gguf_without_weights", model=name)
    return architecture


def is_projector(header: GGUFHeader) -> bool:
    """Whether the file with this header holds a vision tower, and no decoder."""
    told = header.metadata
    return told.get("general.architecture") == "clip" or told.get("general.type") == "mmproj"


def printable(text: object) -> str:
    """`text` as the page and errors may show it."""
    return "".join(each for each in str(text or "") if each.isprintable()).strip()[:MAX_NAME_LENGTH]


def _marks(metadata: Mapping[str, Any], name: str) -> Set[str]:
    """The tokens that are not text, as [THINK]. Raises NotAMistralModel unless the tokenizer is Mistral's tekken."""
    model, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if model != "gpt2" or pre != TEKKEN:
        raise NotAMistralModel(
            "gguf_other_tokenizer", model=name, found=printable((pre if model == "gpt2" else model) or "?")
        )
    try:
        marks = frozenset(split_vocabulary(metadata[TOKENS])[0])
        ends = [metadata[TOKENS][metadata[key]] == mark for key, mark in ENDS.items() if key in metadata]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise NotAMistralModel("gguf_vocabulary", model=name) from error
    if not all(ends) or ("[THINK]" in marks) != ("[/THINK]" in marks):
        raise NotAMistralModel("gguf_vocabulary", model=name)
    return marks


def _nearest(
    metadata: Mapping[str, Any], shape: ModelShape, architecture: str, marks: Set[str], name: str
) -> ModelCard:
    """The card of the model that the file was most likely made from: of the very same shape, or else the nearest."""
    if "[THINK]" not in marks:
        return MAGISTRAL_1_0
    same = next((card for card in FAMILY if card.shape and _size(card.shape) == _size(shape)), None)
    nearest = same or nearest_card(shape, architecture == "mistral3")
    told = " ".join(str(metadata.get(f"general.{key}", "")) for key in ("name", "basename", "version")) + f" {name}"
    is_magistral = nearest in (FAMILY[0], MAGISTRAL_1_1)
    return (MAGISTRAL_1_1 if "2507" in told else FAMILY[0]) if is_magistral else nearest


def _size(shape: ModelShape) -> tuple[int, ...]:
    return (shape.hidden, shape.intermediate, shape.layers, shape.heads, shape.kv_heads, shape.head_dim)


def inspect_gguf(path: Path) -> tuple[GGUFFacts, tuple[Path, ...]]:
    """The facts of the model of which `path` is the file, or one of several, and all of its files, in order.

    All of them are there and as long as their headers say. Raises ModelNotFound, NotAMistralModel or ModelFilesBroken.
    """
    header = header_of(path)
    files = parts_of(path, header)
    headers = [header if file == path else header_of(file) for file in files]
    for file, each in zip(files, headers, strict=True):
        _check_length(file, each)
    try:
        whole = joined(headers)
    except ValueError as error:
        raise ModelFilesBroken("gguf_damaged", model=path.name, file=files[-1].name) from error
    return replace(facts_of(whole, path.name), split_count=len(files)), files


def header_of(path: Path) -> GGUFHeader:
    """The header of a file; errors name the file. Raises ModelNotFound, ModelFilesBroken or NotAMistralModel."""
    try:
        if not os.path.exists(path):  # False for a name that is too long to be one
            raise ModelNotFound(model=str(path)[:MAX_PATH_LENGTH])
        if not is_gguf(path):
            os.close(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)))  # says why it cannot be read
            raise ModelFilesBroken("gguf_not_gguf", model=path.name, file=path.name)
        with path.open("rb") as opened:
            return read_header(opened)
    except OSError as error:
        raise unreadable(path.name, path.name, error) from error
    except GGUFCutOff as error:
        raise ModelFilesBroken("gguf_cut_off", model=path.name, file=path.name) from error
    except GGUFVersionUnknown as error:
        raise ModelFilesBroken("gguf_version", model=path.name, file=path.name) from error
    except GGUFDamaged as error:
        raise ModelFilesBroken("gguf_damaged", model=path.name, file=path.name) from error


def _check_length(path: Path, header: GGUFHeader) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise unreadable(path.name, path.name, error) from error
    if size < header.data_end:
        raise ModelFilesBroken("gguf_cut_off", model=path.name, file=path.name)


def read_mmproj(path: Path) -> MmprojFacts:
    """What a projector's file holds. Raises ModelNotFound, NotAMistralModel or ModelFilesBroken."""
    header = header_of(path)
    metadata, name = header.metadata, path.name
    kind = metadata.get("clip.projector_type") or metadata.get("clip.vision.projector_type")
    if not is_projector(header) or kind != PIXTRAL:
        raise NotAMistralModel(model=name, found=printable(kind or metadata.get("general.architecture") or "?"))
    _check_length(path, header)
    try:
        return _vision(header, path.stat().st_size)
    except OSError as error:
        raise unreadable(name, name, error) from error
    except (LookupError, TypeError, ValueError) as error:
        raise ModelFilesBroken("gguf_damaged", model=name, file=name) from error


def _check_tower(shapes: Mapping[str, tuple[int, ...]], vision: VisionShape, heads: int) -> None:
    """ValueError where the tensors are not as the file says: llama.cpp would not notice before it sees an image, and abort."""
    hidden = vision.hidden
    expected = {
        "v.patch_embd": (vision.patch, vision.patch, vision.channels, hidden),
        "v.blk.0.ffn_gate": (hidden, vision.intermediate),
        "mm.patch_merger": (hidden * vision.merge**2, hidden),
    }
    for name, shape in expected.items():
        if shapes.get(f"{name}.weight", shape) != shape:
            raise ValueError(f"{name} is not {shape}")
    if hidden % (2 * heads):
        raise ValueError(f"{heads} heads")
    if empty := [name for name, shape in shapes.items() if 0 in shape]:
        raise ValueError(f"nothing in {empty}")
    if vision.layers > len(shapes):
        raise ValueError(f"{vision.layers} layers")
    needed = {f"{name}.weight" for name in TOWER_PARTS}
    needed |= {f"v.blk.{layer}.{part}.weight" for layer in range(vision.layers) for part in TOWER_LAYER_PARTS}
    if missing := needed - shapes.keys():
        raise LookupError(min(missing))


def _check_constants(told: Mapping[str, Any]) -> None:
    """LookupError or ValueError for what llama.cpp would not check: it reads three numbers, however few there are."""
    if told["clip.has_vision_encoder"] is not True:
        raise ValueError("no vision tower")
    for key in ("clip.vision.image_mean", "clip.vision.image_std"):
        if len(told[key]) != COLOURS or not all(isinstance(each, float) for each in told[key]):
            raise ValueError(f"{key} {told[key]}")


def _vision(header: GGUFHeader, bytes: int) -> MmprojFacts:
    def size(key: str, usual: int | None = None) -> int:
        return checked_size(header.metadata.get(f"clip.vision.{key}", usual))

    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    vision = VisionShape(
        hidden=size("embedding_length"),
        intermediate=size("feed_forward_length"),
        layers=size("block_count"),
        patch=size("patch_size"),
        channels=shapes["v.patch_embd.weight"][2],
        image=size("image_size"),
        merge=size("spatial_merge_size", 1),
        projector_bias="mm.1.bias" in shapes,
    )
    width = size("projection_dim")
    _check_tower(shapes, vision, size("attention.head_count"))
    _check_constants(header.metadata)
    if vision.image > MAX_IMAGE_SIDE or vision.patch * vision.merge > vision.image or shapes["mm.2.weight"][1] != width:
        raise ValueError(f"not a vision tower: {vision}, width {width}")
    return MmprojFacts(vision, bytes, width, printable(header.metadata.get("general.name")))
