"""Reads a model's shape from its config.json and counts its parameters exactly; it knows no devices and no precisions."""

from dataclasses import dataclass, replace
from typing import Any


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

    def without_vision(self) -> "ModelShape":
        return replace(self, vision=None)


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


def read_shape(config: dict[str, Any], has_head: bool | None = None) -> ModelShape:
    """The shape in a config.json; what it leaves out has transformers' defaults.

    `has_head` says whether the weights include a head; None trusts the configuration, which is not always right.
    """
    text = config.get("text_config", config)
    text = {**_DEFAULTS.get(str(text.get("model_type")), _MISTRAL), **text}
    tied = bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))
    return ModelShape(
        vocabulary=text["vocab_size"],
        hidden=text["hidden_size"],
        intermediate=text["intermediate_size"],
        layers=text["num_hidden_layers"],
        heads=text["num_attention_heads"],
        kv_heads=text["num_key_value_heads"] or text["num_attention_heads"],
        head_dim=text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"],
        tied=tied if has_head is None else not has_head,
        context_length=text["max_position_embeddings"],
        vision=_vision(config) if "text_config" in config else None,
    )


def _vision(config: dict[str, Any]) -> VisionShape:
    vision = {**_PIXTRAL, **(config.get("vision_config") or {})}
    return VisionShape(
        hidden=vision["hidden_size"],
        intermediate=vision["intermediate_size"],
        layers=vision["num_hidden_layers"],
        patch=vision["patch_size"],
        channels=vision["num_channels"],
        image=vision["image_size"],
        merge=config.get("spatial_merge_size", 2),
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
