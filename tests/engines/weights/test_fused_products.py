"""Row counts whose 4-bit products are fused: bitsandbytes' own rule, and the table for when it cannot be asked."""

import pytest
import torch

from magistral_ui.engines.weights import fused_products
from magistral_ui.engines.weights.fused_products import ALWAYS_FUSED, FUSED_ROWS, fused_buckets
from magistral_ui.models.cards import FAMILY
from magistral_ui.models.graph_memory import BUCKETS
from tests.engines.weights.library_rule import rule_on

SIZES = {card.name: card.shape.linears for card in FAMILY if card.shape is not None}
CAPABILITIES = [*FUSED_ROWS, (8, 7), (10, 0), (10, 3), (11, 0), (12, 5)]


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("model", SIZES)
def test_what_the_table_says_is_fused_by_the_library_s_own_rule(capability: tuple[int, int], model: str) -> None:
    buckets = fused_buckets(SIZES[model], capability)
    assert buckets[:3] == (1, 2, 4)
    smallest = 98 if capability == (8, 0) else 114 if capability == (9, 0) else 16  # whole cards of the data centre
    for processors in range(smallest, 200, 6):
        rule = rule_on(capability, processors)
        for out, into in set(SIZES[model]):
            assert all(rule(0, torch.bfloat16, rows, out, into) for rows in buckets)


@pytest.mark.parametrize(
    ("capability", "processors", "model", "buckets"),
    [
        ((8, 9), 128, "Magistral Small 1.2", (1, 2, 4, 8)),  # RTX 4090
        ((8, 9), 24, "Magistral Small 1.2", BUCKETS),  # RTX 4060
        ((8, 6), 82, "Ministral 3 3B", BUCKETS),  # RTX 3090
        ((8, 0), 108, "Magistral Small 1.2", (1, 2, 4)),  # A100
        ((9, 0), 132, "Ministral 3 8B", (1, 2, 4)),  # H100
    ],
)
def test_a_card_s_own_rule_is_asked(
    capability: tuple[int, int],
    processors: int,
    model: str,
    buckets: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = next(each for each in SIZES if each.startswith(model))
    monkeypatch.setattr(fused_products, "library_rule", lambda: rule_on(capability, processors))
    assert fused_buckets(SIZES[name], capability) == buckets


def test_another_version_s_rule_is_not_relied_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_products, "library_rule", lambda: lambda rows: True)
    assert fused_buckets([(4_096, 5_120)], (8, 9)) == (1, 2, 4, 8)
    assert fused_buckets([(1_024, 3_072)], (8, 9)) == tuple(each for each in BUCKETS if each <= ALWAYS_FUSED)


def test_rows_that_share_no_scale_are_never_fused() -> None:
    assert fused_buckets([(4_096, 5_120), (4_096, 96)], (8, 9)) == ()


def test_without_a_card_there_is_no_rule() -> None:
    assert torch.cuda.is_available() or fused_products.library_rule() is None
