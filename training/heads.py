"""Teach the vision tower where a figure is and what it is, by heads that are thrown away after training.

They tell, per patch, which of its pixels are figure, its colour, kind and corners, and per picture its kind and
colour. It knows nothing of the text model.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mistral_common.tokens.tokenizers.image import transform_image
from torch import Tensor, nn
from transformers import Mistral3ForConditionalGeneration

from training import batched_forward, drawings
from training.blank_model import MAX_IMAGE_SIZE

BATCH = 32
FINE = 7  # the figure is drawn on 7 x 7 cells of each patch
Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # pixels, kinds, colours (-1: none), figure's cells, corners


class Heads(nn.Module):
    """Read kind and colour from patches and from the projected tokens."""

    def __init__(self, patch_size: int, token_size: int) -> None:
        super().__init__()
        self.figure = nn.Linear(patch_size, FINE * FINE)
        self.patch_colour = nn.Linear(patch_size, len(drawings.COLOURS))
        self.corner = nn.Linear(patch_size, 1)
        self.patch_kind = nn.Linear(patch_size, len(drawings.KINDS))
        self.focus = nn.Linear(token_size, 2)
        self.kind = nn.Linear(token_size, len(drawings.KINDS))
        self.colour = nn.Linear(token_size, len(drawings.COLOURS))

    def forward(self, patches: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
        """Return scores of figure, colour, kind and corner per patch, then of kind and colour per picture."""
        kind, colour = (self.focus(tokens).softmax(1).transpose(1, 2) @ tokens).unbind(1)
        return (
            self.figure(patches),
            self.patch_colour(patches),
            self.patch_kind(patches),
            self.corner(patches).squeeze(-1),
            self.kind(kind),
            self.colour(colour),
        )


def batches(rng: random.Random, ease: Callable[[], float]) -> Iterator[Batch]:
    """Yield batches of pictures of one size each, without end; `ease` tells the share of easy ones."""
    waiting: dict[tuple[int, int], list[drawings.Drawing]] = defaultdict(list)
    while True:
        drawn = drawings.image(rng, ease())
        height, width = drawn.mask.shape
        ratio = max(height / MAX_IMAGE_SIZE, width / MAX_IMAGE_SIZE, 1)
        grid = (round(height / ratio) - 1) // 28 + 1, (round(width / ratio) - 1) // 28 + 1
        waiting[grid].append(drawn)
        if len(waiting[grid]) == BATCH:
            yield collate(waiting.pop(grid), *grid)


def collate(drawn: list[drawings.Drawing], rows: int, columns: int) -> Batch:
    """Turn pictures into tensors of one size of `rows` times `columns` tokens."""
    pixels = np.stack([transform_image(d.image, (columns * 28, rows * 28)) for d in drawn])
    kinds = torch.tensor([drawings.KINDS.index(d.kind) for d in drawn])
    colours = torch.tensor([drawings.COLOURS.index(d.colour) if d.colour else -1 for d in drawn])
    size = (columns * 2 * FINE, rows * 2 * FINE)
    masks = np.stack([cv2.resize(d.mask, size, interpolation=cv2.INTER_AREA) for d in drawn])
    cells = masks.reshape(len(drawn), rows * 2, FINE, columns * 2, FINE).transpose(0, 1, 3, 2, 4)
    figure = torch.from_numpy(cells.reshape(len(drawn), -1, FINE * FINE)).float() / 255
    corners = np.zeros((len(drawn), rows * 2, columns * 2), np.float32)
    for index, one in enumerate(drawn):
        height, width = one.mask.shape
        for x, y in one.corners:
            row = min(max(int(y / height * rows * 2), 0), rows * 2 - 1)
            column = min(max(int(x / width * columns * 2), 0), columns * 2 - 1)
            corners[index, row, column] = 1
    return torch.from_numpy(pixels), kinds, colours, figure, torch.from_numpy(corners.reshape(len(drawn), -1))


def loss_of(
    model: Mistral3ForConditionalGeneration, heads: Heads, batch: Batch, alone: bool = False
) -> tuple[Tensor, float, float]:
    """Return the loss of a batch, and the shares of kinds and of colours told right; `alone`: only heads learn."""
    pixels, kinds, colours, cells, corners = batch
    with batched_forward.precision():
        patches = batched_forward.patch_features(model, pixels)
        tokens = batched_forward.project(
            model, patches, pixels.shape[2] // batched_forward.PATCH, pixels.shape[3] // batched_forward.PATCH
        )
        if alone:
            patches, tokens = patches.detach(), tokens.detach()
        scores = [score.float() for score in heads(patches, tokens)]
    figure, patch_colour, patch_kind, corner, kind, colour = scores
    named, covered = colours >= 0, cells.mean(-1)
    inside, touched = (covered > 0.5) & named[:, None], covered > 0.1
    loss = (
        F.cross_entropy(kind, kinds)
        + F.cross_entropy(colour[named], colours[named])
        + F.binary_cross_entropy_with_logits(figure, cells)
        + 4 * F.binary_cross_entropy_with_logits(corner, corners)
        + 0.5 * F.cross_entropy(patch_colour[inside], colours[:, None].expand_as(covered)[inside])
        + 0.5 * F.cross_entropy(patch_kind[touched], kinds[:, None].expand_as(covered)[touched])
    )
    right_kinds, right_colours = kind.argmax(1) == kinds, (colour.argmax(1) == colours)[named]
    return loss, float(right_kinds.float().mean()), float(right_colours.float().mean())
