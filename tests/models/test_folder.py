"""A folder is judged from a few small reads: what is missing, damaged or something else gets its own sentence."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from magistral_ui.errors import ModelError, ModelFilesBroken, ModelNotFound, NotAMistralModel
from magistral_ui.i18n.texts import sentence
from magistral_ui.models.cards import (
    DEMO,
    MAGISTRAL_1_0,
    MAGISTRAL_1_1,
    MAGISTRAL_1_2,
    MINISTRAL_3_3B,
    MINISTRAL_3_8B,
    MINISTRAL_3_14B,
    ModelCard,
)
from magistral_ui.models.folder import DEMO_FOLDER, check_name, inspect_folder
from magistral_ui.models.shape import read_shape


def safetensors(size: int = 4) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}, "__metadata__": {}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


VOCABULARY = {"config": {"pattern": "."}, "vocab": [{"rank": 0, "token_bytes": "YQ=="}]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of a small text model in two shards."""
    made = tmp_path / "my-model"
    made.mkdir()
    write(made, "config.json", {"model_type": "mistral", "max_position_embeddings": 4096})
    write(made, "tekken.json", VOCABULARY | {"special_tokens": [{"rank": 0, "token_str": "[THINK]"}]})
    write(made, "model.safetensors.index.json", {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})
    (made / "1.safetensors").write_bytes(safetensors())
    (made / "2.safetensors").write_bytes(safetensors())
    return made


def write(folder: Path, name: str, content: object) -> None:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def refusal(folder: Path) -> tuple[type[ModelError], dict[str, str | int | float]]:
    with pytest.raises(ModelError) as refused:
        inspect_folder(folder)
    return type(refused.value), refused.value.message.values


def test_the_demo_model_is_itself() -> None:
    facts = inspect_folder(DEMO_FOLDER)
    assert (facts.card, facts.model_type, facts.vision) == (DEMO, "mistral3", True)
    assert facts.bytes == (DEMO_FOLDER / "model.safetensors").stat().st_size


def test_a_copy_of_the_demo_model_has_its_own_prompt(tmp_path: Path) -> None:
    shutil.copytree(DEMO_FOLDER, tmp_path / "copy")
    card = inspect_folder(tmp_path / "copy").card
    assert (card.key, card.vision, card.context_length, card.demo) == ("copy", True, DEMO.context_length, False)
    assert card.system() == DEMO.system()


def test_a_folder_tells_what_it_holds(folder: Path) -> None:
    facts = inspect_folder(folder)
    assert [file.name for file in facts.weights] == ["1.safetensors", "2.safetensors"]
    assert (facts.card.name, facts.card.vision, facts.card.context_length) == ("my-model", False, 4096)
    assert (facts.card.marks, facts.card.system()) == ("tokens", MAGISTRAL_1_1.system())


def test_without_the_control_tokens_reasoning_is_marked_as_text(folder: Path) -> None:
    write(folder, "tekken.json", VOCABULARY | {"special_tokens": None})
    card = inspect_folder(folder).card
    assert (card.marks, card.system()) == ("text", MAGISTRAL_1_0.system())


@pytest.mark.parametrize(
    "tekken",
    [
        {"special_tokens": []},
        {"config": VOCABULARY["config"], "vocab": []},
        {"config": None, "vocab": VOCABULARY["vocab"]},
        VOCABULARY | {"special_tokens": [{"rank": 0}]},
        VOCABULARY | {"special_tokens": 5},
    ],
)
def test_a_tokenizer_that_is_none_is_detected_before_the_weights_are_read(folder: Path, tekken: object) -> None:
    write(folder, "tekken.json", tekken)
    assert refusal(folder) == (ModelFilesBroken, {"model": str(folder), "file": "tekken.json"})


def test_a_vision_model_reads_images(folder: Path) -> None:
    write(folder, "config.json", {"model_type": "mistral3", "text_config": {"max_position_embeddings": 99}})
    card = inspect_folder(folder).card
    assert (card.vision, card.context_length, card.system()) == (True, 99, MAGISTRAL_1_2.system())


def test_no_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere") == (ModelNotFound, {"model": str(tmp_path / "nowhere")})


def test_an_empty_folder_and_a_file(tmp_path: Path) -> None:
    assert refusal(tmp_path)[0] is NotAMistralModel
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    assert refusal(file)[0] is NotAMistralModel


def test_another_kind_of_model(folder: Path) -> None:
    write(folder, "config.json", {"model_type": "llama"})
    assert refusal(folder) == (NotAMistralModel, {"model": str(folder), "found": "llama"})


