"""Labels that Gradio's own components show in the visitor's language; everything else is written by our JavaScript."""

import re

from gradio.i18n import I18nData

from magistral_ui.i18n.texts import for_pages

LABELLED = re.compile(r"page_\w+|\w+_heading")
"""The keys that `label` may be asked for: a page carries their texts in its first bytes."""


def label(key: str) -> I18nData:
    """The text `key`, to be put in by the browser; KeyError for one that a page does not carry."""
    if not LABELLED.fullmatch(key):
        raise KeyError(key)
    return I18nData(key)


def labels(language: str) -> dict[str, str]:
    """The texts of all labels in `language`."""
    found = for_pages(language).items()
    return {key: text for key, text in found if isinstance(text, str) and LABELLED.fullmatch(key)}
