"""Checks the form of the translations, language by language, not whether they read well.

`make translations` prints the faults; test_translations.py fails on them.
"""

import json
import sys
from collections.abc import Mapping
from importlib import resources

from magistral_ui.i18n.languages import LANGUAGES
from magistral_ui.i18n.texts import DEFAULT_LANGUAGE, PLACEHOLDER, Text, to_translate, translated

_CATEGORIES = {
    "ar": "zero one two few many other",
    **dict.fromkeys(("es", "fr", "it", "pt"), "one many other"),
    **dict.fromkeys(("id", "ja", "ko", "ms", "vi", "zh"), "other"),
    **dict.fromkeys(("pl", "ru", "uk"), "one few many other"),
    **dict.fromkeys(("ro", "sr"), "one few other"),
}


def categories(language: str) -> tuple[str, ...]:
    """The plural categories of `language` in CLDR, including those that only fractions take."""
    return tuple(_CATEGORIES.get(language, "one other").split())


def missing(language: str) -> list[str]:
    """The keys that have no text in `language`."""
    return [key for key in to_translate(DEFAULT_LANGUAGE) if key not in translated(language)]


def faults(language: str) -> list[str]:
    """The faults of the existing texts, one line each."""
    english, found = to_translate(DEFAULT_LANGUAGE), translated(language)
    told = [f"{key} is not a key in en.json" for key in found if key not in translated(DEFAULT_LANGUAGE)]
    for key, text in found.items():
        if key in english:
            told += [f"{key}: {each}" for each in _faults_of(language, english[key], text)]
    return told + [f"{key} is there twice" for key in _twice(language)]


def _faults_of(language: str, english: Text, text: Text) -> list[str]:
    if isinstance(text, dict) != isinstance(english, dict):
        return ["has plural forms in only one of the two languages"]
    told = []
    if isinstance(text, dict) and set(text) != set(categories(language)):
        told.append(f"has the plural forms {' '.join(text)} instead of {' '.join(categories(language))}")
    for form, each in _forms(text).items():
        told += [f"{form} {fault}".strip() for fault in _faults_of_form(english, each)]
    return told


def _faults_of_form(english: Text, text: str) -> list[str]:
    told = []
    found = set(PLACEHOLDER.findall(text))
    wanted = {name for each in _forms(english).values() for name in PLACEHOLDER.findall(each)}
    # Plural forms may spell out the number, or leave it out: "Deleted."
    optional = {"count", "limit"} if isinstance(english, dict) else set()
    if not wanted - optional <= found <= wanted:
        told.append(f"has the placeholders {sorted(found)}, while English has {sorted(wanted)}")
    if not text.strip() or text != text.strip():
        told.append("is empty, or starts or ends with a space")
    return told


def _forms(text: Text) -> Mapping[str, str]:
    return text if isinstance(text, dict) else {"": text}


def _twice(language: str) -> list[str]:
    file = resources.files("magistral_ui.i18n") / "locales" / f"{language}.json"
    told: list[str] = []

    def pairs(found: list[tuple[str, object]]) -> dict[str, object]:
        keys = [key for key, _ in found]
        told.extend(key for key in set(keys) if keys.count(key) > 1)
        return dict(found)

    json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=pairs)
    return told


def main() -> int:
    """Print what is missing or wrong in each language; return 1 if anything is."""
    found = 0
    for code, language in LANGUAGES.items():
        lacking = missing(code)
        told = [f"lacks {' '.join(lacking)}"] if lacking else []
        told += faults(code) if translated(code) else []
        found += len(told)
        for each in told:
            print(f"{code} ({language.name}): {each}")
    print(f"{len(to_translate(DEFAULT_LANGUAGE))} texts, {len(LANGUAGES)} languages: {found or 'no'} faults")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
