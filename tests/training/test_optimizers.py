"""The demo model's optimizer does what it says on small matrices; no model is trained here."""

import torch
from torch import nn

from training.optimizers import optimizers, orthogonal, set_rate


def test_orthogonal_brings_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((3, 8, 20), (3, 20, 8)):
        made = orthogonal(torch.randn(shape) * 7)
        assert made.shape == shape
        values = torch.linalg.svdvals(made)
        assert float(values.min()) > 0.3
        assert float(values.max()) < 1.5


def test_orthogonal_keeps_directions() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(1, 6, 9)
    left, _, right = torch.linalg.svd(matrix[0], full_matrices=False)
    turned = left.T @ orthogonal(matrix)[0] @ right.T
    assert float((turned - turned.diag().diag()).abs().max()) < 1e-4
    assert float(turned.diag().min()) > 0.3


def test_both_optimizers_learn_their_share() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 2))
    model = nn.ModuleDict({"layers": layers})
    inputs, wanted = torch.randn(64, 6), torch.randn(64, 2)
    tuners = optimizers([(model, 1.0)])
    assert [sum(len(group["params"]) for group in tuner.param_groups) for tuner in tuners] == [2, 2]
    before = [weight.detach().clone() for weight in model.parameters()]
    losses = []
    for _ in range(40):
        set_rate(tuners, 0.01)
        loss = (layers(inputs) - wanted).square().mean()
        losses.append(float(loss.detach()))
        for tuner in tuners:
            tuner.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for tuner in tuners:
            tuner.step()
    assert losses[-1] < 0.8 * losses[0]
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