@pytest.mark.parametrize("kind", ["mistral4", "mistral_large4", "mistral_large4_text", "llama", "gemma3_text"])
def test_what_is_inside_a_vision_model_decides(folder: Path, kind: str) -> None:
    write(folder, "config.json", {"model_type": "mistral3", "text_config": {"model_type": kind}})
    assert refusal(folder) == (NotAMistralModel, {"model": str(folder), "found": kind})
    tower = {"model_type": "siglip_vision_model"}
    write(folder, "config.json", {"model_type": "mistral3", "text_config": {}, "vision_config": tower})
    assert refusal(folder) == (NotAMistralModel, {"model": str(folder), "found": "siglip_vision_model"})


def test_what_cannot_run_here_names_a_server(folder: Path) -> None:
    write(folder, "config.json", {"model_type": "mistral_large4"})
    with pytest.raises(NotAMistralModel) as refused:
        inspect_folder(folder)
    assert "--base-url" in sentence(refused.value.message)


@pytest.mark.parametrize("vision", [True, False])
@pytest.mark.parametrize(("width", "temperature"), [(3_072, 0.7), (4_096, 0.7), (5_120, 1.0)])
def test_ministral_gets_its_makers_advice(folder: Path, vision: bool, width: int, temperature: float) -> None:
    text = {"model_type": "ministral3", "hidden_size": width}
    write(folder, "config.json", {"model_type": "mistral3", "text_config": text} if vision else text)
    facts = inspect_folder(folder)
    card = facts.card
    assert (facts.vision, card.vision, card.marks) == (vision, vision, "tokens")
    assert (card.sampling.temperature, card.sampling.top_p, card.sampling.max_tokens) == (temperature, 0.95, 131_072)
    assert (card.context_length, card.recommended_length) == (262_144, 131_072)
    assert card.system() == MAGISTRAL_1_2.system()
    shape = facts.shape
    assert (shape.vocabulary, shape.layers, shape.heads, shape.kv_heads, shape.head_dim) == (131_072, 34, 32, 8, 128)


@pytest.mark.parametrize(
    ("size", "tied", "parameters"),
    [
        ((3_072, 9_216, 26), True, 3_849_090_048),
        ((4_096, 14_336, 34), None, 8_918_026_240),
        ((5_120, 16_384, 40), None, 13_945_031_680),
    ],
)
def test_ministral_s_parameters_are_those_of_its_index(
    size: tuple[int, int, int], tied: bool | None, parameters: int
) -> None:
    """As its repositories' configurations have them: two of the three do not say whether the head is the embedding."""
    hidden, intermediate, layers = size
    text = {
        "model_type": "ministral3",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
    }
    if tied is not None:
        text["tie_word_embeddings"] = tied
    vision = {"model_type": "pixtral", "image_size": 1_540, "patch_size": 14, "intermediate_size": 4_096}
    shape = read_shape({"model_type": "mistral3", "text_config": text, "vision_config": vision})
    assert shape.parameters == parameters
    assert shape.tied == bool(tied)


@pytest.mark.parametrize("card", [MINISTRAL_3_3B, MINISTRAL_3_8B, MINISTRAL_3_14B], ids=lambda card: card.key)
@pytest.mark.parametrize("pruned", [0, 2])
def test_a_copy_of_ministral_has_its_facts_but_not_its_figures(folder: Path, card: ModelCard, pruned: int) -> None:
    assert card.shape is not None
    text = {
        "model_type": "ministral3",
        "hidden_size": card.shape.hidden,
        "intermediate_size": card.shape.intermediate,
        "num_hidden_layers": card.shape.layers - pruned,
    }
    write(folder, "config.json", text)
    found = inspect_folder(folder).card
    assert (found.sampling, found.recommended_length) == (card.sampling, card.recommended_length)
    assert (found.benchmarks, found.license, found.revision, found.repository) == ({}, "", None, None)
    assert found.shape == inspect_folder(folder).shape


def test_the_context_ends_at_a_sliding_window(folder: Path) -> None:
    write(folder, "config.json", {"model_type": "mistral", "max_position_embeddings": 32_768, "sliding_window": 4_096})
    assert inspect_folder(folder).card.context_length == 4_096


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["config.json", "tekken.json", "2.safetensors"])
def test_a_file_that_may_not_be_read_is_not_called_damaged(folder: Path, name: str) -> None:
    (folder / name).chmod(0)
    unreadable(folder, name)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
