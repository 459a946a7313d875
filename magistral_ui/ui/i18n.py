"""Reads the sentences for people by key, from one JSON file per language; it does not know where they are shown."""

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

from magistral_ui.errors import MagistralUIError, Value

DEFAULT = "en"
GAP = re.compile(r"\{(\w+)\}")
Text = str | dict[str, str]
"""A text, or its plural forms by CLDR category (`one`, `other`, …), chosen by the value `count` or else `limit`."""


@cache
def strings(language: str = DEFAULT) -> Mapping[str, Text]:
    """All texts of `language` by key."""
    file = resources.files("magistral_ui.ui") / "locales" / f"{language}.json"
    found: dict[str, Text] = json.loads(file.read_text(encoding="utf-8"))
    return found


def text(key: str, /, **values: Value) -> str:
    """The text `key` in the default language with its gaps filled; KeyError where there is none."""
    found = strings()[key]
    if isinstance(found, dict):
        found = found["one" if values.get("count", values.get("limit")) == 1 else "other"]
    # A gap that nothing fills stays visible: a sentence with a hole still helps.
    return GAP.sub(lambda gap: str(values.get(gap[1], gap[0])), found)


def sentence(key: str, /, **values: Value) -> str:
    """What to tell about the error `key`, remedy included; the general sentence where the key is not known."""
    name = f"error_{key}"
    return text(name if name in strings() else "error_unexpected", **values)


def sentence_of(error: MagistralUIError) -> str:
    """What to tell about `error`, remedy included."""
    return sentence(error.sentence_key, **error.values)
