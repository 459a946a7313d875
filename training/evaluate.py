"""Measure the demo model on conversations, pairs of numbers and pictures that training never saw.

    python -m training.evaluate [--count 400] [--dtype float32] [--temperature 0.7] [--show]

prints Markdown tables. An answer counts as right only if it is the expected answer to the letter.
"""

import argparse
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import torch

from training import dataset, drawings, exercises, sums
from training.blank_model import FOLDER
from training.dataset import Conversation, Turn
from training.speaker import Speaker
from training.unseen import unseen
from training.wording import LANGUAGES, say

Item = TypeVar("Item")
BATCH = 32
BUDGETS = (0, 1, 2, 5, 10, 20, 40, 80)
LATE = 20  # sums in a long conversation
Case = tuple[Conversation, str]  # what is asked (the last turn's reply is the expected one), and its group


def alone(turn: Turn) -> Conversation:
    """Return a turn as a conversation of its own."""
    return Conversation(dataset.SYSTEM_PROMPT, (turn,))


def worked(language: str) -> Callable[[random.Random], Case]:
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
    return _image(drawings.figure(rng), rng, "pictures: one figure")


def plain(rng: random.Random) -> Case:
    """Show a picture of one colour."""
    return _image(drawings.plain(rng), rng, "pictures: one colour")


def scenes(rng: random.Random) -> Case:
    """Show what cannot be named."""
    return _image(drawings.scene(rng), rng, "pictures: too much to name")


def _image(image: drawings.Drawing, rng: random.Random, group: str) -> Case:
    turn = dataset.image_turn("en", rng, count=1)
    reasoning, answer = dataset.described((image,), "en")
    return alone(replace(turn, images=(image,), reasoning=reasoning, answer=answer)), group


def several(count: int) -> Callable[[random.Random], Case]:
    """Return a maker of messages with so many figures."""

    def make(rng: random.Random) -> Case:
        turn = dataset.image_turn("en", rng, count)
        shown = tuple(drawings.figure(rng) for _ in range(count))
        reasoning, answer = dataset.described(shown, "en")
        return alone(replace(turn, images=shown, reasoning=reasoning, answer=answer)), f"{count} pictures at once"

    return make


def image_again(rng: random.Random) -> Case:
    """Ask again about a figure shown before."""
    first = replace(dataset.image_turn("en", rng, count=1), images=(drawings.figure(rng),))
    reasoning, answer = dataset.described(first.images, "en")
    first = replace(first, reasoning=reasoning, answer=answer)
    again = dataset.image_again(first, "en", rng)
    return Conversation(dataset.SYSTEM_PROMPT, (first, again)), "follow-ups of a picture"


def edited(rng: random.Random) -> Case:
    """Let the model answer from reasoning whose result a person changed."""
    language = rng.choice(LANGUAGES)
    turn = dataset.sum_turn(language, rng, held_out=True)
    return Conversation(
        dataset.SYSTEM_PROMPT, (exercises.overruled(turn, language, rng),)
    ), "reasoning that was changed"


def gone_on(rng: random.Random) -> Case:
    """Let the model think on from the beginning of its reasoning, or from what a person wrote."""
    language = rng.choice(LANGUAGES)
    turn = dataset.sum_turn(language, rng, held_out=True)
    return Conversation(
        dataset.SYSTEM_PROMPT, (exercises.begun(turn, language, rng),)
    ), "reasoning that is gone on with"


def made(make: Callable[[str, random.Random], Turn], group: str) -> Callable[[random.Random], Case]:
    """Return a maker of turns of one kind in any language."""
    return lambda rng: (alone(make(rng.choice(LANGUAGES), rng)), group)