@pytest.mark.parametrize("name", ["config.json", "tekken.json", "model.safetensors.index.json", "2.safetensors"])
def test_a_disk_that_fails_does_not_make_a_file_damaged(
    folder: Path, name: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def fail(file: Path, *more: Any, **named: Any) -> Any:
        if file.name == name:
            raise OSError(number, os.strerror(number), str(file))
        return opened(file, *more, **named)

    monkeypatch.setattr(Path, "open", fail)
    unreadable(folder, name)


def unreadable(folder: Path, name: str) -> None:
    with pytest.raises(ModelFilesBroken) as refused:
        inspect_folder(folder)
    assert (refused.value.message.key, refused.value.message.values["file"]) == ("model_file_unreadable", name)
    said = sentence(refused.value.message)
    assert "{" not in said
    assert "elete" not in said


@pytest.mark.parametrize("name", ["tekken.json", "1.safetensors", "2.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert refusal(folder) == (ModelFilesBroken, {"model": str(folder), "file": name})


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"], ids=["empty", "cut", "a list", "not UTF-8"])
@pytest.mark.parametrize("name", ["config.json", "tekken.json", "model.safetensors.index.json"])
def test_a_damaged_json_file_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    assert refusal(folder) == (ModelFilesBroken, {"model": str(folder), "file": name})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        safetensors()[:-1],
        safetensors()[:20],
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    ],
    ids=["empty", "a byte short", "header only", "pointer"],
)
def test_weights_that_are_not_whole_are_named(folder: Path, content: bytes) -> None:
    (folder / "2.safetensors").write_bytes(content)
    assert refusal(folder) == (ModelFilesBroken, {"model": str(folder), "file": "2.safetensors"})


def test_weights_in_one_file_need_no_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").unlink()
    assert refusal(folder) == (ModelFilesBroken, {"model": str(folder), "file": "model.safetensors"})
    (folder / "model.safetensors").write_bytes(safetensors())
    assert [file.name for file in inspect_folder(folder).weights] == ["model.safetensors"]


@pytest.mark.parametrize("name", ["../1.safetensors", "/etc/hosts", "", ".", "a\\b", "c:d", None, 1, ["1.safetensors"]])
def test_an_index_leads_nowhere_but_into_its_folder(folder: Path, name: object) -> None:
    (folder.parent / "1.safetensors").write_bytes(safetensors())
    write(folder, "model.safetensors.index.json", {"weight_map": {"a": "1.safetensors", "b": name}})
    assert refusal(folder) == (ModelFilesBroken, {"model": str(folder), "file": "model.safetensors.index.json"})


SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim")


@pytest.mark.parametrize("value", [-1, 10**12, 1.5, True, "4096", [], {"a": 1}, float("nan")])
@pytest.mark.parametrize("name", [*SIZES, "num_key_value_heads", "max_position_embeddings", "sliding_window"])
def test_what_is_no_size_is_damage(folder: Path, name: str, value: object) -> None:
    write(folder, "config.json", {"model_type": "mistral", name: value})
    if name in ("head_dim", "num_key_value_heads", "sliding_window") and not value:
        assert inspect_folder(folder).vision is False  # as if it were left out
    else:
        assert refusal(folder) == (ModelFilesBroken, {"model": str(folder), "file": "config.json"})


@pytest.mark.parametrize("part", ["x", [], 1, {"hidden_size": 0}, {"patch_size": None}, {"num_channels": "3"}])
@pytest.mark.parametrize("name", ["text_config", "vision_config"])
def test_a_part_that_is_no_configuration_is_damage(folder: Path, name: str, part: object) -> None:
    write(folder, "config.json", {"model_type": "mistral3", "text_config": {}, "vision_config": {}, name: part})
    if name == "text_config" and isinstance(part, dict) and "hidden_size" not in part:
        assert inspect_folder(folder).vision  # no key that a decoder has
    else:
        assert refusal(folder) == (ModelFilesBroken, {"model": str(folder), "file": "config.json"})


def test_a_file_that_is_nested_without_end_is_damage(folder: Path) -> None:
    (folder / "config.json").write_text('{"a":' * 200_000, encoding="utf-8")
    assert refusal(folder) == (ModelFilesBroken, {"model": str(folder), "file": "config.json"})


def test_a_model_type_without_end_is_cut_short(folder: Path) -> None:
    write(folder, "config.json", {"model_type": "mamba" * 1_000})
    assert len(str(refusal(folder)[1]["found"])) == 100


@pytest.mark.parametrize("name", ["demo", "Magistral-Small-2509", "mistralai/Magistral-Small-2509", "owner/unknown"])
def test_known_names_and_repositories_pass(name: str) -> None:
    check_name(name)


OTHER_NAMES = ["nothing", "./nothing", "/no/where", "a/b/c", "../up", "a/b@main", "https://huggingface.co/a/b"]


@pytest.mark.parametrize("name", [*OTHER_NAMES, "a--b/c", "a/b..c", "a/b.git", "-a/b", "a/b-", "a/" + "b" * 97])
def test_other_names_must_be_folders(name: str) -> None:
    with pytest.raises(ModelNotFound) as refused:
        check_name(name)
    assert refused.value.message.values == {"model": name}


def test_a_name_that_is_too_long_for_a_folder_is_not_found() -> None:
    with pytest.raises(ModelNotFound):
        check_name("a" * 100_000)


def test_a_folder_that_is_there_wins_over_a_repository(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent.parent)
    (folder / "2.safetensors").unlink()
    with pytest.raises(ModelFilesBroken):
        check_name(f"{folder.parent.name}/{folder.name}")
