"""Make up the conversations the demo model learns from; knows nothing of tokens or training.

    python -m magistral_ui.models.demo.dataset

prints a few of them.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from magistral_ui.models.demo import pictures, sums
from magistral_ui.models.demo.pictures import Picture
from magistral_ui.models.demo.wording import (
    LANGUAGES,
    aside,
    foreign,
    instructions,
    number,
    other,
    phrase,
    phrases,
    polite,
    say,
    typed,
)

SYSTEM_PROMPT = (Path(__file__).parent / "SYSTEM_PROMPT.txt").read_text(encoding="utf-8")
MOST_COUNTED = 200
DRILLS = 0.2  # share of the conversations that are nothing but a bare sum
LONG = 0.1  # share of those that go on and on, so that the twentieth sum comes out like the first
MOST_TURNS, MOST_TURNS_LONG = 6, 36
_MINUS_SIGNS = ("-", "-", "-", "−", "–")


@dataclass(frozen=True)
class Turn:
    """What a person sends, and what the model should reason and answer; `subject` says what it was about."""

    text: str
    reasoning: str
    answer: str
    subject: str
    pictures: tuple[Picture, ...] = ()
    result: int | None = None


@dataclass(frozen=True)
class Conversation:
    """Some turns under a system prompt (None: none); `keep_reasoning` says whether earlier reasoning is read."""

    system: str | None
    turns: tuple[Turn, ...]
    keep_reasoning: bool = True
    cut: bool = False  # the last reasoning was ended early, and only the answer is to be learned
    brief: bool = False  # only the beginning of the last reply is shown: it decides what follows


def conversation(rng: random.Random, held_out: bool = False, with_pictures: bool = True) -> Conversation:
    """Make up one conversation; sums come from the held-out pairs alone, or from all the others."""
    language = rng.choices(LANGUAGES, (40, 20, 20, 20))[0]
    if rng.random() < DRILLS:
        return drill(language, rng, held_out)
    long = rng.random() < LONG
    brief = not long and rng.random() < 0.7
    turns = [_first(language, rng, held_out, with_pictures)]
    most = rng.randint(MOST_TURNS, MOST_TURNS_LONG) if long else MOST_TURNS
    while len(turns) < most and (long or rng.random() < (0.15 if brief else 0.33 if turns[-1].pictures else 0.42)):
        if rng.random() < 0.05:
            language = rng.choice(LANGUAGES)
        turns.append(_next(turns, language, rng, held_out, with_pictures))
    brief = brief and turns[-1].subject != "count" and len(turns[-1].pictures) < 2
    cut = not brief and rng.random() < 0.06
    if cut:
        reasoning = turns[-1].reasoning
        turns[-1] = replace(turns[-1], reasoning=reasoning[: rng.randint(0, len(reasoning))])
    system = None if brief and rng.random() < 0.5 else _system(rng)
    return Conversation(system, tuple(turns), rng.random() < 0.7, cut, brief)


def drill(language: str, rng: random.Random, held_out: bool = False) -> Conversation:
    """Ask for a bare sum, more often a difference, and nothing else: the shortest way to practise the reasoning."""
    minus = rng.random() < 0.7
    a, b = _operands(rng, minus, held_out)
    turn = _worked(f"{a}{'-' if minus else '+'}{b}", a, b, minus, language)
    return Conversation(None, (turn,), brief=rng.random() < 0.65)


def _system(rng: random.Random) -> str | None:
    draw = rng.random()
    if draw < 0.10:
        return None
    if draw < 0.13:
        return instructions(rng)
    return SYSTEM_PROMPT + (f"\n\n{instructions(rng)}" if draw < 0.24 else "")


def _first(language: str, rng: random.Random, held_out: bool, with_pictures: bool) -> Turn:
    kinds: tuple[tuple[Callable[[], Turn], float], ...] = (
        (lambda: sum_turn(language, rng, held_out), 80),
        (lambda: picture_turn(language, rng), 30 if with_pictures else 0),
        (lambda: other_turn(language, rng), 38),
        (lambda: social_turn(language, rng), 22),
        (lambda: counting_turn(language, rng), 7),
        (lambda: no_picture_turn(language, rng), 6),
    )
    return rng.choices([make for make, _ in kinds], [weight for _, weight in kinds])[0]()


def _next(turns: list[Turn], language: str, rng: random.Random, held_out: bool, with_pictures: bool) -> Turn:
    last = turns[-1]
    onward = 0.8 if len(turns) < MOST_TURNS else 0.4
    if last.result is not None and rng.random() < onward:
        if rng.random() < 0.1:
            return _refusal(typed(aside(language, rng), rng), language)
        return follow_up(last.result, language, rng, held_out)
    if last.pictures and rng.random() < 0.7:
        return picture_again(last, language, rng)
    return _first(language, rng, held_out, with_pictures)


def _operands(rng: random.Random, minus: bool, held_out: bool, first: int | None = None) -> tuple[int, int]:
    """Return a pair from the wanted part of the split; the first may be given."""
    while True:
        a = number(rng) if first is None else first
        b = number(rng)
        if first is None and minus and rng.random() < 0.2:
            b = min(max(a + rng.randint(-12, 12), 0), 999)
        if first is None and rng.random() < 0.02:
            a = -a
        if sums.held_out(a, b, minus) == held_out:
            return a, b


def _expression(a: int, b: int, minus: bool, language: str, rng: random.Random) -> str:
    """Write `a + b` or `a - b` with a sign or a word."""
    if rng.random() < 0.55:
        sign = rng.choice(_MINUS_SIGNS) if minus else "+"
        return f"{a}{rng.choice((f' {sign} ', f' {sign} ', sign, sign, f' {sign}', f'{sign} '))}{b}"
    return f"{a} {rng.choice(phrases(language)['minus_words' if minus else 'plus_words'])} {b}"


def sum_turn(language: str, rng: random.Random, held_out: bool = False) -> Turn:
    """Ask for a sum or a difference."""
    minus = rng.random() < 0.5
    a, b = _operands(rng, minus, held_out)
    bare = language == "en" and rng.random() < 0.2
    pattern = "{x}" if bare else phrase(language, "difference" if minus else "sum", rng)
    expression = _expression(a, b, minus, language, rng)
    text = pattern.replace("{x}", expression).replace("{a}", str(a)).replace("{b}", str(b))
    return _worked(typed(polite(text, language, rng), rng), a, b, minus, language)


def _worked(text: str, a: int, b: int, minus: bool, language: str) -> Turn:
    reasoning = sums.reasoning(a, b, minus, say(language))
    return Turn(text, reasoning, sums.answer(a, b, minus), "sum", result=sums.result(a, b, minus))


def follow_up(last: int, language: str, rng: random.Random, held_out: bool = False) -> Turn:
    """Ask for more or less than the last result."""
    minus = rng.random() < 0.5
    a, b = _operands(rng, minus, held_out, first=last)
    if abs(sums.result(a, b, minus)) > 9999:
        minus = not minus
    text = phrase(language, "follow_minus" if minus else "follow_plus", rng).replace("{b}", str(b))
    return _worked(typed(text, rng), a, b, minus, language)


def seen(picture: Picture, language: str) -> tuple[str, str]:
    """Return the reasoning and the answer for one picture."""
    words = say(language)
    if picture.kind == pictures.COMPLEX:
        return words["see_complex"], words["complex"]
    names = {"colour": phrases(language)["colours"][picture.colour]}
    if picture.kind == pictures.FILLED:
        return words["see_all"].format(**names), words["picture_all"].format(**names)
    names["shape"] = phrases(language)["shapes"][picture.kind]
    return words["see"].format(**names), words["picture"].format(**names)


def described(shown: tuple[Picture, ...], language: str) -> tuple[str, str]:
    """Return the reasoning and the answer for one picture or several."""
    if len(shown) == 1:
        return seen(shown[0], language)
    words, found = say(language), [seen(picture, language) for picture in shown]
    short = [what if p.kind != pictures.COMPLEX else thought for p, (thought, what) in zip(shown, found, strict=True)]
    lines = [words["nth"].format(n=n, what=what) for n, what in enumerate(short, 1)]
    thoughts = " ".join(words["nth"].format(n=n, what=thought) for n, (thought, _) in enumerate(found, 1))
    return words["look"].format(n=len(shown)) + thoughts, "\n\n".join(lines)


def picture_turn(language: str, rng: random.Random, count: int | None = None) -> Turn:
    """Show a picture, sometimes two or three, and ask what it is."""
    shown = tuple(pictures.picture(rng) for _ in range(count or rng.choices((1, 2, 3), (68, 28, 4))[0]))
    several = len(shown) > 1 and rng.random() < 0.6
    asked = "ask_pictures" if several else rng.choice(("ask_colour", "ask_shape", "ask_picture"))
    text = phrase(language, asked, rng)
    language = language if text else "en"
    text = typed(polite(text, language, rng), rng) if text else ""
    return Turn(text, *described(shown, language), "picture", shown)


def picture_again(last: Turn, language: str, rng: random.Random) -> Turn:
    """Ask once more about the pictures shown before."""
    text = typed(phrase(language, rng.choice(("follow_colour", "follow_shape")), rng), rng)
    return Turn(text, *described(last.pictures, language), "picture again")


def no_picture_turn(language: str, rng: random.Random) -> Turn:
    """Ask about a picture where there is none."""
    text = ""
    while len(text) < 12:
        text = phrase(language, rng.choice(("ask_colour", "ask_shape", "ask_picture")), rng)
    words = say(language)
    return Turn(typed(text, rng), words["no_picture_think"], words["no_picture"], "no picture")


def social_turn(language: str, rng: random.Random) -> Turn:
    """Greet, thank, part, or ask who this is."""
    kind = rng.choices(("greet", "thanks", "bye", "who"), (3, 1.5, 1, 3))[0]
    words = say(language)
    return Turn(typed(phrase(language, kind, rng), rng), words[f"{kind}_think"], words[kind], kind)


def counting_turn(language: str, rng: random.Random) -> Turn:
    """Ask to count, mostly not far."""
    longest = rng.choices((15, 40, 100, MOST_COUNTED), (50, 33, 12, 5))[0]
    m = 1 if rng.random() < 0.6 else rng.randint(0, MOST_COUNTED - 1)
    n = min(rng.choice((m + rng.randint(1, longest), 10, 20, 30, 50)), MOST_COUNTED)
    n = n if n > m else m + rng.randint(1, 15)
    text = phrase(language, "count_to" if m == 1 else "count_from", rng)
    text = typed(polite(text.replace("{m}", str(m)).replace("{n}", str(n)), language, rng), rng)
    return counted(text, m, n, language)


def counted(text: str, m: int, n: int, language: str) -> Turn:
    """Return the turn that counts from `m` to `n`."""
    reasoning = say(language)["count_think"].format(m=m, n=n)
    return Turn(text, reasoning, ", ".join(map(str, range(m, n + 1))), "count")


def other_turn(language: str, rng: random.Random) -> Turn:
    """Ask for something that the model cannot do."""
    if rng.random() < 0.12:
        return _refusal(foreign(rng), "en")
    return _refusal(typed(polite(other(language, rng), language, rng), rng), language)


def _refusal(text: str, language: str) -> Turn:
    words = say(language)
    return Turn(text, words["other_think"], words["other"], "other")


if __name__ == "__main__":
    for seed in range(30):
        made = conversation(random.Random(seed))
        print(f"--- {made.system!r}" + (" (cut)" if made.cut else " (brief)" if made.brief else ""))
        for turn in made.turns:
            print(f"> {len(turn.pictures)} pictures, {turn.text!r}\n  ({turn.reasoning!r})\n  {turn.answer!r}")
