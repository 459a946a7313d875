"""The demo model's files are small, complete and agree with each other; the model is not run here."""

import json

from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from magistral_ui.models.folder import DEMO_FOLDER
from training.wording import LANGUAGES, phrases

FOLDER = DEMO_FOLDER


def test_weights_are_small() -> None:
    assert 1_000_000 < (FOLDER / "model.safetensors").stat().st_size <= 10_000_000


def test_tokenizer_has_magistral_marks() -> None:
    tokenizer = MistralTokenizer.from_file(str(FOLDER / "tekken.json")).instruct_tokenizer.tokenizer
    slots = {"<s>": 1, "</s>": 2, "[INST]": 3, "[/INST]": 4, "[IMG]": 10, "<pad>": 11, "[IMG_BREAK]": 12}
    slots |= {"[IMG_END]": 13, "[SYSTEM_PROMPT]": 17, "[/SYSTEM_PROMPT]": 18, "[THINK]": 34, "[/THINK]": 35}
    assert {name: tokenizer.get_special_token(name) for name in slots} == slots


def test_configuration_agrees_with_the_tokenizer() -> None:
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    tekken = json.loads((FOLDER / "tekken.json").read_text(encoding="utf-8"))
    assert config["text_config"]["vocab_size"] == tekken["config"]["default_vocab_size"]
    assert config["image_token_index"] == 10
    assert config["spatial_merge_size"] == tekken["image"]["spatial_merge_size"]
    assert config["vision_config"]["patch_size"] == tekken["image"]["image_patch_size"]
    assert config["vision_config"]["image_size"] == tekken["image"]["max_image_size"]


def test_system_prompt_has_three_parts() -> None:
    before, _, rest = (FOLDER / "SYSTEM_PROMPT.txt").read_text(encoding="utf-8").partition("[THINK]")
    thought, _, after = rest.partition("[/THINK]")
    assert all((before, thought, after))


def test_every_language_says_the_same_things() -> None:
    english = phrases("en")
    for language in LANGUAGES:
        found = phrases(language)
        assert found.keys() == english.keys()
        for group in ("say", "shapes", "colours"):
            assert found[group].keys() == english[group].keys()
