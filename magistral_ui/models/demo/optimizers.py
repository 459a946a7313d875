"""Choose how each weight of the demo model is tuned: Muon for the layers' matrices, AdamW for the rest."""

from typing import Any

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

MUON_OVER_ADAMW = 1.5


def optimizers(modules: list[tuple[nn.Module, float]]) -> list[Optimizer]:
    """Return the optimizers for some modules, each with its share of the learning rate."""
    matrices: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for module, share in modules:
        for name, weight in module.named_parameters():
            inner = weight.ndim == 2 and ("layers" in name or "merging" in name)
            (matrices if inner else others).append({"params": [weight], "share": share})
    muon = Muon(matrices, lr=1.0, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
    for group in muon.param_groups:
        group["share"] *= MUON_OVER_ADAMW
    return [muon, AdamW(others, lr=1.0, betas=(0.9, 0.98), weight_decay=0.0, foreach=True)]


def set_rate(tuners: list[Optimizer], rate: float) -> None:
    """Set the learning rate of all groups by their shares."""
    for tuner in tuners:
        for group in tuner.param_groups:
            group["lr"] = rate * group["share"]
