"""Train the demo model on made-up conversations, on one CPU core; goes on where it was stopped.

    python -m training.warm_up --minutes 25
    python -m training.train --minutes 45

Without what either of them left in build/demo, it trains this folder's weights on. It keeps
build/demo/checkpoint.pt, writes what it has to build/demo/model every few minutes, and the finished weights
into this folder.
"""

import argparse
import math
import random
import shutil
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Mistral3ForConditionalGeneration

from training import batched_forward, heads
from training.blank_model import FOLDER
from training.exercises import practice
from training.optimizers import optimizers, set_rate
from training.samples import Encoder, Sample

BUILD = Path("build/demo")
CHECKPOINT = BUILD / "checkpoint.pt"
RATE = 1e-3
POOL = 768  # conversations sorted by length together
BATCH_TOKENS = 3000
LONGEST = 4500  # with what is said before; longer ones are left out
AVERAGING = 0.99
FIGURES_EVERY = 6  # steps between batches of figures for the heads
SETTLING = 150  # steps in which new heads learn and the vision tower does not learn from them
SAVE_SECONDS = 120
PAD = 11
IMAGE = 10
FILES = ("SYSTEM_PROMPT.txt", "tekken.json", "config.json", "generation_config.json")


def batches(rng: random.Random, encoder: Encoder) -> Iterator[list[Sample]]:
    """Yield batches of samples of like length, without end."""
    while True:
        pool = [encoder.encode(practice(rng)) for _ in range(POOL)]
        pool = sorted((s for s in pool if len(s.tokens) <= LONGEST), key=lambda s: len(s.tokens))
        made: list[list[Sample]] = [[]]
        for sample in pool:
            if (len(made[-1]) + 1) * len(sample.tokens) > BATCH_TOKENS:
                made.append([])
            made[-1].append(sample)
        rng.shuffle(made)
        yield from made


def loss_of(model: Mistral3ForConditionalGeneration, batch: list[Sample]) -> tuple[torch.Tensor, float]:
    """Return the weighted loss of a batch and the share of its tokens guessed right."""
    length = max(len(sample.tokens) for sample in batch)
    ids = torch.full((len(batch), length), PAD)
    weights = torch.zeros(len(batch), length)
    for row, sample in enumerate(batch):
        ids[row, : len(sample.tokens)] = torch.tensor(sample.tokens)
        weights[row, : len(sample.tokens)] = torch.tensor(sample.weights)
    table = model.model.language_model.embed_tokens
    with batched_forward.precision():
        embedded = table(ids)
        shown = [image for sample in batch for image in sample.images]
        if shown:
            features = torch.cat(batched_forward.image_tokens(model, shown))
            embedded = embedded.masked_scatter((ids == IMAGE)[..., None], features.to(embedded.dtype))
        hidden = batched_forward.hidden_states(model, embedded)
        learned = weights[:, 1:] > 0
        logits = hidden[:, :-1][learned] @ table.weight.T
    target, weight = ids[:, 1:][learned], weights[:, 1:][learned]
    loss = (F.cross_entropy(logits.float(), target, reduction="none") * weight).sum() / weight.sum()
    return loss, float((logits.argmax(-1) == target).float().mean())


def rate_at(step: int, done: float, most: float = RATE) -> float:
    """Return the learning rate: a short rise, a plateau, and a long fall."""
    fall = 1.0 if done < 0.35 else 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * (done - 0.35) / 0.65))
    return most * min(1.0, (step + 1) / 150) * fall


