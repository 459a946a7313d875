"""The card and the table of hardware: what the Hub documents, what is pinned here, and what the plan says."""

import re
from pathlib import Path

import pytest
from huggingface_hub import SpaceHardware

from magistral_ui.engines.weights.hub import NEEDED_FILES
from magistral_ui.models.cards import MAGISTRAL_1_2, MINISTRAL_3_14B, ModelCard
from space.card import FIELDS, PRELOADED, card_for, front_of, problems_of
from space.hardware import HARDWARE, find_hardware, written
from space.push import GGUF_MODEL, requirements

ROOT = Path(__file__).parents[2]
CARD = (ROOT / "space" / "README.md").read_text(encoding="utf-8")
FLAVORS = [flavor for hardware in HARDWARE for flavor in hardware.flavors]


@pytest.mark.parametrize("flavor", FLAVORS)
def test_each_card_is_one_that_the_hub_takes(flavor: str) -> None:
    assert problems_of(front_of(card_for(CARD, flavor, {}))) == []


def test_the_card_for_gguf_files_is_one_too() -> None:
    card = card_for(CARD, "cpu-basic", {"MAGISTRAL_UI_MODEL": GGUF_MODEL}, gguf=True)
    assert problems_of(front_of(card)) == []
    assert "<!--" not in card
    assert card.count("\n# ") == 1


def test_the_card_fits_the_pinned_versions() -> None:
    front = front_of(CARD)
    pinned = re.search(r"^gradio==([\d.]+)\*", requirements("cpu-basic"), re.MULTILINE)
    assert pinned is not None
    assert front["sdk_version"].startswith(pinned[1])
    major, minor = map(int, front["python_version"].split(".")[:2])
    assert (3, 10) <= (major, minor) < (3, 15), "the spaces package's own bounds"
    assert (ROOT / front["app_file"]).is_file()
    assert front["hf_oauth"] is True


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("emoji", "M"),
        ("colorFrom", "orange"),
        ("sdk", "docker"),
        ("sdk_version", "6.31"),
        ("python_version", "2.7"),
        ("short_description", "long " * 20),
        ("suggested_hardware", "h100x8"),
        ("startup_duration_timeout", "an hour"),
        ("preload_from_hub", ["owner/name a.json, b.json"]),
        ("preload_from_hub", "owner/name"),
        ("hf_oauth", "yes"),
        ("hf_oauth_expiration_minutes", 50_000),
        ("hf_oauth_scopes", ["everything"]),
        ("custom_headers", {"x-frame-options": "DENY"}),
        ("app_port", 7860),
        ("sdkVersion", "6.31.0"),
    ],
)
def test_a_wrong_card_is_told(field: str, value: object) -> None:
    found = problems_of({**front_of(CARD), field: value})
    assert len(found) == 1
    assert found[0].startswith(f"{field}: ")


def test_a_missing_field_is_told() -> None:
    front = front_of(CARD)
    del front["sdk_version"]
    assert problems_of(front) == ["sdk_version: None"]
    assert "sdk_version" in FIELDS


def test_only_what_the_app_would_download_is_preloaded() -> None:
    assert len(PRELOADED) == len(set(PRELOADED))
    patterns = [pattern.replace(".", r"\.").replace("*", ".*") for pattern in NEEDED_FILES]
    assert all(any(re.fullmatch(pattern, name) for pattern in patterns) for name in PRELOADED)
    shards = sum(name.startswith("model-") for name in PRELOADED)
    assert shards == int(PRELOADED[-1].rpartition("of-")[2].split(".")[0])


@pytest.mark.parametrize(
    ("flavor", "environment", "card"),
    [
        ("cpu-basic", {}, None),
        ("t4-small", {}, MINISTRAL_3_14B),
        ("a10g-small", {}, MAGISTRAL_1_2),
        ("a10g-small", {"MAGISTRAL_UI_MODEL": "auto"}, MAGISTRAL_1_2),
        ("zero-a10g", {}, MAGISTRAL_1_2),
        ("zero-a10g", {"MAGISTRAL_UI_MODEL": "demo"}, None),
        ("a10g-small", {"MAGISTRAL_UI_MODEL": "magistral-small-2509"}, MAGISTRAL_1_2),
        ("a10g-small", {"MAGISTRAL_UI_MODEL": "someone/else"}, None),
        ("a10g-small", {"MAGISTRAL_UI_BASE_URL": "http://h/v1"}, None),
    ],
)
def test_preloaded_is_what_runs(flavor: str, environment: dict[str, str], card: ModelCard | None) -> None:
    front = front_of(card_for(CARD, flavor, environment))
    assert ("preload_from_hub" in front) == (card is MAGISTRAL_1_2), "the shards of the others are not known"
    assert front.get("models") == ([card.repository] if card else None)


def test_a_builder_that_sees_one_file_sees_all() -> None:
    for flavor in ("cpu-basic", "a10g-small"):
        lines = requirements(flavor).splitlines()
        assert not [line for line in lines if line.startswith(("-r", "-c"))]
        assert sum(line.startswith("torch==") for line in lines) == 1
        assert any(line.startswith("spaces==") for line in lines)
        assert any("whl/cpu" in line for line in lines) == (flavor == "cpu-basic")


def test_every_hardware_of_the_hub_is_known() -> None:
    assert sorted(FLAVORS) == sorted(each.value for each in SpaceHardware)
    assert find_hardware("abacus") is None


def test_the_documented_table_is_the_plan_s() -> None:
    document = (ROOT / "docs" / "space.md").read_text(encoding="utf-8")
    assert written(document) == document, "run: python -m space.hardware"
    assert document.count("Magistral Small 1.2 |") == sum(
        each.best is not None and each.best.card is MAGISTRAL_1_2 for each in HARDWARE
    )
