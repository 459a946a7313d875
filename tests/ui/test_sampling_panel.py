"""What the settings panel draws, and what it takes from a browser: within bounds, in the right type, or refused."""

from dataclasses import asdict, replace
from typing import Any

import pytest

from magistral_ui.chat.prompt import PromptChoices
from magistral_ui.chat.sampling import PARAMETERS, PRESETS
from magistral_ui.engines.base import Loading, Ready
from magistral_ui.errors import BadInput
from magistral_ui.i18n.texts import strings
from magistral_ui.models.cards import DEMO, MAGISTRAL_1_0, MAGISTRAL_1_1, MAGISTRAL_1_2
from magistral_ui.ui.sampling_panel import MAX_PROMPT_LENGTH, VisitorSettings, panel_value, prompt_value, read_settings
from tests.scripted_engine import INFO, ScriptedEngine


@pytest.mark.parametrize("sent", [None, {}])
def test_nothing_sent_is_the_card_s_own(sent: Any) -> None:
    assert read_settings(MAGISTRAL_1_2, sent) == VisitorSettings(MAGISTRAL_1_2.sampling, PromptChoices())


def test_what_is_sent_is_laid_over_the_card_s_own() -> None:
    sent = {
        "params": {"temperature": 0, "max_tokens": 5.0, "seed": 12, "reasoning_budget": None},
        "instructions": "Be brief.",
        "system_prompt": "",
        "keep_reasoning": False,
        "picture_side": 512,
    }
    settings = read_settings(DEMO, sent)
    assert settings.params == replace(DEMO.sampling, temperature=0.0, max_tokens=5, seed=12)
    assert settings.choices == PromptChoices("Be brief.", "", False)
    assert settings.image_side == 512


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "x",
        [1],
        {"unknown": 1},
        {"params": 3},
        {"params": {"temperature": "hot"}},
        {"params": {"top_p": 7}},
        {"params": {"max_tokens": 0}},
        {"params": {"seed": -1}},
        {"params": {"nothing": 1}},
        {"instructions": 5},
        {"instructions": "x" * (MAX_PROMPT_LENGTH + 1)},
        {"system_prompt": ["x"]},
        {"system_prompt": "x" * (MAX_PROMPT_LENGTH + 1)},
        {"picture_side": 513},
        {"picture_side": [512]},
    ],
)
def test_anything_else_is_refused_with_a_sentence(sent: Any) -> None:
    with pytest.raises(BadInput) as refused:
        read_settings(DEMO, sent)
    assert f"error_{refused.value.message.key}" in strings()


def test_the_table_drives_the_panel_and_what_fits_bounds_it() -> None:
    engine = ScriptedEngine([], card=MAGISTRAL_1_2, status=Loading())
    table = {each["name"]: each for each in panel_value(engine)["parameters"]}
    assert list(table) == list(PARAMETERS)
    assert table["max_tokens"]["high"] == 131_072
    engine.set_status(Ready(replace(INFO, context_length=30_000)))
    value = panel_value(engine)
    table = {each["name"]: each for each in value["parameters"]}
    assert table["max_tokens"]["high"] == table["reasoning_budget"]["high"] == 30_000
    assert table["top_k"]["high"] == PARAMETERS["top_k"].high
    assert value["own"] == {**asdict(MAGISTRAL_1_2.sampling), "max_tokens": 30_000}
    assert all(preset["values"]["max_tokens"] <= 30_000 for preset in value["presets"])


@pytest.mark.parametrize("card", [DEMO, MAGISTRAL_1_2, MAGISTRAL_1_1, MAGISTRAL_1_0])
def test_every_preset_is_within_bounds_named_and_changes_something(card: Any) -> None:
    shown = {preset["key"]: preset["values"] for preset in panel_value(ScriptedEngine([], card=card))["presets"]}
    assert shown.pop("own")
    assert {"precise", "creative", "quick"} <= set(shown)
    own = panel_value(ScriptedEngine([], card=card))["own"]
    assert all(values != own for values in shown.values())
    for preset in PRESETS:
        assert preset.of(card.sampling).seed is None
        assert strings()[f"preset_{preset.key}"]
        assert strings()[f"preset_{preset.key}_help"]


def test_only_a_model_with_eyes_offers_sizes_of_images() -> None:
    assert panel_value(ScriptedEngine([], card=MAGISTRAL_1_1))["picture_sides"] == []
    assert panel_value(ScriptedEngine([], card=DEMO))["picture_sides"] == [1024, 512]


def test_the_prompt_is_shown_as_the_model_reads_it() -> None:
    value = prompt_value(MAGISTRAL_1_2, {"instructions": "Be brief."})
    assert [part["reasoning"] for part in value["parts"]] == [False, True, False]
    assert value["parts"][-1]["text"].endswith("\n\nBe brief.")
    assert value["thinks"]
    assert value["own"] == MAGISTRAL_1_2.system_prompt()
    text = prompt_value(MAGISTRAL_1_0, {"instructions": "Be brief."})["parts"]
    assert len(text) == 1
    assert text[0]["text"].endswith("Be brief.\n\nProblem:\n\n")


@pytest.mark.parametrize(
    ("card", "prompt", "thinks"),
    [
        (MAGISTRAL_1_2, "Be nice.", False),
        (MAGISTRAL_1_2, "", False),
        (MAGISTRAL_1_2, "[/THINK] then [THINK]", False),
        (MAGISTRAL_1_2, "First [THINK]so[/THINK] then.", True),
        (MAGISTRAL_1_2, "First <think>so</think> then.", False),
        (MAGISTRAL_1_0, "First <think>so</think> then.", True),
        (MAGISTRAL_1_0, "First [THINK]so[/THINK] then.", False),
    ],
)
def test_a_prompt_without_its_model_s_marks_is_told(card: Any, prompt: str, thinks: bool) -> None:
    assert prompt_value(card, {"system_prompt": prompt})["thinks"] is thinks


def test_marks_in_an_edited_prompt_are_marks_and_in_instructions_are_text() -> None:
    sent = {"system_prompt": "a[THINK]b[/THINK]c", "instructions": "[THINK]x[/THINK]"}
    parts = prompt_value(MAGISTRAL_1_2, sent)["parts"]
    assert [(part["text"], part["reasoning"]) for part in parts] == [
        ("a", False),
        ("b", True),
        ("c\n\n[THINK]x[/THINK]", False),
    ]


SOME_MODEL = replace(MAGISTRAL_1_2, key="remote", name="some-model", system_prompt_file="", vision=False)


def test_of_a_server_s_other_model_nothing_is_said_that_is_true_of_magistral_only() -> None:
    assert panel_value(ScriptedEngine([], card=SOME_MODEL))["recommended"] is False
    assert panel_value(ScriptedEngine([]))["recommended"] is True
    assert prompt_value(SOME_MODEL)["thinks"] is True, "no warning of marks where the model's own prompt has none"
    assert prompt_value(SOME_MODEL, {"system_prompt": "Be a pirate."})["thinks"] is True
    assert prompt_value(SOME_MODEL)["own"] == ""
