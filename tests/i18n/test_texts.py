"""The sentences: that there is one for everything that needs one, and that its placeholders are filled."""

import re
from pathlib import Path

import pytest

import magistral_ui
from magistral_ui import errors
from magistral_ui.chat.sampling import PARAMETERS
from magistral_ui.errors import MagistralUIError, Message, ParameterRefused, PortInUse
from magistral_ui.i18n.texts import DOCTOR_PREFIX, sentence, strings, text
from magistral_ui.models.cards import CARDS

PACKAGE = Path(magistral_ui.__file__).parent
KINDS = [
    "Refused",
    "BadInput",
    "Broken",
    "Failed",
    "FailedRequest",
    "Message",
    "Refusal",
    "NotFound",
    "Error",
    "Setting",
    "TooLong",
]
RAISED = re.compile(rf"""(?<!Custom)(?:{"|".join(KINDS)})\(\s*"([a-z_]+)\"""")
NOTICED = re.compile(r"""Notice\(\s*"([a-z_]+)\"""")
ASKED = re.compile(r"""\bt\(\s*"([a-z_]+)\"""")


def sources(pattern: str) -> str:
    return "\n".join(
        path.read_text(encoding="utf-8")
        for path in PACKAGE.rglob(pattern)
        if not {"vendor", "node_modules"} & set(path.parts)
    )


def error_classes(root: type[MagistralUIError] = MagistralUIError) -> list[type[MagistralUIError]]:
    return [root, *(each for child in root.__subclasses__() for each in error_classes(child))]


@pytest.mark.parametrize("error", error_classes(), ids=lambda each: each.__name__)
def test_every_error_has_a_sentence(error: type[MagistralUIError]) -> None:
    assert f"error_{error.key}" in strings()


def test_every_key_that_the_code_raises_has_a_sentence() -> None:
    found = set(RAISED.findall(sources("*.py")))
    assert "picture_broken" in found  # the pattern still finds them
    notes = {key for key in found if key.startswith(("app_", "doctor_"))}  # what the terminal says is no error
    assert notes <= strings().keys()
    assert {key for key in found - notes if f"error_{key}" not in strings()} == set()


def test_every_text_of_the_doctor_is_there_and_used() -> None:
    named = set(re.findall(r'"(doctor_[a-z0-9_]+)"', sources("*.py")))
    assert named == {key for key in strings() if key.startswith(DOCTOR_PREFIX)}


def test_every_image_refusal_that_the_errors_promise_has_a_sentence() -> None:
    promised = re.findall(r"\b(?:picture|parameter)_[a-z_]+", errors.__doc__ or "")
    assert promised
    assert {key for key in promised if f"error_{key}" not in strings()} == set()


def test_every_notice_has_a_sentence() -> None:
    named = set(NOTICED.findall(sources("*.py"))) | {
        "answered_now",
        "budget_spent",
        "loop_broken",
        "max_tokens_lowered",
    }
    assert {key for key in named if f"notice_{key}" not in strings()} == set()


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_has_a_label_and_help(name: str) -> None:
    assert strings()[f"parameter_{name}"]
    assert strings()[f"parameter_{name}_help"]


def test_every_card_and_every_reason_for_a_model_has_a_text() -> None:
    reasons = set(re.findall(r'"(model_chosen_[a-z_]+)"', sources("*.py")))
    assert reasons
    assert {key for key in reasons | {card.description_key for card in CARDS.values()} if key not in strings()} == set()


def test_every_text_that_the_scripts_ask_for_is_there() -> None:
    asked = set(ASKED.findall(sources("*.js")))
    assert "turn_copy" in asked
    assert {key for key in asked if key not in strings()} == set()


def test_plural_texts_have_both_english_forms() -> None:
    for key, found in strings().items():
        assert isinstance(found, str) or set(found) == {"one", "other"}, key


def test_placeholders_are_filled_and_plurals_chosen() -> None:
    assert "7860" in sentence(PortInUse(port=7860).message)
    assert text("turn_tokens", count=1) == "1 token"
    assert text("turn_tokens", count=2) == "2 tokens"


def test_an_unfilled_placeholder_and_braces_in_values_are_harmless() -> None:
    assert "{limit}" in sentence(Message("picture_too_large", {"name": "{0}{evil}"}))
    assert "{0}{evil}" in sentence(Message("picture_too_large", {"name": "{0}{evil}"}))


def test_an_unknown_error_gets_the_general_sentence() -> None:
    assert sentence(Message("no_such_key")) == text("error_unexpected")
    assert "between 0 and 2" in sentence(
        ParameterRefused("parameter_out_of_range", name="temperature", low=0, high=2).message
    )
