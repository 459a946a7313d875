"""Every error has its sentence, with a remedy to read and no gap that nothing fills."""

import re
from pathlib import Path

import pytest

from magistral_ui.errors import MagistralUIError, first_line
from magistral_ui.i18n.texts import strings

PACKAGE = Path(__file__).parents[1] / "magistral_ui"
RAISED = re.compile(r"\b(\w+)\(\s*\"(\w+)\"")


def tree(root: type[MagistralUIError]) -> list[type[MagistralUIError]]:
    return [root, *(each for child in root.__subclasses__() for each in tree(child))]


# What a part of the package raises for itself, under a key of these, is known here only where another test has imported it.
ERRORS = {error.__name__: error for error in tree(MagistralUIError) if error.__module__ == MagistralUIError.__module__}
MADE = [
    made
    for file in PACKAGE.rglob("*.py")
    if "node_modules" not in file.parts
    for made in RAISED.findall(file.read_text(encoding="utf-8"))
]
KEYS_IN_CODE = sorted({key for name, key in MADE if name in ERRORS or name in ("Failed", "Broken", "DecodingRefused")})
NOTICES = ("answered_now", "budget_spent", "loop_broken", "max_tokens_lowered")


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_each_error_has_a_sentence(error: type[MagistralUIError]) -> None:
    assert strings()[f"error_{error.key}"]


def test_no_two_errors_share_a_key() -> None:
    assert len({error.key for error in ERRORS.values()}) == len(ERRORS)


def test_the_search_for_keys_finds_some() -> None:
    assert "picture_too_many_pixels" in KEYS_IN_CODE


@pytest.mark.parametrize("key", KEYS_IN_CODE)
def test_each_key_that_is_raised_has_a_sentence(key: str) -> None:
    assert strings()[f"error_{key}"]


@pytest.mark.parametrize("key", NOTICES)
def test_each_notice_has_a_sentence(key: str) -> None:
    assert strings()[f"notice_{key}"]


@pytest.mark.parametrize("name", ERRORS)
def test_the_tree_in_the_docstring_is_the_tree(name: str) -> None:
    docstring = (PACKAGE / "errors.py").read_text(encoding="utf-8").split('"""')[1]
    assert re.search(rf"\b{name}\b", docstring)


def test_reasons_fit_into_a_sentence() -> None:
    assert first_line(RuntimeError("one\ntwo")) == "one"
    assert first_line(RuntimeError()) == "RuntimeError"
    assert len(first_line(RuntimeError("x" * 999))) == 200
