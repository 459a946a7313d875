"""A folder is judged from a few small reads: what is missing, damaged or something else gets its own sentence."""

import json
import shutil
from pathlib import Path

import pytest

from magistral_ui.errors import ModelError, ModelFilesBroken, ModelNotFound, NotAMistralModel
from magistral_ui.models.cards import DEMO, MAGISTRAL_1_0, MAGISTRAL_1_1, MAGISTRAL_1_2
from magistral_ui.models.folder import DEMO_FOLDER, check_name, inspect_folder


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
    return type(refused.value), refused.value.values


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
def test_a_tokenizer_that_is_none_is_found_out_before_the_weights_are_read(folder: Path, tekken: object) -> None:
    write(folder, "tekken.json", tekken)
    assert refusal(folder) == (ModelFilesBroken, {"model": str(folder), "file": "tekken.json"})


def test_a_vision_model_reads_pictures(folder: Path) -> None:
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


@pytest.mark.parametrize("name", ["demo", "Magistral-Small-2509", "mistralai/Magistral-Small-2509", "owner/unknown"])
def test_known_names_and_repositories_pass(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["nothing", "./nothing", "/no/where", "a/b/c", "../up"])
def test_other_names_must_be_folders(name: str) -> None:
    with pytest.raises(ModelNotFound):
        check_name(name)


def test_a_folder_that_is_there_wins_over_a_repository(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent.parent)
    (folder / "2.safetensors").unlink()
    with pytest.raises(ModelFilesBroken):
        check_name(f"{folder.parent.name}/{folder.name}")
