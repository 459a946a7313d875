"""Measure the demo model on conversations, pairs of numbers and pictures that training never saw.

    python -m magistral_ui.models.demo.evaluate [--count 400] [--dtype float32] [--temperature 0.7] [--show]

prints a Markdown table. An answer counts as right only if it is the expected answer to the letter.
"""

import argparse
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from transformers import Mistral3ForConditionalGeneration

from magistral_ui.models.demo import dataset, pictures
from magistral_ui.models.demo.blank import FOLDER
from magistral_ui.models.demo.dataset import Conversation, Turn
from magistral_ui.models.demo.encoding import Encoder
from magistral_ui.models.demo.unseen import unseen
from magistral_ui.models.demo.wording import LANGUAGES

BATCH = 32
LATE = 20  # sums in a long conversation
Case = tuple[Conversation, str]  # what is asked (the last turn's reply is the expected one), and its group


def alone(turn: Turn) -> Conversation:
    """Return a turn as a conversation of its own."""
    return Conversation(dataset.SYSTEM_PROMPT, (turn,))


def sums(language: str) -> Callable[[random.Random], Case]:
    """Return a maker of held-out sums in a language."""
    return lambda rng: (alone(dataset.sum_turn(language, rng, held_out=True)), f"sums and differences, {language}")


def follow_ups(rng: random.Random) -> Case:
    """Ask one to three follow-ups; only the last is judged."""
    language = rng.choice(LANGUAGES)
    turns = [dataset.sum_turn(language, rng, held_out=True)]
    for _ in range(rng.randint(1, 3)):
        turns.append(dataset.follow_up(turns[-1].result or 0, language, rng, held_out=True))
    return Conversation(dataset.SYSTEM_PROMPT, tuple(turns), rng.random() < 0.5), "follow-ups of a sum"


def late_sums(rng: random.Random) -> Case:
    """Ask for the last of many sums, with all the earlier reasoning before it."""
    language = rng.choice(LANGUAGES)
    turns = tuple(dataset.sum_turn(language, rng, held_out=True) for _ in range(LATE))
    return Conversation(dataset.SYSTEM_PROMPT, turns), f"the {LATE}th sum of a conversation"


def figures(rng: random.Random) -> Case:
    """Show one figure."""
    return _picture(pictures.figure(rng), rng, "pictures: one figure")


def plain(rng: random.Random) -> Case:
    """Show a picture of one colour."""
    return _picture(pictures.plain(rng), rng, "pictures: one colour")


def scenes(rng: random.Random) -> Case:
    """Show what cannot be named."""
    return _picture(pictures.scene(rng), rng, "pictures: too much to name")


def _picture(picture: pictures.Picture, rng: random.Random, group: str) -> Case:
    turn = dataset.picture_turn("en", rng, count=1)
    reasoning, answer = dataset.described((picture,), "en")
    return alone(replace(turn, pictures=(picture,), reasoning=reasoning, answer=answer)), group


def two_pictures(rng: random.Random) -> Case:
    """Show two figures in one message."""
    shown = (pictures.figure(rng), pictures.figure(rng))
    reasoning, answer = dataset.described(shown, "en")
    return alone(Turn("What are these?", reasoning, answer, "picture", shown)), "two pictures at once"


def picture_again(rng: random.Random) -> Case:
    """Ask again about a figure shown before."""
    first = replace(dataset.picture_turn("en", rng, count=1), pictures=(pictures.figure(rng),))
    reasoning, answer = dataset.described(first.pictures, "en")
    first = replace(first, reasoning=reasoning, answer=answer)
    again = dataset.picture_again(first, "en", rng)
    return Conversation(dataset.SYSTEM_PROMPT, (first, again)), "follow-ups of a picture"


def made(make: Callable[[str, random.Random], Turn], group: str) -> Callable[[random.Random], Case]:
    """Return a maker of turns of one kind in any language."""
    return lambda rng: (alone(make(rng.choice(LANGUAGES), rng)), group)


