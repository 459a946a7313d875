"""Reads the sentences for people by key, from one JSON file per language; it does not know where they are shown."""

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

from magistral_ui.client import CLIENT
from magistral_ui.errors import Message, Value
from magistral_ui.i18n.plurals import category

DEFAULT_LANGUAGE = "en"
GAP = re.compile(r"\{(\w+)\}")
Text = str | dict[str, str]
"""A text, or its plural forms by CLDR category (`one`, `other`, …), chosen by the value `count` or else `limit`."""
COMMAND_LINE_PREFIXES = ("app_", "flag_", "plan_", "space_", "error_space_")
"""What the keys begin with that only the command line shows; it speaks English."""
PROGRAM_PREFIXES = ("program_", "error_program_")
"""What the keys begin with that only programs get; they read English, like the documentation."""
START_ERROR_KEYS = frozenset(
    f"error_{key}"
    for key in (
        *(
            "auth_needs_space",
            "bad_flag",
            "bad_setting",
            "base_url_missing",
            "port_in_use",
            "serve_error",
            "share_failed",
        ),
        *("address_not_here", "address_not_spoken", "host_unknown", "not_listening", "port_forbidden"),
        *("auth_file_not_sound", "auth_names_alike", "auth_not_sound", "bad_proxies"),
        *("limits_no_object", "limits_not_read", "limits_not_sound", "limits_twice", "limits_unknown"),
        *("password_too_short", "password_too_long"),
        *("file_not_read", "file_not_text", "folder_unusable", "libraries_failed"),
    )
)
"""The keys of what ends the app before there is a page: the command line says these too."""


@cache
def translated(language: str) -> Mapping[str, Text]:
    """What there is in `language` itself, by key; nothing where it has no file."""
    file = resources.files("magistral_ui.i18n") / "locales" / f"{language}.json"
    found: dict[str, Text] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


@cache
def strings(language: str = DEFAULT_LANGUAGE) -> Mapping[str, Text]:
    """All texts of `language` by key; what it lacks is English, so that no key is ever shown."""
    return {**translated(DEFAULT_LANGUAGE), **translated(language)}


def for_pages(language: str) -> Mapping[str, Text]:
    """The texts that a page may need, which are those to translate."""
    found = strings(language).items()
    return {
        key: text
        for key, text in found
        if not key.startswith(COMMAND_LINE_PREFIXES + PROGRAM_PREFIXES) and key not in START_ERROR_KEYS
    }


def text(key: str, /, **values: Value) -> str:
    """The text `key` in the default language with its gaps filled; KeyError where there is none."""
    return text_in(DEFAULT_LANGUAGE, key, **values)


def text_in(language: str, key: str, /, **values: Value) -> str:
    """The text `key` in `language`, likewise."""
    found = strings(language)[key]
    if isinstance(found, dict):
        count = values.get("count", values.get("limit"))
        found = found.get(category(language, count) if isinstance(count, int) else "other", found["other"])
    # A gap that nothing fills stays visible: a sentence with a hole still helps.
    return GAP.sub(lambda gap: str(values.get(gap[1], gap[0])), found)


def sentence(message: Message, language: str = DEFAULT_LANGUAGE) -> str:
    """What an error's message says, remedy included; a general sentence where its key is unknown."""
    name = f"error_{message.key}"
    return text_in(language, name if name in strings() else "error_unexpected", **message.values)


def sentence_for_client(message: Message) -> str:
    """The same in the language of whoever makes the request that is being served."""
    return sentence(message, CLIENT.get().find_language() or DEFAULT_LANGUAGE)