def export(model: nn.Module, averaged: dict[str, torch.Tensor], folder: Path) -> None:
    """Write the averaged weights in bf16 beside the files of this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    copy: Any = deepcopy(model)
    copy.load_state_dict(averaged)
    copy.to(torch.bfloat16).save_pretrained(folder)
    for name in FILES:
        if folder != FOLDER:
            shutil.copy(FOLDER / name, folder / name)


class Training:
    """A model on its way: its weights, their running average, the heads, the optimizers, and how far it is."""

    def __init__(self) -> None:
        self.model = batched_forward.load(str(FOLDER))
        sizes = self.model.config.vision_config.hidden_size, self.model.config.text_config.hidden_size
        self.heads = heads.Heads(*sizes)
        parts = self.model.model
        vision: list[nn.Module] = [parts.vision_tower, parts.multi_modal_projector, self.heads]
        self.tuners = optimizers([(parts.language_model, 1.0), *((part, 0.8) for part in vision)])
        self.step, self.spent, self.settling = 0, 0.0, SETTLING
        if CHECKPOINT.exists():
            self._resume(torch.load(CHECKPOINT))
            return
        if (BUILD / "vision.pt").exists():
            self.settling = 0
            warm = torch.load(BUILD / "vision.pt")
            for name, part in zip(("vision", "projector", "heads"), vision, strict=True):
                part.load_state_dict(warm[name])
        self.averaged = {name: weight.detach().clone() for name, weight in self.model.state_dict().items()}

    def _resume(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        self.heads.load_state_dict(saved["heads"])
        self.averaged, self.step, self.spent = saved["averaged"], saved["step"], saved["spent"]
        for tuner, state in zip(self.tuners, saved["tuners"], strict=True):
            shares = [group["share"] for group in tuner.param_groups]
            tuner.load_state_dict(state)
            for group, share in zip(tuner.param_groups, shares, strict=True):
                group["share"] = share

    def learn(self, batch: list[Sample], figures: Iterator[heads.Batch], rate: float) -> tuple[float, ...]:
        """Take one step; return the loss, the share of tokens guessed right, and the heads' shares where they ran."""
        set_rate(self.tuners, rate)
        for tuner in self.tuners:
            tuner.zero_grad()
        loss, right = loss_of(self.model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        seen: tuple[float, ...] = ()
        settling = self.step < self.settling
        if settling or self.step % FIGURES_EVERY == 0:
            figure_loss, *shares = heads.loss_of(self.model, self.heads, next(figures), alone=settling)
            seen = tuple(shares)
            (0.5 * figure_loss).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        nn.utils.clip_grad_norm_(self.heads.parameters(), 1.0)
        for tuner in self.tuners:
            tuner.step()
        self.step += 1
        decay = min(AVERAGING, self.step / (self.step + 20))
        with torch.no_grad():
            for name, weight in self.model.state_dict().items():
                self.averaged[name].lerp_(weight, 1 - decay)
        return loss.item(), right, *seen

    def save(self) -> None:
        """Keep everything needed to go on, and a model folder to try."""
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "averaged": self.averaged,
            "tuners": [tuner.state_dict() for tuner in self.tuners],
            "step": self.step,
            "spent": self.spent,
        }
        BUILD.mkdir(parents=True, exist_ok=True)
        torch.save(state, CHECKPOINT.with_suffix(".new"))
        CHECKPOINT.with_suffix(".new").replace(CHECKPOINT)
        export(self.model, self.averaged, BUILD / "model")


def main() -> None:
    """Train until the minutes are spent, those of earlier runs included."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--rate", type=float, default=RATE, help="the highest learning rate")
    chosen = parser.parse_args()
    budget = chosen.minutes * 60
    torch.set_num_threads(1)
    torch.manual_seed(0)
    training = Training()
    rng = random.Random(f"training from step {training.step}")
    figures = heads.batches(rng, lambda: 0.0)
    last = saved_at = time.time()
    recent: list[tuple[float, ...]] = []
    for batch in batches(rng, Encoder(FOLDER)):
        now = time.time()
        training.spent, last = training.spent + now - last, now
        if training.spent > budget:
            break
        recent.append(training.learn(batch, figures, rate_at(training.step, training.spent / budget, chosen.rate)))
        if training.step % 50 == 0:
            report(training, recent)
            recent = []
        if now - saved_at > SAVE_SECONDS:
            saved_at = now
            training.save()
    training.save()
    export(training.model, training.averaged, FOLDER)


def report(training: Training, recent: list[tuple[float, ...]]) -> None:
    """Print the means of the last steps."""
    loss, right = (sum(step[i] for step in recent) / len(recent) for i in (0, 1))
    looked = [step[2:] for step in recent if len(step) > 2]
    kinds, colours = (sum(step[i] for step in looked) / max(1, len(looked)) for i in (0, 1))
    print(
        f"{training.step} {training.spent:.0f}s loss {loss:.4f}; right: tokens {right:.4f}, kinds {kinds:.3f}, "
        f"colours {colours:.3f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