SETS: tuple[tuple[Callable[[random.Random], Case], float], ...] = (
    *((sums(language), 1.0 if language == "en" else 0.5) for language in LANGUAGES),
    (follow_ups, 0.5),
    (late_sums, 0.25),
    (figures, 1.0),
    (plain, 0.25),
    (scenes, 0.25),
    (two_pictures, 0.25),
    (picture_again, 0.25),
    (made(dataset.other_turn, "anything else: says that it cannot"), 0.75),
    (made(dataset.social_turn, "greetings, thanks, who are you"), 0.25),
    (made(dataset.no_picture_turn, "a question about no picture"), 0.15),
    (made(dataset.counting_turn, "counting"), 0.15),
)


class Speaker:
    """Runs the model over batches of prompts."""

    def __init__(self, folder: str, dtype: torch.dtype, temperature: float) -> None:
        self.model = Mistral3ForConditionalGeneration.from_pretrained(folder, dtype=dtype)
        self.encoder = Encoder(FOLDER)
        self._sampling = {"do_sample": True, "temperature": temperature, "top_p": 0.95, "top_k": 0}
        if not temperature:
            self._sampling = {"do_sample": False}

    def replies(self, asked: list[Conversation]) -> list[tuple[str, str]]:
        """Return (reasoning, answer) of each; a reply that is not well formed has neither."""
        samples = [self.encoder.encode(c) for c in asked]
        end = self.encoder.mark("[/INST]")
        prompts = [s.tokens[: len(s.tokens) - s.tokens[::-1].index(end)] for s in samples]
        longest = max(map(len, prompts))
        ids = torch.full((len(prompts), longest), self.encoder.mark("<pad>"))
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        shown = [picture for sample in samples for picture in sample.pictures]
        extra = {}
        if shown:
            size = max(p.shape[1] for p in shown), max(p.shape[2] for p in shown)
            pixels = np.zeros((len(shown), 3, *size), np.float32)
            for row, picture in enumerate(shown):
                pixels[row, :, : picture.shape[1], : picture.shape[2]] = picture
            sizes = [p.shape[1:] for p in shown]
            extra = {"pixel_values": torch.from_numpy(pixels), "image_sizes": torch.tensor(sizes)}
        most = max(len(s.tokens) - len(p) for s, p in zip(samples, prompts, strict=True)) + 60
        mask = (ids != self.encoder.mark("<pad>")).long()
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=most, max_length=None, **extra, **self._sampling
            )
        return [self._parts(row[longest:].tolist()) for row in out]

    def _parts(self, tokens: list[int]) -> tuple[str, str]:
        begin, close, end = (self.encoder.mark(name) for name in ("[THINK]", "[/THINK]", "</s>"))
        if tokens[0] != begin or tokens.count(close) != 1 or end not in tokens:
            return "", ""
        middle, last = tokens.index(close), tokens.index(end)
        text = self.encoder.tokenizer.instruct_tokenizer.tokenizer.decode
        return text(tokens[1:middle]), text(tokens[middle + 1 : last])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(FOLDER))
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--only", default="", help="groups whose name contains this")
    parser.add_argument("--show", action="store_true", help="print every wrong answer")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    speaker = Speaker(options.model, getattr(torch, options.dtype), options.temperature)
    cases = [(alone(turn), f"written by hand: {turn.subject}") for turn in unseen()]
    for make, share in SETS:
        rng = random.Random(f"held out {options.count}")
        cases += [make(rng) for _ in range(max(10, round(options.count * share)))]
    cases = [case for case in cases if options.only in case[1]]
    order = sorted(range(len(cases)), key=lambda i: (sum(len(t.answer) for t in cases[i][0].turns), i))
    score: dict[str, list[bool]] = {group: [] for _, group in cases}
    for start in range(0, len(order), BATCH):
        batch = [cases[i] for i in order[start : start + BATCH]]
        for (asked, group), (reasoning, answer) in zip(batch, speaker.replies([c for c, _ in batch]), strict=True):
            expected = asked.turns[-1]
            score[group].append(answer == expected.answer)
            if options.show and not score[group][-1]:
                print(f"{group}: {expected.text!r}\n  {reasoning!r}\n  {answer!r} for {expected.answer!r}")
    print("| what | right | of |\n|---|---|---|")
    for group, marks in score.items():
        print(f"| {group} | {100 * sum(marks) / len(marks):.1f} % | {len(marks)} |")


if __name__ == "__main__":
    main()
