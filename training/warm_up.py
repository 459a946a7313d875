"""Teach the vision tower to find and name figures, before it is joined to the text model's training.

    python -m training.warm_up --minutes 20

goes on from build/demo/vision.pt if there is one, and writes it.
"""

import argparse
import math
import random
import time
from pathlib import Path

import torch
from torch import nn

from training import batched_forward, heads
from training.blank_model import FOLDER
from training.optimizers import optimizers, set_rate

BUILD = Path("build/demo")
RATE = 1e-3


def main() -> None:
    """Train for some minutes, from what was saved before if anything was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    minutes: float = parser.parse_args().minutes
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = batched_forward.load(str(FOLDER))
    vision, projector = model.model.vision_tower, model.model.multi_modal_projector
    readers = heads.Heads(model.config.vision_config.hidden_size, model.config.text_config.hidden_size)
    parts: dict[str, nn.Module] = {"vision": vision, "projector": projector, "heads": readers}
    if (BUILD / "vision.pt").exists():
        saved = torch.load(BUILD / "vision.pt")
        for name, part in parts.items():
            part.load_state_dict(saved[name])
    tuners = optimizers([(part, 1.0) for part in parts.values()])
    trained = [weight for part in parts.values() for weight in part.parameters()]
    start = time.time()

    def done() -> float:
        return (time.time() - start) / 60 / minutes

    recent = []
    for step, batch in enumerate(heads.batches(random.Random(start), lambda: max(0.0, 0.9 - 1.6 * done()))):
        if done() >= 1:
            break
        set_rate(tuners, RATE * min(1, step / 50) * max(0.05, 0.5 + 0.5 * math.cos(math.pi * done())))
        loss, kinds, colours = heads.loss_of(model, readers, batch)
        for tuner in tuners:
            tuner.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 1.0)
        for tuner in tuners:
            tuner.step()
        recent.append((loss.item(), kinds, colours))
        if step % 50 == 49:
            means = " ".join(f"{sum(values) / len(values):.3f}" for values in zip(*recent, strict=True))
            print(f"{step + 1} {time.time() - start:.0f}s loss, kinds, colours {means}", flush=True)
            recent = []
    BUILD.mkdir(parents=True, exist_ok=True)
    torch.save({name: part.state_dict() for name, part in parts.items()}, BUILD / "vision.pt")


if __name__ == "__main__":
    main()
