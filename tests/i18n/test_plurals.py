"""Plural forms of whole numbers, on examples of CLDR's charts; a browser test compares all with Intl.PluralRules."""

import pytest

from magistral_ui.i18n.languages import LANGUAGES
from magistral_ui.i18n.texts import category
from tests.i18n.translations import categories


@pytest.mark.parametrize(
    ("language", "forms"),
    [
        ("en", {1: "one", 0: "other", 2: "other", 1_000_000: "other"}),
        ("fr", {0: "one", 1: "one", 2: "other", 1_000_000: "many", 1_000_001: "other"}),
        ("es", {0: "other", 1: "one", 2_000_000: "many"}),
        ("ja", {0: "other", 1: "other"}),
        ("pl", {1: "one", 3: "few", 13: "many", 21: "many", 22: "few", 112: "many"}),
        ("ru", {1: "one", 11: "many", 21: "one", 24: "few", 112: "many"}),
        ("sr", {1: "one", 2: "few", 5: "other", 12: "other", 101: "one"}),
        ("ro", {0: "few", 1: "one", 19: "few", 20: "other", 101: "few"}),
        ("ar", {0: "zero", 1: "one", 2: "two", 3: "few", 11: "many", 100: "other", 103: "few", 111: "many"}),
        ("hi", {0: "one", 1: "one", 2: "other"}),
    ],
)
def test_a_number_takes_its_form(language: str, forms: dict[int, str]) -> None:
    assert {count: category(language, count) for count in forms} == forms


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_form_is_one_that_the_language_has(language: str) -> None:
    taken = {category(language, count) for count in (*range(1_200), 1_000_000)}
    # In some languages only fractions take the form "other".
    assert taken <= set(categories(language)) <= taken | {"other"}
