"""Turn phrase patterns into the many ways people type; knows nothing of what the phrases mean."""

import json
import random
import re
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

PHRASES = Path(__file__).parent / "phrases"
PAGE = (
    Path(__file__).parents[1] / "magistral_ui" / "i18n" / "locales"
)  # what the page says, as sentences in 24 languages
LANGUAGES = ("en", "fr", "de", "es")
_INVENTED = 0.15  # share of made-up words, so that a request is known by its form and not by its nouns …
_BORROWED = 0.06  # … and of words of another language
_ONSETS = (*"bcdfghjklmnprstvwz", "br", "ch", "cl", "dr", "fl", "gr", "pl", "sh", "st", "th", "tr")
_SYLLABLE = (_ONSETS, "aeiou", ("", "", "l", "n", "r", "s", "t"))
_CHOICE = re.compile(r"\[([^\[\]]*)\]")


@cache
def phrases(name: str) -> dict[str, Any]:
    """Return one of the JSON files in `phrases/`."""
    found: dict[str, Any] = json.loads((PHRASES / f"{name}.json").read_text(encoding="utf-8"))
    return found


def expand(pattern: str, rng: random.Random) -> str:
    """Choose one of the alternatives in every `[a|b|]`."""
    return _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), pattern)


def phrase(language: str, key: str, rng: random.Random) -> str:
    """Return one way to say what a key of a language's phrases stands for."""
    return expand(rng.choice(phrases(language)[key]), rng)


def say(language: str) -> dict[str, str]:
    """Return what the model itself says in a language."""
    found: dict[str, str] = phrases(language)["say"]
    return found


def polite(text: str, language: str, rng: random.Random) -> str:
    """Add a greeting before or a thanks after, now and then."""
    if rng.random() < 0.10:
        text = rng.choice(phrases(language)["polite_before"]) + text
    if rng.random() < 0.2:
        text = (text.rstrip("?!. ") if rng.random() < 0.5 else text) + rng.choice(phrases(language)["polite_after"])
        text += rng.choice(("", "", "?", ".", "!"))
    return text


def typed(text: str, rng: random.Random) -> str:
    """Write a phrase as people do: capitals or none, missing accents, slips, stray spaces."""
    draw = rng.random()
    if draw < 0.45:
        text = text[:1].upper() + text[1:]
    elif draw < 0.65:
        text = text.lower()
    elif draw < 0.74:
        text = text.upper()
    if rng.random() < 0.08:
        text = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
    if rng.random() < 0.06:
        text = _slip(text, rng)
    if rng.random() < 0.04:
        text = text.rstrip("?!. ")
    if rng.random() < 0.04:
        text = rng.choice((f" {text}", f"{text} ", f"{text}\n", f"{text}?", f"{text}!!", text.replace(" ", "  ", 1)))
    return text


def _slip(text: str, rng: random.Random) -> str:
    """Drop, double or swap one letter inside a word."""
    places = [i for i in range(1, len(text) - 1) if text[i - 1 : i + 2].isalpha()]
    if not places:
        return text
    at = rng.choice(places)
    kind = rng.randrange(3)
    if kind == 0:
        return text[:at] + text[at + 1 :]
    if kind == 1:
        return text[:at] + text[at] + text[at:]
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def number(rng: random.Random) -> int:
    """Return a number of one to three digits, each length often enough."""
    return rng.randint(0, (9, 9, 99, 99, 999, 999, 999)[rng.randrange(7)])


