"""Make up the conversations the demo model learns from; knows nothing of tokens or training."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from training import drawings, sums
from training.drawings import Drawing
from training.wording import (
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

SYSTEM_PROMPT = (Path(__file__).parents[1] / "magistral_ui" / "models" / "demo" / "SYSTEM_PROMPT.txt").read_text(
    encoding="utf-8"
)
MOST_COUNTED = 200
MOST_NAMED = 4  # of several pictures in one message; how many there are is told of all of them
MOST_SHOWN = 10  # in one message
LONG = 0.12  # share of the conversations that go on and on, so that the twentieth sum comes out like the first
MOST_TURNS, MOST_TURNS_LONG = 6, 36
_MINUS_SIGNS = ("-", "-", "-", "−", "–")


@dataclass(frozen=True)
class Turn:
    """What a person sends, and what the model should reason and answer; `subject` says what it was about."""

    text: str
    reasoning: str
    answer: str
    subject: str
    images: tuple[Drawing, ...] = ()
    result: int | None = None
    numbers: tuple[int, int, bool] | None = None  # of a sum: both, and whether the second is taken away
    given: str = ""  # what a person put in the place of the reasoning's beginning
    closed: int | None = None  # the characters after which the reasoning was ended; None: it came to its end


@dataclass(frozen=True)
class Conversation:
    """Some turns under a system prompt (None: none); `keep_reasoning` says whether earlier reasoning is read."""

    system: str | None
    turns: tuple[Turn, ...]
    keep_reasoning: bool = True
    brief: bool = False  # only the beginning of the last reply is shown: it decides what follows


def conversation(rng: random.Random, held_out: bool = False, with_images: bool = True) -> Conversation:
    """Make up one conversation as people have them; sums come from the held-out pairs alone, or from all the others."""
    language = any_language(rng)
    long = rng.random() < LONG
    brief = not long and rng.random() < 0.7
    turns = [first_turn(language, rng, held_out, with_images)]
    most = rng.randint(MOST_TURNS, MOST_TURNS_LONG) if long else MOST_TURNS
    while len(turns) < most and (long or rng.random() < (0.15 if brief else 0.33 if turns[-1].images else 0.42)):
        if rng.random() < 0.05:
            language = rng.choice(LANGUAGES)
        turns.append(next_turn(turns, language, rng, held_out, with_images))
    shown = len(turns[-1].images)
    brief = brief and turns[-1].subject != "count" and (shown < 2 or shown > MOST_NAMED)
    if not brief and rng.random() < 0.1:
        turns[-1] = closed(turns[-1], rng.randint(0, len(turns[-1].reasoning)), language)
    system = None if brief and rng.random() < 0.5 else system_prompt(rng)
    return Conversation(system, tuple(turns), rng.random() < 0.7, brief)


def numbers_of(turn: Turn) -> tuple[int, int, bool]:
    """Return the numbers of a sum, and whether the second is taken away."""
    assert turn.numbers is not None, "this is no sum"
    return turn.numbers


def closed(turn: Turn, cut: int, language: str) -> Turn:
    """End a turn's reasoning after `cut` characters."""
    if turn.numbers is None:
        return replace(turn, closed=cut)
    answer, number = sums.closed_early(*turn.numbers, cut, say(language))
    return replace(turn, answer=answer, result=number, closed=cut)


def system_prompt(rng: random.Random) -> str | None:
    """Return what stands above a conversation: mostly the model's own prompt, sometimes with a person's instructions."""
    draw = rng.random()
    if draw < 0.10:
        return None
    if draw < 0.13:
        return instructions(rng)
    return SYSTEM_PROMPT + (f"\n\n{instructions(rng)}" if draw < 0.24 else "")


def any_language(rng: random.Random) -> str:
    """Return one of the languages: English twice as often as each of the others."""
    return rng.choices(LANGUAGES, (40, 20, 20, 20))[0]


def first_turn(language: str, rng: random.Random, held_out: bool = False, with_images: bool = True) -> Turn:
    """Make up what a conversation may begin with."""
    kinds: tuple[tuple[Callable[[], Turn], float], ...] = (
        (lambda: sum_turn(language, rng, held_out), 80),
        (lambda: image_turn(language, rng), 30 if with_images else 0),
        (lambda: other_turn(language, rng), 38),
        (lambda: social_turn(language, rng), 22),
        (lambda: counting_turn(language, rng), 7),
        (lambda: no_image_turn(language, rng), 6),
    )
    return rng.choices([make for make, _ in kinds], [weight for _, weight in kinds])[0]()


def next_turn(
    turns: list[Turn], language: str, rng: random.Random, held_out: bool = False, with_images: bool = True
) -> Turn:
    """Make up what may follow some turns."""
    last = turns[-1]
    onward = 0.8 if len(turns) < MOST_TURNS else 0.4
    if last.result is not None and rng.random() < onward:
        if rng.random() < 0.1:
            return _refusal(typed(aside(language, rng), rng), language)
        return follow_up(last.result, language, rng, held_out)
    if last.images and rng.random() < 0.7:
        return image_again(last, language, rng)
    return first_turn(language, rng, held_out, with_images)


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


def bare_sum(minus: bool, rng: random.Random, held_out: bool = False) -> Turn:
    """Ask in signs alone: what has no language is answered in English."""
    a, b = _operands(rng, minus, held_out)
    return _worked(f"{a}{'-' if minus else '+'}{b}", a, b, minus, "en")


