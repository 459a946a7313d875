"""Looks up texts for people by key, in one JSON file per language; knows nothing about where they are shown."""

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

from magistral_ui.client import CLIENT
from magistral_ui.errors import Message, Value
from magistral_ui.i18n.plurals import category

DEFAULT_LANGUAGE = "en"
PLACEHOLDER = re.compile(r"\{(\w+)\}")
Text = str | dict[str, str]
"""A text, or its plural forms by CLDR category (`one`, `other`, …), chosen by the value `count` or else `limit`."""
COMMAND_LINE_PREFIXES = ("app_", "flag_", "plan_", "space_", "error_space_")
"""Prefixes of keys that only the command line shows, which is in English."""
PROGRAM_PREFIXES = ("program_", "error_program_")
"""Prefixes of keys that only programs get, in English like the documentation."""
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
"""Errors that end the app before there is a page, so the command line shows them too."""


@cache
def translated(language: str) -> Mapping[str, Text]:
    """The texts of `language` itself; none if it has no file."""
    file = resources.files("magistral_ui.i18n") / "locales" / f"{language}.json"
    found: dict[str, Text] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


@cache
def strings(language: str = DEFAULT_LANGUAGE) -> Mapping[str, Text]:
    """All texts of `language`, with English for those that are missing, so that no key is ever shown."""
    return {**translated(DEFAULT_LANGUAGE), **translated(language)}


def for_pages(language: str) -> Mapping[str, Text]:
    """The texts that a page may need: those to translate."""
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
    # A placeholder without a value stays visible: the sentence still helps.
    return PLACEHOLDER.sub(lambda match: str(values.get(match[1], match[0])), found)


def sentence(message: Message, language: str = DEFAULT_LANGUAGE) -> str:
    """The text of an error with its remedy; a general one if the key is unknown."""
    name = f"error_{message.key}"
    return text_in(language, name if name in strings() else "error_unexpected", **message.values)


def sentence_for_client(message: Message) -> str:
    """The same in the language of the client whose request is being served."""
    return sentence(message, CLIENT.get().find_language() or DEFAULT_LANGUAGE)
