"""The tokenizer that is rebuilt from a GGUF file gives the very ids of the original."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from magistral_ui.engines.gguf import cache_folder
from magistral_ui.engines.gguf.demo_file import demo_files
from magistral_ui.engines.gguf.tekken import PATTERN, rebuild_tekken
from magistral_ui.errors import NotAMistralModel
from magistral_ui.models.folder import DEMO_FOLDER
from magistral_ui.models.gguf_file import header_of, read_mmproj
from magistral_ui.models.gguf_header import TOKENS, GGUFHeader

ALPHABET = (
    "aZ é ñ ß İ ı 1٣ ④ \n\r\n\t\u00a0\u2003 [INST]</s>[THINK]<s> हिन्दी বাংলা தமிழ் ไทย עִבְ نَصّ 日本 한국 "
    "👩\u200d👩\u200d👧 🇫🇷 \u0301 \u200b {}\\$_% \0\x1b \ufffd"
)
"""What the texts are made of: scripts with combining marks, spaces of all kinds, typed marks, emoji, control characters."""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_folder, "user_cache_path", lambda name: folder / name)
        cache_folder._temporary_folder.cache_clear()
        yield folder / cache_folder.APP_NAME


@pytest.fixture(scope="module")
def header() -> GGUFHeader:
    return header_of(demo_files()[0])


def with_tokens(header: GGUFHeader, tokens: list[str]) -> GGUFHeader:
    return replace(header, metadata={**header.metadata, TOKENS: tokens})


def test_it_is_the_original_but_for_what_nobody_reads(header: GGUFHeader) -> None:
    made = json.loads(rebuild_tekken(header, read_mmproj(demo_files()[1]).vision, "demo").read_text(encoding="utf-8"))
    original = json.loads((DEMO_FOLDER / "tekken.json").read_text(encoding="utf-8"))
    assert made["config"] == original["config"]
    assert made["special_tokens"] == original["special_tokens"]
    assert made["image"] == original["image"]
    assert [each["token_bytes"] for each in made["vocab"]] == [each["token_bytes"] for each in original["vocab"]]
    assert original["config"]["pattern"] == PATTERN


@pytest.fixture(scope="module", params=["the demo's tokens", "all of Mistral's tokens"])
def tekken_and_file(request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """A tokenizer, and a GGUF file with its vocabulary."""
    if request.param == "the demo's tokens":
        return DEMO_FOLDER / "tekken.json", demo_files()[0]
    folder: Path = request.getfixturevalue("full_files")
    return folder / "tekken.json", folder / "model.gguf"


def test_three_hundred_odd_texts_have_the_same_ids(tekken_and_file: tuple[Path, Path]) -> None:
    tekken, model = tekken_and_file
    rebuilt = rebuild_tekken(header_of(model), None, model.name)
    made, original = (MistralTokenizer.from_file(str(each)).instruct_tokenizer.tokenizer for each in (rebuilt, tekken))
    odd = random.Random(1)
    pieces = [*ALPHABET, *ALPHABET.split(" ")]
    for _ in range(300):
        text = "".join(odd.choices(pieces, k=odd.randint(0, 40)))
        assert made.encode(text, bos=True, eos=True) == original.encode(text, bos=True, eos=True), text


def test_it_is_made_once_for_a_vocabulary_and_its_images(header: GGUFHeader, cache: Path) -> None:
    vision = read_mmproj(demo_files()[1]).vision
    first = rebuild_tekken(header, vision, "demo")
    written = first.stat().st_mtime_ns
    assert rebuild_tekken(header, vision, "demo") == first
    assert first.stat().st_mtime_ns == written
    assert rebuild_tekken(header, None, "demo") != first
    assert rebuild_tekken(header, replace(vision, image=56), "demo") != first
    assert first.parent == cache


def test_a_model_without_a_projector_takes_no_images(header: GGUFHeader) -> None:
    tokenizer = MistralTokenizer.from_file(str(rebuild_tekken(header, None, "demo")))
    assert tokenizer.instruct_tokenizer.image_encoder is None


def test_a_vocabulary_with_settings_is_of_version_15(header: GGUFHeader) -> None:
    tokens = list(header.metadata[TOKENS])
    tokens[40], tokens[41] = "[MODEL_SETTINGS]", "[/MODEL_SETTINGS]"
    path = rebuild_tekken(with_tokens(header, tokens), None, "demo")
    base: Any = MistralTokenizer.from_file(str(path)).instruct_tokenizer.tokenizer
    assert base.version.value == "v15"
    assert base.model_settings_builder.reasoning_effort.values == ["none", "high"]


def broken_vocabularies(tokens: list[str]) -> dict[str, list[str]]:
    first = tokens.index("Ā")
    return {
        "a byte is missing": tokens[: first + 7] + tokens[first + 8 :],
        "bytes are in another order": [*tokens[:first], tokens[first + 1], tokens[first], *tokens[first + 2 :]],
        "a token is there twice": [*tokens[:-1], tokens[-2]],
        "a token is not spelled in visible bytes": [*tokens[:-1], "a b"],
        "a mark is there twice": [tokens[0], tokens[0], *tokens[2:]],
        "a mark that prompts need is missing": [t if t != "[INST]" else "[XNST]" for t in tokens],
        "no text at all": tokens[:first],
        "nothing at all": [],
    }


@pytest.mark.parametrize("fault", broken_vocabularies(["<s>", *map(chr, range(256, 600))]))
def test_a_vocabulary_that_is_not_tekken_is_refused(header: GGUFHeader, cache: Path, fault: str) -> None:
    before = sorted(cache.iterdir()) if cache.exists() else []
    tokens = broken_vocabularies(header.metadata[TOKENS])[fault]
    with pytest.raises(NotAMistralModel) as refused:
        rebuild_tekken(with_tokens(header, tokens), None, "demo.gguf")
    assert (refused.value.message.key, refused.value.message.values) == ("gguf_vocabulary", {"model": "demo.gguf"})
    assert sorted(cache.iterdir()) == before


@given(tokens=st.lists(st.text(max_size=4), max_size=400))
def test_any_other_vocabulary_is_refused(tokens: list[str]) -> None:
    with pytest.raises(NotAMistralModel):
        rebuild_tekken(GGUFHeader({TOKENS: tokens}, (), 0), None, "odd.gguf")
