"""Reads a model's shape from its config.json, and computes its parameters and the bytes of its parts; it queries no device.

What each linear layer allocates follows bitsandbytes 0.50 (functional.py, quantize_4bit and int8_vectorwise_quant).
"""

from dataclasses import dataclass, replace
from typing import Any

MAX_SEQUENCES = 8
"""Sequences in one forward, as in the scheduler."""
PREFILL_CHUNK = {"cuda": 2_048, "mps": 2_048, "gpu": 2_048, "cpu": 512}
"""Most prompt tokens in one forward, as in the scheduler."""
BLOCK, NESTED_BLOCK = 64, 256
"""Weights that share a scale in nf4, and scales that share one in double quantization."""
SCORE_BYTES = 2**28
"""Bytes for the scores of one block of queries on devices without fused attention: MPS, and CUDA before capability 8.0."""
BYTES_PER_SCORE = 12
"""A score in 16 bits and in float32, its softmax in float32 and in 16 bits."""
MAX_SIZE = 2**31
"""No number in a config.json is larger; more is damage, or malice."""


@dataclass(frozen=True, slots=True)
class VisionShape:
    """A Pixtral vision tower with its projector."""

    hidden: int
    intermediate: int
    layers: int
    patch: int
    channels: int
    image: int
    """Longest side of an image in pixels; larger images are scaled down."""
    merge: int
    """Patches along each side of the square that becomes one token."""
    projector_bias: bool

    def parameters(self, text_hidden: int) -> int:
        """Tower and projector together."""
        layer = 4 * self.hidden**2 + 3 * self.hidden * self.intermediate + 2 * self.hidden
        tower = self.channels * self.patch**2 * self.hidden + self.hidden + self.layers * layer
        projector = self.hidden + self.hidden**2 * self.merge**2 + self.hidden * text_hidden + text_hidden**2
        return tower + projector + (2 * text_hidden if self.projector_bias else 0)

    @property
    def patches(self) -> int:
        """Patches of the largest image."""
        side = -(-self.image // (self.patch * self.merge)) * self.merge
        return side * side


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A Mistral decoder, with a vision tower or without."""

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool
    """Whether the embedding is also the head."""
    context_length: int
    vision: VisionShape | None = None

    @property
    def linears(self) -> tuple[tuple[int, int], ...]:
        """(out, in) of each linear layer of one decoder layer: what is quantized."""
        inner, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        wide = (self.intermediate, self.hidden)
        attention = ((inner, self.hidden), (keys, self.hidden), (keys, self.hidden), (self.hidden, inner))
        return (*attention, wide, wide, (self.hidden, self.intermediate))

    @property
    def linear_parameters(self) -> int:
        """Of all decoder layers."""
        return self.layers * sum(rows * columns for rows, columns in self.linears)

    @property
    def other_parameters(self) -> int:
        """Embedding, head, norms, vision tower and projector: what is never quantized."""
        embedding = self.vocabulary * self.hidden * (1 if self.tied else 2)
        norms = (2 * self.layers + 1) * self.hidden
        return embedding + norms + (self.vision.parameters(self.hidden) if self.vision else 0)

    @property
    def parameters(self) -> int:
        return self.linear_parameters + self.other_parameters

    @property
    def image_side(self) -> int:
        """Longest side of an image in pixels; 0 without vision."""
        return self.vision.image if self.vision else 0

    def without_vision(self) -> "ModelShape":
        return replace(self, vision=None)

    def with_images(self, side: int) -> "ModelShape":
        """The same model where images are scaled down to `side` pixels at most."""
        if self.vision is None or side >= self.vision.image:
            return self
        return replace(self, vision=replace(self.vision, image=side))


# config.json of mistralai/Magistral-Small-2509 (the Mistral Small 3.1 architecture); the count of 24,011,361,280 parameters,
# two bytes each, is the size of the repository's weights. 2507 and 2506 are its decoder alone: 23.57 billion.
MAGISTRAL_SMALL_1_2 = ModelShape(
    vocabulary=131_072,
    hidden=5_120,
    intermediate=32_768,
    layers=40,
    heads=32,
    kv_heads=8,
    head_dim=128,
    tied=False,
    context_length=131_072,
    vision=VisionShape(
        hidden=1_024,
        intermediate=4_096,
        layers=24,
        patch=14,
        channels=3,
        image=1_540,
        merge=2,
        projector_bias=False,
    ),
)
MAGISTRAL_SMALL_TEXT = MAGISTRAL_SMALL_1_2.without_vision()
# config.json of mistralai/Ministral-3-{14B,8B,3B}-Reasoning-2512; the vision tower is Magistral's. Only the 3B has a tied head:
# the others' configurations say nothing of it, and their weights have an lm_head. Parameters as their indexes count them:
# 13,945,031,680, 8,918,026,240 and 3,849,090,048.
MINISTRAL_3_14B_SHAPE = replace(MAGISTRAL_SMALL_1_2, intermediate=16_384, context_length=262_144)
MINISTRAL_3_8B_SHAPE = replace(MINISTRAL_3_14B_SHAPE, hidden=4_096, intermediate=14_336, layers=34)
MINISTRAL_3_3B_SHAPE = replace(MINISTRAL_3_14B_SHAPE, hidden=3_072, intermediate=9_216, layers=26, tied=True)


def read_shape(config: dict[str, Any], has_head: bool | None = None) -> ModelShape:
    """The shape in a config.json; what it leaves out has transformers' defaults.

    `has_head` says whether the weights include a head; None trusts the configuration, which is not always right. Raises
    ValueError or TypeError if something is not a size that a model can have.
    """
    text = config.get("text_config", config)
    text = dict(text if text is not None else {})
    text = {**_DEFAULTS.get(str(text.get("model_type")), _MISTRAL), **text}
    tied = bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))
    hidden, heads = checked_size(text["hidden_size"]), checked_size(text["num_attention_heads"])
    return ModelShape(
        vocabulary=checked_size(text["vocab_size"]),
        hidden=hidden,
        intermediate=checked_size(text["intermediate_size"]),
        layers=checked_size(text["num_hidden_layers"]),
        heads=heads,
        kv_heads=checked_size(text["num_key_value_heads"] or heads),
        head_dim=checked_size(text.get("head_dim") or hidden // heads),
        tied=tied if has_head is None else not has_head,
        context_length=checked_size(text["max_position_embeddings"]),
        vision=_vision(config) if "text_config" in config else None,
    )


def checked_size(found: object) -> int:
    """`found` if it is a size that a model can have; ValueError otherwise."""
    if isinstance(found, bool) or not isinstance(found, int) or not 1 <= found <= MAX_SIZE:
        raise ValueError(f"not a size: {found!r:.40}")
    return found


def _vision(config: dict[str, Any]) -> VisionShape:
    vision = {**_PIXTRAL, **(config.get("vision_config") or {})}
    return VisionShape(
        hidden=checked_size(vision["hidden_size"]),
        intermediate=checked_size(vision["intermediate_size"]),
        layers=checked_size(vision["num_hidden_layers"]),
        patch=checked_size(vision["patch_size"]),
        channels=checked_size(vision["num_channels"]),
        image=checked_size(vision["image_size"]),
        merge=checked_size(config.get("spatial_merge_size", 2)),
        projector_bias=bool(config.get("multimodal_projector_bias", False)),
    )


# transformers 5.23: configuration_mistral.py, configuration_ministral3.py, configuration_mistral3.py, configuration_pixtral.py
_MISTRAL = {
    "vocab_size": 32_000,
    "hidden_size": 4_096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
}
_MINISTRAL = _MISTRAL | {
    "vocab_size": 131_072,
    "num_hidden_layers": 34,
    "head_dim": 128,
    "max_position_embeddings": 262_144,
}
_DEFAULTS = {"mistral": _MISTRAL, "ministral3": _MINISTRAL}
_PIXTRAL = {
    "hidden_size": 1_024,
    "intermediate_size": 4_096,
    "num_hidden_layers": 24,
    "num_channels": 3,
    "image_size": 1_024,
    "patch_size": 16,
}


def weight_bytes(shape: ModelShape, precision: str, type: str = "cuda") -> int:
    """Bytes of all loaded weights, including quantization scales and tables, on a device of this `type`."""
    if precision == "float32":
        return 4 * shape.parameters
    if precision == "bfloat16":
        return 2 * shape.parameters
    if precision == "int8":
        layer = sum(rows * columns + 4 * rows for rows, columns in shape.linears)
    else:
        layer = sum(_nf4_bytes(rows * columns, type) for rows, columns in shape.linears)
    return 2 * shape.other_parameters + shape.layers * layer


def _nf4_bytes(count: int, type: str) -> int:
    """For a processor, those of the layout with AVX512-BF16, whose scales are bfloat16; without it, scales stay nested."""
    blocks = -(-count // BLOCK)
    nested = blocks + 4 * -(-blocks // NESTED_BLOCK) + 4 * 256 + 4
    scales = {"mps": 4 * blocks, "cpu": 2 * blocks + 4}.get(type, nested)
    return -(-count // 2) + scales + 4 * 16


def kv_bytes_per_token(shape: ModelShape, precision: str) -> int:
    """Bytes of one token's keys and values in all layers."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * value_bytes(precision)


def prefill_bytes(shape: ModelShape, precision: str, chunk: int) -> int:
    """Peak bytes of one forward of `chunk` tokens: a layer's MLP, the mask, and the logits.

    The factors are rounded up from measurements on one layer of Magistral's width: 253 to 295 kB a token in bfloat16.
    """
    activations = chunk * value_bytes(precision) * (8 * shape.hidden + 3 * shape.intermediate)
    logits = MAX_SEQUENCES * shape.vocabulary * 4 * 6
    unpacked = 2 * shape.hidden * shape.intermediate if precision in ("nf4", "int8") else 0
    return activations + logits + unpacked


def image_bytes(shape: ModelShape, precision: str, fused: bool = True) -> int:
    """Peak bytes of the vision tower for the largest image: two masks of patches × patches, and a layer.

    Where bfloat16 has no fused attention, the tower attends in float32, which has: one more mask, and another copy of queries,
    keys and values.
    """
    vision = shape.vision
    if vision is None:
        return 0
    layer = vision.patches * (6 * vision.hidden + 3 * vision.intermediate)
    again = 0 if fused else 4 * (vision.patches**2 + 4 * vision.patches * vision.hidden)
    return value_bytes(precision) * (2 * vision.patches**2 + layer) + again


def working_bytes(shape: ModelShape, precision: str, type: str, fused: bool = True) -> int:
    """Bytes that must stay free for one forward or one image, which never happen at the same time.

    `fused` says whether a CUDA GPU has fused attention; MPS never has.
    """
    scores = attention_bytes(fused and type != "mps", shape.heads, shape.context_length)
    return max(prefill_bytes(shape, precision, PREFILL_CHUNK[type]) + scores, image_bytes(shape, precision, fused))


def value_bytes(precision: str) -> int:
    """Bytes of one unquantized number."""
    return 4 if precision == "float32" else 2


def queries_at_once(heads: int, keys: int) -> int:
    """Queries whose scores over `keys` fit into SCORE_BYTES, at least one."""
    return max(1, SCORE_BYTES // (BYTES_PER_SCORE * heads * keys))


def attention_bytes(fused: bool, heads: int, longest: int) -> int:
    """Bytes that a plan reserves for attention over sequences of at most `longest` tokens, beside the activations."""
    return 0 if fused else max(SCORE_BYTES, BYTES_PER_SCORE * heads * longest)
