"""The family at full size, on the meta device: what is counted is what transformers and bitsandbytes would make of its files."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import MistralConfig
from transformers.quantizers import AutoHfQuantizer

from magistral_ui.engines.weights.loader import CLASSES
from magistral_ui.engines.weights.quantization import quantization
from magistral_ui.models.cards import FAMILY, MAGISTRAL_1_2, ModelCard
from magistral_ui.models.device_budget import DeviceBudget
from magistral_ui.models.memory import GIB, head_copy_bytes, plan
from magistral_ui.models.shape import read_shape, weight_bytes
from tests.benchmarks.full_size import configuration

DEVICES = ("cuda", "mps", "cpu")


def outline(card: ModelCard) -> Any:
    """The card's model as transformers makes it from its configuration, with shapes and without bytes."""
    shape = card.shape
    assert shape is not None
    config = configuration(shape)
    if card is MAGISTRAL_1_2:  # Mistral's decoder instead of Ministral's
        names = MistralConfig().to_dict().keys() - {"rope_parameters", "model_type", "architectures"}
        text = {name: value for name, value in config.text_config.to_dict().items() if name in names}
        config.text_config = MistralConfig(**text, rope_theta=1e9)
    with torch.device("meta"):
        model = CLASSES["mistral3"](config)
    model.tie_weights()
    return model


def quantized(model: Any, precision: str, device: str) -> Any:
    """`model` with the linear layers replaced that the loader's configuration lets transformers replace."""
    config = quantization(precision, device)
    if config is not None:
        AutoHfQuantizer.from_config(config, pre_quantized=False).preprocess_model(model, device_map={"": device})
    return model


def nf4_bytes(weight: Any, device: str) -> int:
    """What `Params4bit` holds of a weight: halves of bytes, its table, and its scales."""
    blocks = weight.numel() // 64
    assert weight.numel() % (64 * 256) == 0, "all blocks of the real models are full"
    if device == "cpu":
        scales = 2 * blocks + 4  # laid out for AVX512-BF16, with scales in bfloat16; the offset stays
    elif weight.compress_statistics:
        scales = (
            blocks + 4 * blocks // 256 + 4 * 256 + 4
        )  # a byte each, with scales, a table and an offset of their own
    else:
        scales = 4 * blocks
    return weight.numel() // 2 + 4 * 16 + scales


def counted_bytes(model: Any, device: str) -> int:
    """Of all weights, each once; the modules say themselves how they are held."""
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    found: dict[int, int] = {}
    for module in model.modules():
        for each in module.parameters(recurse=False):
            if isinstance(module, Linear4bit):
                found[id(each)] = nf4_bytes(each, device)
            elif isinstance(module, Linear8bitLt):
                found[id(each)] = each.numel() + 4 * module.out_features
            else:
                found[id(each)] = 2 * each.numel()
    return sum(found.values())


@pytest.mark.parametrize("card", FAMILY, ids=lambda card: card.key)
def test_the_shape_holds_the_parameters_of_the_model(card: ModelCard) -> None:
    shape = card.shape
    assert shape is not None
    model = outline(card)
    assert sum(each.numel() for each in model.parameters()) == shape.parameters
    assert weight_bytes(shape, "bfloat16") == card.download_bytes
    assert read_shape(configuration(shape).to_dict(), not shape.tied) == shape
    assert read_shape(model.config.to_dict(), has_head=not shape.tied) == shape


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["bfloat16", "int8", "nf4"])
@pytest.mark.parametrize("card", FAMILY, ids=lambda card: card.key)
def test_planned_bytes_are_those_of_the_loader_s_modules(card: ModelCard, precision: str, device: str) -> None:
    shape = card.shape
    assert shape is not None
    model = quantized(outline(card), precision, device)
    layers = [module for module in model.modules() if type(module).__module__.startswith("bitsandbytes")]
    assert len(layers) == (0 if precision == "bfloat16" else 7 * shape.layers)
    assert all(isinstance(each, nn.Linear) for each in layers)
    counted = counted_bytes(model, device) + head_copy_bytes(shape, precision, device)
    planned = plan(shape, precision, DeviceBudget(device, 100 * GIB, 100 * GIB)).weights
    assert planned == counted