def sum_turn(language: str, rng: random.Random, held_out: bool = False, minus: bool | None = None) -> Turn:
    """Ask for a sum or a difference."""
    minus = rng.random() < 0.5 if minus is None else minus
    a, b = _operands(rng, minus, held_out)
    bare = language == "en" and rng.random() < 0.2
    pattern = "{x}" if bare else phrase(language, "difference" if minus else "sum", rng)
    expression = _expression(a, b, minus, language, rng)
    text = pattern.replace("{x}", expression).replace("{a}", str(a)).replace("{b}", str(b))
    return _worked(typed(polite(text, language, rng), rng), a, b, minus, language)


def _worked(text: str, a: int, b: int, minus: bool, language: str) -> Turn:
    reasoning = sums.reasoning(a, b, minus, say(language))
    value = sums.result(a, b, minus)
    return Turn(text, reasoning, sums.answer(a, b, minus), "sum", result=value, numbers=(a, b, minus))


def follow_up(last: int, language: str, rng: random.Random, held_out: bool = False) -> Turn:
    """Ask for more or less than the last result."""
    minus = rng.random() < 0.5
    a, b = _operands(rng, minus, held_out, first=last)
    if abs(sums.result(a, b, minus)) > 9999:
        minus = not minus
    text = phrase(language, "follow_minus" if minus else "follow_plus", rng).replace("{b}", str(b))
    return _worked(typed(text, rng), a, b, minus, language)


def seen(image: Drawing, language: str) -> tuple[str, str]:
    """Return the reasoning and the answer for one picture."""
    words = say(language)
    if image.kind == drawings.COMPLEX:
        return words["see_complex"], words["complex"]
    names = {"colour": phrases(language)["colours"][image.colour]}
    if image.kind == drawings.FILLED:
        return words["see_all"].format(**names), words["picture_all"].format(**names)
    names["shape"] = phrases(language)["shapes"][image.kind]
    return words["see"].format(**names), words["picture"].format(**names)


def described(shown: tuple[Drawing, ...], language: str) -> tuple[str, str]:
    """Return the reasoning and the answer for one picture or several, of which only the first are named."""
    if len(shown) == 1:
        return seen(shown[0], language)
    words, named = say(language), shown[:MOST_NAMED]
    found = [seen(image, language) for image in named]
    short = [what if p.kind != drawings.COMPLEX else thought for p, (thought, what) in zip(named, found, strict=True)]
    counted = words["these" if len(shown) == len(named) else "these_many"].format(n=len(shown), m=len(named))
    lines = [words["nth"].format(n=n, what=what) for n, what in enumerate(short, 1)]
    thoughts = " ".join(words["nth"].format(n=n, what=thought) for n, (thought, _) in enumerate(found, 1))
    return words["look"].format(n=len(shown)) + thoughts, "\n\n".join([counted, *lines])


def image_turn(language: str, rng: random.Random, count: int | None = None) -> Turn:
    """Show a picture, or several, and ask what it is."""
    many = rng.choices(range(1, MOST_SHOWN + 1), (50, 22, 7, 6, 4, 4, 3, 2, 1, 1))[0]
    return looked_at(tuple(drawings.image(rng) for _ in range(count or many)), language, rng)


def looked_at(shown: tuple[Drawing, ...], language: str, rng: random.Random) -> Turn:
    """Ask about some pictures."""
    several = len(shown) > 1 and rng.random() < 0.75
    asked = ("ask_pictures", "ask_many") if several else ("ask_colour", "ask_shape", "ask_picture")
    told = len(shown) if rng.random() < 0.6 else rng.randint(2, MOST_SHOWN)  # people miscount
    text = phrase(language, rng.choice(asked), rng).replace("{n}", str(told))
    language = language if text else "en"
    text = typed(polite(text, language, rng), rng) if text else ""
    return Turn(text, *described(shown, language), "picture", shown)


def image_again(last: Turn, language: str, rng: random.Random) -> Turn:
    """Ask once more about the pictures shown before."""
    text = typed(phrase(language, rng.choice(("follow_colour", "follow_shape")), rng), rng)
    return Turn(text, *described(last.images, language), "picture again")


def no_image_turn(language: str, rng: random.Random) -> Turn:
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


def counting_turn(language: str, rng: random.Random, far: bool = False) -> Turn:
    """Ask to count, mostly not far, or anywhere up to the most."""
    longest = rng.choices((15, 40, 100, MOST_COUNTED), (50, 33, 12, 5))[0]
    m = 1 if rng.random() < 0.6 else rng.randint(0, MOST_COUNTED - 1)
    n = min(rng.choice((m + rng.randint(1, longest), 10, 20, 30, 50)), MOST_COUNTED)
    n = n if n > m else m + rng.randint(1, 15)
    n = max(n, rng.choice((MOST_COUNTED, 100, rng.randint(1, MOST_COUNTED)))) if far else n
    text = phrase(language, "count_to" if m == 1 else "count_from", rng)
    text = typed(polite(text.replace("{m}", str(m)).replace("{n}", str(n)), language, rng), rng)
    return counted(text, m, n, language)


def counted(text: str, m: int, n: int, language: str) -> Turn:
    """Return the turn that counts from `m` to `n`."""
    reasoning = say(language)["count_think"].format(m=m, n=n)
    return Turn(text, reasoning, ", ".join(map(str, range(m, n + 1))), "count")


def other_turn(language: str, rng: random.Random) -> Turn:
    """Ask for something that the model cannot do."""
    if rng.random() < 0.2:
        return _refusal(foreign(rng), "en")
    return _refusal(typed(polite(other(language, rng), language, rng), rng), language)


def _refusal(text: str, language: str) -> Turn:
    words = say(language)
    return Turn(text, words["other_think"], words["other"], "other")
