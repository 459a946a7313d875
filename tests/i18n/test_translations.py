"""Every language has all texts in the right form; `make translations` lists what is missing."""

import pytest

from magistral_ui.i18n import texts as i18n
from magistral_ui.i18n.languages import LANGUAGES, offered
from magistral_ui.i18n.texts import text_in, to_translate, translated
from tests.i18n import translations
from tests.i18n.translations import faults, missing


@pytest.mark.parametrize("code", LANGUAGES)
def test_no_text_is_missing(code: str) -> None:
    """A language that lacks a text is not offered, so a new English text needs all 24."""
    assert missing(code) == []


def test_all_languages_are_offered() -> None:
    assert list(offered()) == list(LANGUAGES)


def test_a_missing_text_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translations, "translated", lambda code: {"page_title": "a"})
    assert "turn_copy" in missing("de")
    assert "page_title" not in missing("de")


@pytest.mark.parametrize("code", LANGUAGES)
def test_texts_have_the_placeholders_and_the_plural_forms_of_their_language(code: str) -> None:
    assert faults(code) == []


@pytest.mark.parametrize("code", LANGUAGES)
def test_texts_are_translated_and_not_left_in_english(code: str) -> None:
    english = to_translate("en")
    longer = [key for key, text in english.items() if isinstance(text, str) and text.count(" ") >= 3]
    assert longer
    same = [key for key in longer if code != "en" and translated(code).get(key) == english[key]]
    assert same == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ({"one": "{count} ora", "other": "{count} ore"}, "instead of one few other"),
        ({"one": "o oră", "few": "{number} ore", "other": "{count} de ore"}, "has the placeholders"),
        ({"one": "o oră", "few": "{count} ore", "other": " "}, "is empty"),
        ("{count} ore", "plural forms in only one"),
    ],
)
def test_a_faulty_text_is_found(monkeypatch: pytest.MonkeyPatch, text: i18n.Text, fault: str) -> None:
    texts: dict[str, dict[str, i18n.Text]] = {"en": {"hours": {"one": "{count} h", "other": "{count} h"}}}
    texts["ro"] = {"hours": text}
    monkeypatch.setattr(translations, "to_translate", lambda code: texts[code])
    monkeypatch.setattr(translations, "translated", lambda code: texts[code])
    monkeypatch.setattr(translations, "_twice", lambda code: [])
    (told,) = {each.split(":")[0] for each in faults("ro")}
    assert told == "hours"
    assert fault in "\n".join(faults("ro"))


def test_a_text_is_filled_in_the_language_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {
        "one": "{count} сообщение",
        "few": "{count} сообщения",
        "many": "{count} сообщений",
        "other": "{count} сообщения",
    }
    monkeypatch.setattr(i18n, "strings", lambda code: {"messages": few})
    filled = [text_in("ru", "messages", count=count) for count in (1, 3, 5, 21)]
    assert filled == ["1 сообщение", "3 сообщения", "5 сообщений", "21 сообщение"]
