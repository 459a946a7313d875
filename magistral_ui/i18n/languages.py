"""The page's languages, and which one a visitor gets; of the texts, it only knows whether any are missing."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Literal

from magistral_ui.i18n.texts import DEFAULT_LANGUAGE, for_pages, translated

LANGUAGE_COOKIE = "magistral-ui-language"
"""The cookie with the visitor's choice, written by assets/language.js."""
MAX_ACCEPT_LANGUAGE_LENGTH = 1_000


@dataclass(frozen=True, slots=True)
class Language:
    """One language: `code` names its JSON file, `tag` is its BCP 47 tag for HTML and Intl."""

    code: str
    name: str
    """Its name in the language itself."""
    tag: str
    right_to_left: bool = False

    @property
    def direction(self) -> Literal["ltr", "rtl"]:
        return "rtl" if self.right_to_left else "ltr"


# The 24 languages of Magistral's model cards, in the order of the picker: by script, then by name.
_NAMES = {
    "id": "Bahasa Indonesia",
    "ms": "Bahasa Melayu",
    "de": "Deutsch",
    "en": "English",
    "es": "Español",
    "fr": "Français",
    "it": "Italiano",
    "pl": "Polski",
    "pt": "Português",
    "ro": "Română",
    "sv": "Svenska",
    "vi": "Tiếng Việt",
    "tr": "Türkçe",
    "ru": "Русский",
    "sr": "Српски",
    "uk": "Українська",
    "ar": "العربية",
    "fa": "فارسی",
    "ne": "नेपाली",
    "hi": "हिन्दी",
    "bn": "বাংলা",
    "zh": "简体中文",
    "ja": "日本語",
    "ko": "한국어",
}
_TAGS = {"zh": "zh-CN"}
LANGUAGES: Mapping[str, Language] = MappingProxyType(
    {code: Language(code, name, _TAGS.get(code, code), code in ("ar", "fa")) for code, name in _NAMES.items()}
)
# Other codes that browsers send for a language, and languages whose speakers can read it easily.
OTHER_NAMES = MappingProxyType({"in": "id", "mo": "ro", "prs": "fa", "gsw": "de"})


@cache
def offered() -> Mapping[str, Language]:
    """The languages that visitors can get: those without missing texts."""
    wanted = for_pages(DEFAULT_LANGUAGE).keys()
    return MappingProxyType({code: each for code, each in LANGUAGES.items() if wanted <= translated(code).keys()})


def language_for(chosen: str | None, accepted: str) -> Language:
    """The visitor's choice, or else the first language of the Accept-Language header that is offered, or else English."""
    found = offered()
    if chosen and chosen in found:
        return found[chosen]
    for tag in _by_preference(accepted[:MAX_ACCEPT_LANGUAGE_LENGTH]):
        code = tag.split("-")[0].lower()
        code = OTHER_NAMES.get(code, code)
        if code in found:
            return found[code]
    return found[DEFAULT_LANGUAGE]


def _by_preference(header: str) -> list[str]:
    """The language tags of an Accept-Language header (RFC 9110, 12.5.4), by descending weight."""
    wanted = []
    for part in header.split(","):
        tag, _, weight = part.partition(";")
        try:
            value = float(weight.strip().removeprefix("q=")) if weight else 1.0
        except ValueError:
            continue
        if value > 0 and tag.strip():
            wanted.append((value, tag.strip()))
    return [tag for _, tag in sorted(wanted, key=lambda each: -each[0])]