def other(language: str, rng: random.Random) -> str:
    """Return something that the model cannot do."""
    draw, templates = rng.random(), phrases("other")[language]["templates"]
    if draw < 0.12:  # with numbers, as sums have them
        templates = [template for template in templates if re.search(r"\{[abdAB]\}", template)]
    if draw < 0.66:
        return fill(rng.choice(templates), language, rng)
    if draw < 0.76:
        return rng.choice(sentences(language))
    if draw < 0.80:
        return _salad(language, rng.randint(1, 30), rng)
    if draw < 0.90 or language != "en":
        lines = [fill(rng.choice(templates), language, rng) for _ in range(rng.randint(2, 4))]
        return rng.choice((" ", "\n", ". ", "\n\n")).join(lines)
    if draw < 0.95:
        text = topics[rng.choice(sorted(topics))]
        start = rng.randrange(max(1, len(text) - 200))
        return text[start : start + rng.choice((60, 150, 300, 300, 900))].strip() or "x"
    letters = rng.choice(("abcdefghijklmnopqrstuvwxyz ", "!?#$%&/()=*+-_ ", "0123456789 ,.;:-", "aeiou bcdfg 0123"))
    return "".join(rng.choice(letters) for _ in range(rng.randint(1, 25))).strip() or "?"


def foreign(rng: random.Random) -> str:
    """Return text in another script or language, code, or signs."""
    if rng.random() < 0.35:
        unspoken = sorted(path.stem for path in PAGE.glob("*.json") if path.stem not in LANGUAGES)
        return rng.choice(sentences(rng.choice(unspoken)))
    found: str = rng.choice(phrases("other")["foreign"])
    return found


@cache
def sentences(language: str) -> list[str]:
    """Return what the page says in a language, where it is long enough to tell the language by."""
    page: dict[str, Any] = json.loads((PAGE / f"{language}.json").read_text(encoding="utf-8"))
    texts = [re.sub(r"\{\w*\}", "5", text) for text in page.values() if isinstance(text, str)]
    return [text for text in texts if 12 <= len(text) <= 160 and (" " in text or not text.isascii())]


def aside(language: str, rng: random.Random) -> str:
    """Return a follow-up that the model cannot do, such as "times 3"."""
    pattern: str = rng.choice(phrases("other")["follow"][language])
    return pattern.replace("{d}", str(rng.randint(2, 99)))


def instructions(rng: random.Random) -> str:
    """Return custom instructions that someone may add to the system prompt."""
    lines = [fill(rng.choice(phrases("other")["instructions"]), "en", rng) for _ in range(rng.randint(1, 3))]
    return rng.choice((" ", "\n")).join(lines)


def fill(pattern: str, language: str, rng: random.Random) -> str:
    """Choose alternatives and fill the slots of a pattern of `other.json`."""
    words = phrases("other")[language]
    makers: dict[str, Callable[[], str]] = {
        "{n}": lambda: _thing(language, rng),
        "{m}": lambda: _salad(language, 1, rng),
        "{f}": lambda: _borrowed(language, rng.choice((1, 2, 3)), rng),
        "{s}": lambda: rng.choice(sentences(language)),
        "{c}": lambda: rng.choice(words["places"]),
        "{p}": lambda: rng.choice(words["people"]),
        "{v}": lambda: rng.choice(words["verbs"]),
        "{a}": lambda: str(number(rng)),
        "{b}": lambda: str(number(rng)),
        "{d}": lambda: str(rng.randint(2, 99)),
        "{A}": lambda: str(rng.randint(1000, rng.choice((9999, 99999, 10**7)))),
        "{B}": lambda: str(rng.randint(1000, rng.choice((9999, 99999)))),
    }
    return re.sub(r"\{.\}", lambda match: makers[match[0]](), expand(pattern, rng))


def _thing(language: str, rng: random.Random) -> str:
    """Return what a request may be about: mostly some nouns, or a word that nobody knows."""
    draw = rng.random()
    if draw < _INVENTED:
        syllables = ("".join(rng.choice(part) for part in _SYLLABLE) for _ in range(rng.randint(2, 3)))
        return "".join(syllables).capitalize() if rng.random() < 0.3 else "".join(syllables)
    if draw < _INVENTED + _BORROWED:
        return _borrowed(language, 1, rng)
    return _salad(language, rng.choice((1, 1, 1, 2, 3)), rng)


def _borrowed(language: str, length: int, rng: random.Random) -> str:
    return _salad(rng.choice([other for other in LANGUAGES if other != language]), length, rng)


def _salad(language: str, length: int, rng: random.Random) -> str:
    return " ".join(rng.choices(phrases("other")[language]["nouns"].split(), k=length))
