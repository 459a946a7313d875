"""CLDR plural categories of whole numbers; knows nothing about the texts.

Rules for cardinals: https://www.unicode.org/cldr/charts/latest/supplemental/language_plural_rules.html. Browsers have
the same rules in Intl.PluralRules; a browser test compares the two.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

Rule = Callable[[int], str]


def _other(_: int) -> str:
    return "other"


def _one(n: int) -> str:
    return "one" if n == 1 else "other"


def _zero_and_one(n: int) -> str:
    return "one" if n in (0, 1) else "other"


def _one_and_millions(n: int) -> str:
    return "many" if n and n % 1_000_000 == 0 else _one(n)


def _low_and_millions(n: int) -> str:
    return "many" if n and n % 1_000_000 == 0 else _zero_and_one(n)


def _east_slavic(n: int) -> str:
    if n % 10 == 1 and n % 100 != 11:
        return "one"
    return "few" if n % 10 in (2, 3, 4) and n % 100 not in (12, 13, 14) else "many"


def _serbian(n: int) -> str:
    form = _east_slavic(n)
    return "other" if form == "many" else form


def _polish(n: int) -> str:
    if n == 1:
        return "one"
    return "few" if n % 10 in (2, 3, 4) and n % 100 not in (12, 13, 14) else "many"


def _romanian(n: int) -> str:
    if n == 1:
        return "one"
    return "few" if n == 0 or 1 <= n % 100 <= 19 else "other"


def _arabic(n: int) -> str:
    if n < 3:
        return ("zero", "one", "two")[n]
    if 3 <= n % 100 <= 10:
        return "few"
    return "many" if n % 100 >= 11 else "other"


_FORMS: Mapping[str, tuple[Rule, str]] = MappingProxyType(
    {
        "ar": (_arabic, "zero one two few many other"),
        "bn": (_zero_and_one, "one other"),
        "es": (_one_and_millions, "one many other"),
        "fa": (_zero_and_one, "one other"),
        "fr": (_low_and_millions, "one many other"),
        "hi": (_zero_and_one, "one other"),
        "id": (_other, "other"),
        "it": (_one_and_millions, "one many other"),
        "ja": (_other, "other"),
        "ko": (_other, "other"),
        "ms": (_other, "other"),
        "pl": (_polish, "one few many other"),
        "pt": (_low_and_millions, "one many other"),
        "ro": (_romanian, "one few other"),
        "ru": (_east_slavic, "one few many other"),
        "sr": (_serbian, "one few other"),
        "uk": (_east_slavic, "one few many other"),
        "vi": (_other, "other"),
        "zh": (_other, "other"),
    }
)
_USUAL: tuple[Rule, str] = (_one, "one other")


def categories(language: str) -> tuple[str, ...]:
    """The plural categories of `language`, including those that only fractions take."""
    return tuple(_FORMS.get(language, _USUAL)[1].split())


def category(language: str, count: int) -> str:
    return _FORMS.get(language, _USUAL)[0](abs(count))
