"""Looks up texts by key, in one JSON file per language, and their plural forms; it does not know where they are shown.

Plural rules for cardinals: https://www.unicode.org/cldr/charts/latest/supplemental/language_plural_rules.html. Browsers have
the same rules in Intl.PluralRules; a browser test compares the two.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType

from magistral_ui.errors import Message, Value

DEFAULT_LANGUAGE = "en"
PLACEHOLDER = re.compile(r"\{(\w+)\}")
Text = str | dict[str, str]
"""A text, or its plural forms by CLDR category (`one`, `other`, …), chosen by the value `count` or else `limit`."""
COMMAND_LINE_PREFIXES = ("app_", "flag_", "plan_", "space_", "error_space_")
"""Prefixes of keys that only the command line shows, which is in English."""
PROGRAM_PREFIXES = ("program_", "error_program_")
"""Prefixes of keys that only programs get, in English like the documentation."""
DOCTOR_PREFIX = "doctor_"
"""Prefix of keys that only `app.py doctor` shows, which is in the terminal's language."""
_START_ERRORS = (
    "auth_needs_space bad_flag bad_setting base_url_missing port_in_use serve_error share_failed address_not_here "
    "address_not_spoken host_unknown not_listening port_forbidden auth_file_not_sound auth_names_alike auth_not_sound "
    "bad_proxies limits_no_object limits_not_read limits_not_sound limits_twice limits_unknown password_too_short "
    "password_too_long file_not_read file_not_text folder_unusable libraries_failed precision_not_for_gguf kv_type_needs_gguf"
)
START_ERROR_KEYS = frozenset(f"error_{key}" for key in _START_ERRORS.split())
"""Errors that end the app before there is a page, so the command line shows them, in English."""


@cache
def translated(language: str) -> Mapping[str, Text]:
    """The texts of `language` itself; empty if it has no file."""
    file = resources.files("magistral_ui.i18n") / "locales" / f"{language}.json"
    found: dict[str, Text] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


@cache
def strings(language: str = DEFAULT_LANGUAGE) -> Mapping[str, Text]:
    """All texts of `language`, in English if one is missing, so that no key is ever shown."""
    return {**translated(DEFAULT_LANGUAGE), **translated(language)}


def for_pages(language: str) -> Mapping[str, Text]:
    """The texts that a page may need."""
    return {key: text for key, text in to_translate(language).items() if not key.startswith(DOCTOR_PREFIX)}


def to_translate(language: str) -> Mapping[str, Text]:
    """The texts that people get in their language: those of the page and of the doctor."""
    found = strings(language).items()
    return {
        key: text
        for key, text in found
        if not key.startswith(COMMAND_LINE_PREFIXES + PROGRAM_PREFIXES) and key not in START_ERROR_KEYS
    }


def text(key: str, /, **values: Value) -> str:
    """The text `key` in the default language with its placeholders filled; KeyError if there is none."""
    return text_in(DEFAULT_LANGUAGE, key, **values)


def text_in(language: str, key: str, /, **values: Value) -> str:
    found = strings(language)[key]
    if isinstance(found, dict):
        count = values.get("count", values.get("limit"))
        found = found.get(category(language, count) if isinstance(count, int) else "other", found["other"])
    # A placeholder without a value stays visible: the text still helps.
    return PLACEHOLDER.sub(lambda match: str(values.get(match[1], match[0])), found)


def sentence(message: Message, language: str = DEFAULT_LANGUAGE) -> str:
    """The text of an error with its remedy; a general one if the key is unknown."""
    name = f"error_{message.key}"
    return text_in(language, name if name in strings() else "error_unexpected", **message.values)


def sentence_for_client(message: Message) -> str:
    """The same in the language of the client whose request is being served."""
    from magistral_ui.client import CLIENT  # late: the doctor needs texts also where a library of that module is broken

    return sentence(message, CLIENT.get().find_language() or DEFAULT_LANGUAGE)


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
    return "few" if _east_slavic(n) == "few" else "many"


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


_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **dict.fromkeys(("id", "ja", "ko", "ms", "vi", "zh"), _other),
        **dict.fromkeys(("bn", "fa", "hi"), _zero_and_one),
        **dict.fromkeys(("es", "it"), _one_and_millions),
        **dict.fromkeys(("fr", "pt"), _low_and_millions),
        **dict.fromkeys(("ru", "uk"), _east_slavic),
        "ar": _arabic,
        "pl": _polish,
        "ro": _romanian,
        "sr": _serbian,
    }
)


def category(language: str, count: int) -> str:
    return _RULES.get(language, _one)(abs(count))
