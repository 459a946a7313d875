"""What lies between a layer's products is what transformers computes there, and a row's results do not depend on the others."""

import shutil
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM
from transformers.models.mistral.modeling_mistral import (
    MistralDecoderLayer,
    MistralRMSNorm,
    MistralRotaryEmbedding,
    apply_rotary_pos_emb,
)

from magistral_ui.engines.local import compiled_ops
from magistral_ui.engines.local.compiled_ops import CompiledPiece, compile_pieces
from magistral_ui.engines.local.fused_ops import (
    LayerOps,
    Pieces,
    added_and_normalized,
    gated,
    normalized,
    rotated,
    signed,
)
from magistral_ui.engines.local.model_layers import ModelLayers
from magistral_ui.engines.weights.packing import can_pack, pack_linears

PRECISIONS = [torch.float32, torch.bfloat16]
CONFIG = MistralConfig(
    hidden_size=192,
    intermediate_size=512,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=32,
    vocab_size=8,
    num_hidden_layers=1,
)


def tables(positions: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """transformers' cos and sin, (rows, head_dim)."""
    cos, sin = MistralRotaryEmbedding(CONFIG)(torch.zeros(1, dtype=dtype), positions[None])
    return cos[0], sin[0]


def near(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Within float32's 1e-6, or two roundings of bfloat16."""
    exact = ours.dtype == torch.float32
    return torch.allclose(ours, theirs, rtol=1e-6 if exact else 2**-7, atol=1e-6 if exact else 2**-7)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_pieces_are_transformers_modules(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(9, 192, dtype=dtype)
    norm = MistralRMSNorm(192, 1e-5).to(dtype).requires_grad_(False)
    norm.weight.normal_(1, 0.1)
    assert near(normalized(hidden, norm.weight, 1e-5), norm(hidden))
    queries, keys = torch.randn(9, 6, 32, dtype=dtype), torch.randn(9, 2, 32, dtype=dtype)
    cos, sin = tables(torch.arange(100, 109), dtype)
    theirs = apply_rotary_pos_emb(queries, keys, cos, sin)
    ours = rotated(torch.cat((queries, keys), 1), cos[:, None], signed(sin[:, None])).split((6, 2), 1)
    assert all(near(*pair) for pair in zip(ours, theirs, strict=True))
    gate, up = torch.randn(9, 1024, dtype=dtype).chunk(2, -1)
    assert near(gated(gate, up), torch.nn.functional.silu(gate) * up)


def made(dtype: torch.dtype) -> tuple[Any, LayerOps]:
    """A layer of transformers, and the same one packed and joined."""
    if not can_pack(dtype):
        pytest.skip(f"this processor does not pack {dtype}")
    layers = []
    for _ in range(2):
        torch.manual_seed(1)
        layers.append(MistralDecoderLayer(CONFIG, 0).to(dtype).requires_grad_(False))
    pack_linears(layers[1])
    return layers[0], LayerOps(layers[1])


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_layer_is_transformers_layer_but_for_attention(dtype: torch.dtype) -> None:
    layer, ops = made(dtype)
    hidden, attended = torch.randn(9, 192, dtype=dtype), torch.randn(9, 192, dtype=dtype)
    cos, sin = tables(torch.arange(9), dtype)
    scale = torch.linspace(1, 2, 9, dtype=dtype)[:, None, None]
    with torch.inference_mode():
        normed, attention = layer.input_layernorm(hidden), layer.self_attn
        parts = [each(normed).view(9, -1, 32) for each in (attention.q_proj, attention.k_proj, attention.v_proj)]
        queries, keys = apply_rotary_pos_emb(parts[0], parts[1], cos, sin)
        opened = ops.open(hidden, (cos[:, None], signed(sin[:, None]), scale), Pieces())
        expected = hidden + attention.o_proj(attended)
        expected = expected + layer.mlp(layer.post_attention_layernorm(expected))
        closed = ops.close(hidden, attended, Pieces())
    tolerance = 1e-5 if dtype == torch.float32 else 0.03
    for ours, theirs in zip((*opened, closed), (queries * scale, keys, parts[2], expected), strict=True):
        assert torch.allclose(ours, theirs, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_row_is_the_same_in_any_company(dtype: torch.dtype) -> None:
    _, ops = made(dtype)
    hidden, attended = torch.randn(33, 192, dtype=dtype), torch.randn(33, 192, dtype=dtype)
    cos, sin = tables(torch.arange(33), dtype)

    def through(rows: slice) -> list[torch.Tensor]:
        opened = ops.open(hidden[rows], (cos[rows, None], signed(sin[rows, None])), Pieces())
        return [*opened, ops.close(hidden[rows], attended[rows], Pieces())]

    with torch.inference_mode():
        together = through(slice(33))
        for count in (1, 4, 7, 32):
            assert all(
                torch.equal(part, whole[1 : 1 + count])
                for part, whole in zip(through(slice(1, 1 + count)), together, strict=True)
            )


@pytest.fixture
def layers() -> ModelLayers:
    torch.manual_seed(2)
    model = MistralForCausalLM(CONFIG).eval().requires_grad_(False)
    return ModelLayers(model.model, model.lm_head)


def test_pieces_are_compiled_once_for_any_number_of_rows(layers: ModelLayers) -> None:
    """Traced as for inductor, but run as they are: that nothing is compiled once visitors are there."""
    plain = layers.pieces
    assert compile_pieces(layers, 192, torch.float32, allowed=lambda _: True, backend="eager")
    compiled, said = layers.pieces, []
    with torch.inference_mode(), torch._dynamo.config.patch(error_on_recompile=True):
        for pieces in (plain, compiled):
            layers.pieces = pieces
            torch.manual_seed(5)
            for rows in (1, 3, 16, 40):
                hidden = torch.randn(rows, 192)
                opened = layers.open(0, hidden, layers.tables(hidden, torch.arange(rows)))
                said += [*opened, layers.close(0, hidden, torch.randn(rows, 192))]
    assert all(torch.equal(*pair) for pair in zip(said[: len(said) // 2], said[len(said) // 2 :], strict=True))


def test_another_model_gets_kernels_for_its_own_width() -> None:
    """torch would otherwise take a width that is not the last model's for one that changes."""
    traced: list[Any] = []

    def backend(module: Any, inputs: list[Any]) -> Any:
        traced.extend(each for each in inputs if isinstance(each, torch.Tensor))
        return module.forward

    for width in (64, 192):
        config = MistralConfig(**CONFIG.to_dict() | {"hidden_size": width})
        model = MistralForCausalLM(config).eval().requires_grad_(False)
        made = ModelLayers(model.model, model.lm_head)
        assert compile_pieces(made, width, torch.float32, allowed=lambda _: True, backend=backend)  # type: ignore[arg-type]
        sizes = [size for each in traced for size in each.shape[1:]]
        assert sizes
        assert all(isinstance(size, int) for size in sizes)
        traced.clear()


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # by modules that inductor imports
def test_a_compiled_piece_says_the_same() -> None:
    """By inductor's C++; on a GPU it is Triton."""
    piece = CompiledPiece(added_and_normalized)
    with torch.inference_mode():
        piece.try_on(torch.randn(2, 64), torch.randn(2, 64), torch.ones(64), 1e-5)
        piece.use_on(torch.device("cpu"))
        given = torch.randn(7, 64), torch.randn(7, 64), torch.rand(64), 1e-5
        for ours, theirs in zip(piece(*given), added_and_normalized(*given), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("fault", ["a processor", "no compiler", "differs"])
def test_what_cannot_be_compiled_stays_plain(layers: ModelLayers, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    plain = layers.pieces
    if fault == "a processor":
        assert not compile_pieces(layers, 192, torch.float32)
    elif fault == "no compiler":
        monkeypatch.setattr(compiled_ops.CompiledPiece, "try_on", Mock(side_effect=RuntimeError("no g++")))
        assert not compile_pieces(layers, 192, torch.float32, allowed=lambda _: True)
    else:
        monkeypatch.setattr(compiled_ops, "TOLERANCE", {torch.float32: -1.0})
        assert not compile_pieces(layers, 192, torch.float32, allowed=lambda _: True, backend="eager")
    assert layers.pieces is plain
