"""Train the demo model on made-up conversations, on one CPU core; goes on where it was stopped.

    python -m magistral_ui.models.demo.warm_up --minutes 25
    python -m magistral_ui.models.demo.train --minutes 45

It keeps build/demo/checkpoint.pt, writes what it has to build/demo/model every few minutes, and the
finished weights into this folder.
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

from magistral_ui.models.demo import forward, heads
from magistral_ui.models.demo.blank import FOLDER
from magistral_ui.models.demo.dataset import conversation
from magistral_ui.models.demo.encoding import Encoder, Sample
from magistral_ui.models.demo.optimizers import optimizers, set_rate

BUILD = Path("build/demo")
CHECKPOINT = BUILD / "checkpoint.pt"
RATE = 1.5e-3
POOL = 768  # conversations sorted by length together
BATCH_TOKENS = 4200
LONGEST = 1300
AVERAGING = 0.98
SAVE_SECONDS = 120
PAD = 11
IMAGE = 10
FILES = ("SYSTEM_PROMPT.txt", "tekken.json", "config.json", "generation_config.json")


def batches(rng: random.Random, encoder: Encoder) -> Iterator[list[Sample]]:
    """Yield batches of samples of like length, without end."""
    while True:
        pool = [encoder.encode(conversation(rng)) for _ in range(POOL)]
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
    with torch.autocast("cpu", torch.bfloat16):
        embedded = table(ids)
        shown = [picture for sample in batch for picture in sample.pictures]
        if shown:
            features = torch.cat(forward.picture_tokens(model, shown))
            embedded = embedded.masked_scatter((ids == IMAGE)[..., None], features.to(embedded.dtype))
        hidden = forward.hidden_states(model, embedded)
        learned = weights[:, 1:] > 0
        logits = hidden[:, :-1][learned] @ table.weight.T
    target, weight = ids[:, 1:][learned], weights[:, 1:][learned]
    loss = (F.cross_entropy(logits.float(), target, reduction="none") * weight).sum() / weight.sum()
    return loss, float((logits.argmax(-1) == target).float().mean())


def rate_at(step: int, done: float) -> float:
    """Return the learning rate: a short rise, a plateau, and a long fall."""
    fall = 1.0 if done < 0.35 else 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * (done - 0.35) / 0.65))
    return RATE * min(1.0, (step + 1) / 150) * fall


def export(model: nn.Module, averaged: dict[str, torch.Tensor], folder: Path) -> None:
    """Write the averaged weights in bf16 beside the files of this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    copy: Any = deepcopy(model)
    copy.load_state_dict(averaged)
    copy.to(torch.bfloat16).save_pretrained(folder)
    for name in FILES:
        if folder != FOLDER:
            shutil.copy(FOLDER / name, folder / name)


def main() -> None:
    """Train until the minutes are spent, those of earlier runs included."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=45)
    budget = parser.parse_args().minutes * 60
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = forward.load(str(FOLDER))
    parts = model.model
    readers = heads.Heads(model.config.vision_config.hidden_size, model.config.text_config.hidden_size)
    tuners = optimizers(
        [(parts.language_model, 1.0), (parts.vision_tower, 0.8), (parts.multi_modal_projector, 0.8), (readers, 0.8)]
    )
    step, spent = 0, 0.0
    if CHECKPOINT.exists():
        saved = torch.load(CHECKPOINT)
        model.load_state_dict(saved["model"])
        readers.load_state_dict(saved["heads"])
        averaged, step, spent = saved["averaged"], saved["step"], saved["spent"]
        for tuner, state in zip(tuners, saved["tuners"], strict=True):
            shares = [group["share"] for group in tuner.param_groups]
            tuner.load_state_dict(state)
            for group, share in zip(tuner.param_groups, shares, strict=True):
                group["share"] = share
    else:
        warm = torch.load(BUILD / "vision.pt")
        parts.vision_tower.load_state_dict(warm["vision"])
        parts.multi_modal_projector.load_state_dict(warm["projector"])
        readers.load_state_dict(warm["heads"])
        averaged = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
    rng = random.Random(f"training from step {step}")
    figures = heads.batches(rng, lambda: 0.0)
    last, saved_at, recent = time.time(), time.time(), []
    for batch in batches(rng, Encoder(FOLDER)):
        now = time.time()
        spent, last = spent + now - last, now
        if spent > budget:
            break
        set_rate(tuners, rate_at(step, spent / budget))
        for tuner in tuners:
            tuner.zero_grad()
        loss, right = loss_of(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        figure_loss, kinds, colours = heads.loss_of(model, readers, next(figures))
        (0.3 * figure_loss).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        nn.utils.clip_grad_norm_(readers.parameters(), 1.0)
        for tuner in tuners:
            tuner.step()
        step += 1
        decay = min(AVERAGING, step / (step + 20))
        with torch.no_grad():
            for name, weight in model.state_dict().items():
                averaged[name].lerp_(weight, 1 - decay)
        recent.append((loss.item(), right, kinds, colours, sum(len(s.tokens) for s in batch)))
        if step % 100 == 0:
            means = " ".join(f"{sum(values) / len(values):.4f}" for values in zip(*recent, strict=True))
            print(f"{step} {spent:.0f}s loss, right, kinds, colours, tokens {means}", flush=True)
            recent = []
        if now - saved_at > SAVE_SECONDS:
            saved_at = now
            save(model, readers, averaged, tuners, step, spent)
    save(model, readers, averaged, tuners, step, spent)
    export(model, averaged, FOLDER)


def save(
    model: nn.Module,
    readers: nn.Module,
    averaged: dict[str, torch.Tensor],
    tuners: list[torch.optim.Optimizer],
    step: int,
    spent: float,
) -> None:
    """Keep everything needed to go on, and a model folder to try."""
    state = {
        "model": model.state_dict(),
        "heads": readers.state_dict(),
        "averaged": averaged,
        "tuners": [tuner.state_dict() for tuner in tuners],
        "step": step,
        "spent": spent,
    }
    torch.save(state, CHECKPOINT.with_suffix(".new"))
    CHECKPOINT.with_suffix(".new").replace(CHECKPOINT)
    export(model, averaged, BUILD / "model")


if __name__ == "__main__":
    main()