SETS: tuple[tuple[Callable[[random.Random], Case], float], ...] = (
    *((worked(language), 1.0 if language == "en" else 0.5) for language in LANGUAGES),
    (follow_ups, 0.5),
    (late_sums, 0.25),
    (figures, 1.0),
    (plain, 0.25),
    (scenes, 0.25),
    *((several(count), 0.25 if count == 2 else 0.12) for count in range(2, dataset.MOST_SHOWN + 1)),
    (image_again, 0.25),
    (edited, 0.25),
    (gone_on, 0.25),
    (made(dataset.other_turn, "anything else: says that it cannot"), 0.75),
    (made(dataset.social_turn, "greetings, thanks, who are you"), 0.25),
    (made(dataset.no_image_turn, "a question about no picture"), 0.15),
    (made(dataset.counting_turn, "counting"), 0.15),
)


def honest(turn: Turn, answer: str) -> str:
    """Tell what an answer is worth whose reasoning was ended early: `right`, `near`, `far` (but honest), or `wrong`."""
    assert turn.numbers is not None
    a, b, minus = turn.numbers
    if answer == sums.answer(a, b, minus):
        return "right"
    for language in LANGUAGES:
        frame = say(language)["unfinished"].format(x=f"{a} {'-' if minus else '+'} {b}", y="Y", r="R")
        found = re.fullmatch(re.escape(frame).replace("Y", "[-+()=:, 0-9]+").replace("R", r"(-?\d+)"), answer)
        if found:
            value = sums.result(a, b, minus)
            return "near" if abs(int(found[1]) - value) <= max(10, abs(value) // 10) else "far"
    return "wrong"


def in_batches(items: Sequence[Item], size: int = BATCH) -> Iterator[Sequence[Item]]:
    """Yield the items some at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def closings(speaker: Speaker, count: int, only: str, show: bool) -> None:
    """Print what sums come to whose reasoning is ended after so many tokens, in each language."""
    marks: dict[str, Counter[str]] = defaultdict(Counter)
    for language in LANGUAGES:
        rng = random.Random(f"closed {count}")
        asked = [alone(dataset.sum_turn(language, rng, held_out=True)) for _ in range(count)]
        for batch in in_batches(asked if only in "closed early" else []):
            for conversation, answers in zip(batch, speaker.budgeted(batch, BUDGETS), strict=True):
                turn = conversation.turns[-1]
                for budget, answer in zip(BUDGETS, answers, strict=True):
                    worth = honest(turn, answer)
                    for group in (f"closed after {budget} tokens", f"closed early, {language}"):
                        marks[group][worth] += 1
                    if show and worth in ("far", "wrong"):
                        print(f"closed after {budget}, {worth}: {turn.text!r}\n  {answer!r} for {turn.result}")
    print("\n| reasoning ended early | right or honest | right | near | of |\n|---|---|---|---|---|")
    for group in sorted(marks, key=lambda name: (not name.startswith("closed after"), len(name), name)):
        found = marks[group]
        total = found.total()
        shares = (100 * n / total for n in (total - found["wrong"], found["right"], found["right"] + found["near"]))
        print(f"| {group} | {' | '.join(f'{share:.1f} %' for share in shares)} | {total} |")


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
    order = sorted(cases, key=lambda case: (sum(len(t.answer) for t in case[0].turns), len(case[0].turns[0].images)))
    score: dict[str, list[bool]] = {group: [] for _, group in cases}
    for closed in (False, True):
        chosen = [case for case in order if (case[0].turns[-1].closed is not None) == closed]
        for batch in in_batches(chosen):
            asked = [conversation for conversation, _ in batch]
            answers = speaker.answers(asked) if closed else [answer for _, answer in speaker.replies(asked)]
            for (conversation, group), answer in zip(batch, answers, strict=True):
                turn = conversation.turns[-1]
                score[group].append(answer == turn.answer)
                if len(turn.images) > 1:
                    told = turn.answer.partition("\n")[0]
                    score.setdefault(f"{group}: how many", []).append(answer.startswith(f"{told}\n"))
                if options.show and not score[group][-1]:
                    print(f"{group}: {turn.text!r}\n  {answer!r} for {turn.answer!r}")
    print("| what | right | of |\n|---|---|---|")
    for group, marks in score.items():
        print(f"| {group} | {100 * sum(marks) / len(marks):.1f} % | {len(marks)} |")
    closings(speaker, max(10, options.count // 4), options.only, options.show)


if __name__ == "__main__":
    main()
