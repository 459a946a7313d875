"""Labels that Gradio's own components show in the visitor's language; everything else is written by our JavaScript."""

import json

import gradio as gr
from gradio.i18n import I18nData

from magistral_ui.ui.i18n import DEFAULT, strings

LANGUAGES = (DEFAULT,)


def translations() -> gr.I18n:
    """The texts for `launch(i18n=…)`, in all languages that there are."""
    plain = {lang: {k: v for k, v in strings(lang).items() if isinstance(v, str)} for lang in LANGUAGES}
    return gr.I18n(**plain)


def label(key: str) -> I18nData:
    """The text `key`, to be put in by the browser."""
    return I18nData(key)


def strings_script(language: str = DEFAULT) -> str:
    """An element for the page's head that holds the texts for our JavaScript."""
    # "<" must not end the script element from inside a text.
    data = json.dumps({"language": language, "texts": strings(language)}, ensure_ascii=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="magistral-strings">{data}</script>'
