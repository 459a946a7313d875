"""Plain layers joined as on a GPU: the same results in the same bytes, and an end where memory is not used again."""

from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from magistral_ui.engines.local.model_layers import ModelLayers
from magistral_ui.engines.weights.joined_weights import join_on_gpu
from magistral_ui.engines.weights.quantization import held_bytes

CONFIG = MistralConfig(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    vocab_size=8,
)


def made() -> Any:
    torch.manual_seed(0)
    return MistralForCausalLM(CONFIG).eval().requires_grad_(False)


def said(model: Any) -> list[torch.Tensor]:
    layers, hidden = ModelLayers(model.model, model.lm_head), torch.randn(5, 64, generator=torch.manual_seed(1))
    opened = layers.open(1, hidden, layers.tables(hidden, torch.arange(5)))
    return [*opened, layers.close(1, hidden, hidden)]


def test_joined_layers_say_the_same_in_as_many_bytes() -> None:
    apart, joined = made(), made()
    assert join_on_gpu(list(joined.model.layers), reserved=lambda _: 0) == 3 * 5
    assert held_bytes(joined) == held_bytes(apart)
    for ours, theirs in zip(said(joined), said(apart), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("growth", [0, 2**14, 2**16])
def test_joining_ends_where_memory_is_not_used_again(growth: int) -> None:
    """Each time that it is asked for, more is reserved; gate and up of this model take 2 ** 16 bytes."""
    model, reserved = made(), iter(range(0, 100 * growth + 100, growth + 1))
    joined = join_on_gpu(list(model.model.layers), reserved=lambda _: next(reserved))
    assert joined == {0: 15, 2**14: 15, 2**16: 4}[growth]
    assert len(said(model)) == 4, "whatever is joined runs"
