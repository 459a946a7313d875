"""Teach the vision tower to find and name figures, before it is joined to the text model's training.

    python -m magistral_ui.models.demo.warm_up --minutes 10

writes build/demo/vision.pt. Auxiliary heads tell, per patch, which of its pixels are figure, which colour and which
kind, and per picture its kind and colour; they are thrown away afterwards.
"""

import argparse
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mistral_common.tokens.tokenizers.image import transform_image
from torch import Tensor, nn

from magistral_ui.models.demo import forward, pictures
from magistral_ui.models.demo.blank import FOLDER, MAX_IMAGE_SIZE
from magistral_ui.models.demo.optimizers import optimizers, set_rate

BUILD = Path("build/demo")
BATCH = 32
FINE = 7  # the figure is drawn on 7 x 7 cells of each patch
Batch = tuple[Tensor, Tensor, Tensor, Tensor]  # pixels, kinds, colours (-1: none), figure (batch, patches, cells)


class Heads(nn.Module):
    """Read kind and colour from patches and from the projected tokens."""

    def __init__(self, patch_size: int, token_size: int) -> None:
        super().__init__()
        self.figure = nn.Linear(patch_size, FINE * FINE)
        self.patch_colour = nn.Linear(patch_size, len(pictures.COLOURS))
        self.patch_kind = nn.Linear(patch_size, len(pictures.KINDS))
        self.focus = nn.Linear(token_size, 2)
        self.kind = nn.Linear(token_size, len(pictures.KINDS))
        self.colour = nn.Linear(token_size, len(pictures.COLOURS))

    def forward(self, patches: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
        """Return scores of figure, colour and kind per patch, then of kind and colour per picture."""
        kind, colour = (self.focus(tokens).softmax(1).transpose(1, 2) @ tokens).unbind(1)
        return (
            self.figure(patches),
            self.patch_colour(patches),
            self.patch_kind(patches),
            self.kind(kind),
            self.colour(colour),
        )


def batches(rng: random.Random, ease: Callable[[], float]) -> Iterator[Batch]:
    """Yield batches of pictures of one size each, without end; `ease` tells the share of easy ones."""
    waiting: dict[tuple[int, int], list[pictures.Picture]] = defaultdict(list)
    while True:
        drawn = pictures.picture(rng, ease())
        height, width = drawn.mask.shape
        ratio = max(height / MAX_IMAGE_SIZE, width / MAX_IMAGE_SIZE, 1)
        grid = (round(height / ratio) - 1) // 28 + 1, (round(width / ratio) - 1) // 28 + 1
        waiting[grid].append(drawn)
        if len(waiting[grid]) == BATCH:
            yield collate(waiting.pop(grid), *grid)


def collate(drawn: list[pictures.Picture], rows: int, columns: int) -> Batch:
    """Turn pictures into tensors of one size of `rows` times `columns` tokens."""
    pixels = np.stack([transform_image(d.image, (columns * 28, rows * 28)) for d in drawn])
    kinds = torch.tensor([pictures.KINDS.index(d.kind) for d in drawn])
    colours = torch.tensor([pictures.COLOURS.index(d.colour) if d.colour else -1 for d in drawn])
    size = (columns * 2 * FINE, rows * 2 * FINE)
    masks = np.stack([cv2.resize(d.mask, size, interpolation=cv2.INTER_AREA) for d in drawn])
    cells = masks.reshape(len(drawn), rows * 2, FINE, columns * 2, FINE).transpose(0, 1, 3, 2, 4)
    figure = torch.from_numpy(cells.reshape(len(drawn), -1, FINE * FINE)).float() / 255
    return torch.from_numpy(pixels), kinds, colours, figure


def main() -> None:
    """Train for some minutes, from what was saved before if anything was."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=10)
    minutes: float = options.parse_args().minutes
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = forward.load(str(FOLDER))
    vision, projector = model.model.vision_tower, model.model.multi_modal_projector
    heads = Heads(model.config.vision_config.hidden_size, model.config.text_config.hidden_size)
    if (BUILD / "vision.pt").exists():
        saved = torch.load(BUILD / "vision.pt")
        vision.load_state_dict(saved["vision"])
        projector.load_state_dict(saved["projector"])
        heads.load_state_dict(saved["heads"]) if "heads" in saved else None
    modules = [vision, projector, heads]
    tuners = optimizers([(module, 1.0) for module in modules])
    trained = [p for module in modules for p in module.parameters()]
    start, right, seen = time.time(), np.zeros(2), 0

    def done_now() -> float:
        return (time.time() - start) / 60 / minutes

    drawn = batches(random.Random(start), lambda: max(0.0, 0.9 - 1.6 * done_now()))
    for step, (pixels, kinds, colours, cells) in enumerate(drawn):
        done = done_now()
        if done >= 1:
            break
        rate = 1e-3 * min(1, step / 50) * max(0.05, 0.5 + 0.5 * math.cos(math.pi * done))
        set_rate(tuners, rate)
        rows, columns = pixels.shape[2] // 14, pixels.shape[3] // 14
        with torch.autocast("cpu", torch.bfloat16):
            patches = forward.patch_features(model, pixels)
            tokens = forward.project(model, patches, rows, columns)
            figure, patch_colour, patch_kind, kind, colour = heads(patches, tokens)
        named = colours >= 0
        covered = cells.mean(-1)
        inside, touched = (covered > 0.5) & named[:, None], covered > 0.1
        loss = (
            F.cross_entropy(kind.float(), kinds)
            + F.cross_entropy(colour.float()[named], colours[named])
            + F.binary_cross_entropy_with_logits(figure.float(), cells)
            + 0.5 * F.cross_entropy(patch_colour.float()[inside], colours[:, None].expand_as(covered)[inside])
            + 0.5 * F.cross_entropy(patch_kind.float()[touched], kinds[:, None].expand_as(covered)[touched])
        )
        for tuner in tuners:
            tuner.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 1.0)
        for tuner in tuners:
            tuner.step()
        right += [(kind.argmax(1) == kinds).sum().item(), (colour.argmax(1) == colours)[named].sum().item()]
        seen += len(kinds)
        if step % 50 == 49:
            print(
                f"{step + 1} {time.time() - start:.0f}s loss {loss.item():.3f} kind, colour {right / seen}", flush=True
            )
            right, seen = np.zeros(2), 0
    state = {"vision": vision.state_dict(), "projector": projector.state_dict(), "heads": heads.state_dict()}
    BUILD.mkdir(parents=True, exist_ok=True)
    torch.save(state, BUILD / "vision.pt")


if __name__ == "__main__":
    main()
