"""Which language a visitor gets, from what the browser asks for and what they chose."""

import pytest

from magistral_ui.i18n import languages
from magistral_ui.i18n.languages import LANGUAGES, language_for, offered


@pytest.fixture
def all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every language had all its texts."""
    monkeypatch.setattr(languages, "offered", lambda: LANGUAGES)


@pytest.mark.usefixtures("all_there")
@pytest.mark.parametrize(
    ("accepted", "code"),
    [
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("pt-BR", "pt"),
        ("zh-Hant-TW, zh;q=0.5", "zh"),
        ("sr-Latn-RS", "sr"),
        ("nb-NO, nb;q=0.9, no;q=0.8, nn;q=0.7", "en"),
        ("nb, sv;q=0.5, en;q=0.4", "sv"),
        ("en;q=0.1, fr;q=0.7, it;q=0.9", "it"),
        ("fr;q=0, es;q=0.1", "es"),
        ("in", "id"),
        ("FA", "fa"),
        ("*", "en"),
        ("", "en"),
        ("de;q=high, ;;, q=1", "en"),
        ("xx," * 1_000 + "de", "en"),
    ],
)
def test_the_browsers_languages_are_gone_through_in_their_order(accepted: str, code: str) -> None:
    assert language_for(None, accepted).code == code


@pytest.mark.usefixtures("all_there")
def test_the_visitors_choice_comes_first_where_there_is_such_a_language() -> None:
    assert language_for("ja", "de").code == "ja"
    assert language_for("xx", "de").code == "de"
    assert language_for("../en", "").code == "en"


def test_a_language_that_lacks_a_text_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "en": {"page_title": "a", "turn_copy": "b"},
        "de": {"page_title": "a"},
        "fr": {"page_title": "a", "turn_copy": "b"},
    }
    monkeypatch.setattr(languages, "for_pages", lambda code: texts[code])
    monkeypatch.setattr(languages, "translated", lambda code: texts.get(code, {}))
    offered.cache_clear()
    try:
        assert list(offered()) == ["en", "fr"]
        assert language_for("de", "de, fr;q=0.2").code == "fr"
    finally:
        offered.cache_clear()


def test_only_arabic_and_persian_are_written_from_right_to_left() -> None:
    assert {each.code for each in LANGUAGES.values() if each.direction == "rtl"} == {"ar", "fa"}


def test_there_are_the_24_languages_of_the_model() -> None:
    assert set(LANGUAGES) == {
        *("ar", "bn", "de", "en", "es", "fa", "fr", "hi", "id", "it", "ja", "ko"),
        *("ms", "ne", "pl", "pt", "ro", "ru", "sr", "sv", "tr", "uk", "vi", "zh"),
    }
