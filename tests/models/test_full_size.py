"""Ministral 3 at full size, on the meta device: what is counted is what transformers would make of its configuration."""

import pytest
import torch
from transformers import Ministral3Config, Mistral3Config, Mistral3ForConditionalGeneration, PixtralVisionConfig

from magistral_ui.models.cards import FAMILY, ModelCard
from magistral_ui.models.shape import read_shape, weight_bytes


@pytest.mark.parametrize("card", FAMILY[1:], ids=lambda card: card.key)
def test_the_shape_holds_the_parameters_of_the_model(card: ModelCard) -> None:
    shape = card.shape
    assert shape is not None
    assert shape.vision is not None
    text = Ministral3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.context_length,
        tie_word_embeddings=shape.tied,
    )
    tower = PixtralVisionConfig(image_size=shape.vision.image, patch_size=shape.vision.patch)
    config = Mistral3Config(
        text_config=text.to_dict(), vision_config=tower.to_dict(), tie_word_embeddings=shape.tied, image_token_index=10
    )
    with torch.device("meta"):
        model = Mistral3ForConditionalGeneration(config)
    assert sum(each.numel() for each in model.parameters()) == shape.parameters
    assert weight_bytes(shape, "bfloat16") == card.download_bytes
    assert read_shape(config.to_dict(), not shape.tied) == shape
