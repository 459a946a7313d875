"""Choose how each weight of the demo model is tuned: Muon for the layers' matrices, AdamW for the rest.

torch has a Muon of its own, but that one works in bf16, which is ten times slower than fp32 on a CPU without it.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

MUON_OVER_ADAMW = 1.5
_MOMENTUM = 0.95
_WEIGHT_DECAY = 0.02
_QUINTIC = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration, as Muon's author found them


def orthogonal(stack: Tensor, steps: int = 5) -> Tensor:
    """Return matrices (count, rows, columns) with their singular values brought near 1."""
    tall = stack.shape[1] > stack.shape[2]
    x: Tensor = stack.transpose(1, 2) if tall else stack
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    first, second, third = _QUINTIC
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = first * x + (second * gram + third * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x


class Muon(Optimizer):
    """Move matrices along their orthogonalised momentum, with steps as large as AdamW's would be."""

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every matrix that has a gradient; those of one shape go through together."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes[weight.shape].append(weight)
            for (rows, columns), weights in shapes.items():
                moves = orthogonal(torch.stack([self._direction(weight) for weight in weights]))
                for weight, move in zip(weights, moves, strict=True):
                    weight.mul_(1 - group["lr"] * _WEIGHT_DECAY)
                    weight.add_(move, alpha=-group["lr"] * 0.2 * float(max(rows, columns)) ** 0.5)
        return loss

    def _direction(self, weight: Tensor) -> Tensor:
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(gradient, 1 - _MOMENTUM)
        return gradient.lerp(state["momentum"], _MOMENTUM)


def optimizers(modules: list[tuple[nn.Module, float]]) -> list[Optimizer]:
    """Return the optimizers for some modules, each with its share of the learning rate."""
    matrices: dict[float, list[nn.Parameter]] = defaultdict(list)
    others: list[dict[str, Any]] = []
    for module, share in modules:
        for name, weight in module.named_parameters():
            if weight.ndim == 2 and ("layers" in name or "merging" in name):
                matrices[share].append(weight)
            else:
                others.append({"params": [weight], "share": share})
    groups = [{"params": weights, "share": share * MUON_OVER_ADAMW} for share, weights in matrices.items()]
    return [Muon(groups, lr=1.0), AdamW(others, lr=1.0, betas=(0.9, 0.98), weight_decay=0.0, foreach=True)]


def set_rate(tuners: list[Optimizer], rate: float) -> None:
    """Set the learning rate of all groups by their shares."""
    for tuner in tuners:
        for group in tuner.param_groups:
            group["lr"] = rate * group["share"]
