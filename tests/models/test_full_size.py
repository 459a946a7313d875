"""Ministral 3 at full size, on the meta device: what is counted is what transformers would make of its configuration."""

import pytest
import torch
from transformers import Mistral3ForConditionalGeneration

from magistral_ui.models.cards import FAMILY, ModelCard
from magistral_ui.models.shape import read_shape, weight_bytes
from tests.benchmarks.full_size import configuration


@pytest.mark.parametrize("card", FAMILY[1:], ids=lambda card: card.key)
def test_the_shape_holds_the_parameters_of_the_model(card: ModelCard) -> None:
    shape = card.shape
    assert shape is not None
    config = configuration(shape)
    with torch.device("meta"):
        model = Mistral3ForConditionalGeneration(config)
    model.tie_weights()
    assert sum(each.numel() for each in model.parameters()) == shape.parameters
    assert weight_bytes(shape, "bfloat16") == card.download_bytes
    assert read_shape(config.to_dict(), not shape.tied) == shape
    assert read_shape(model.config.to_dict(), has_head=not shape.tied) == shape
