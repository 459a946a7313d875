"""GGUF models in the library, over a loopback Hub: each quantization is downloaded, paused and removed apart from the others."""

import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants as constants
import pytest

from magistral_ui.engines.weights.gguf_download import download_gguf
from magistral_ui.engines.weights.gguf_entries import gguf_download_bytes, gguf_way
from magistral_ui.engines.weights.gguf_record import recorded_models
from magistral_ui.engines.weights.library import LibraryEntry, ModelLibrary
from magistral_ui.engines.weights.quantized_cache import ORIGIN_FILE, copies_folder
from magistral_ui.errors import BadInput, ModelRefused
from magistral_ui.models.cards import MAGISTRAL_1_2
from tests.hub.gguf_repositories import make_mmproj, make_model
from tests.hub.held_downloads import let_go
from tests.hub.server import Hub
from tests.waiting import until

NAME, OTHER = "unsloth/Magistral-Small-2509-GGUF", "mistralai/Magistral-Small-2509-GGUF"
WIDTH = 5_120
"""Of Magistral's decoder, for which the projector is."""
Q4, Q8 = f"{NAME}:Q4_K_M", f"{NAME}:Q8_0"


@pytest.fixture
def files(hub: Hub, tmp_path: Path) -> Path:
    made = tmp_path / "gguf"
    make_model(made / "Magistral-Small-2509-Q4_K_M.gguf", 300_000)
    make_model(made / "Magistral-Small-2509-Q8_0.gguf", 500_000)
    make_mmproj(made / "mmproj-BF16.gguf", 700_000, WIDTH)
    hub.add(NAME, made, "a" * 40)
    own = tmp_path / "own"
    make_model(own / "Magistral-Small-2509-Q8_0.gguf", 400_000)
    hub.add(OTHER, own, "b" * 40)
    return made


@pytest.fixture
def models(hub: Hub, files: Path) -> Iterator[ModelLibrary]:
    models = ModelLibrary(lambda: in_use)
    in_use: set[str] = set()
    models.used = in_use  # type: ignore[attr-defined]
    yield models
    if hub.step:
        hub.step.set()
    models.close()


def entry(models: ModelLibrary, key: str) -> LibraryEntry:
    return next(each for each in models.entries() if each.key == key)


def keys(models: ModelLibrary) -> set[str]:
    return {each.key for each in models.entries() if ":" in each.key}


def complete(models: ModelLibrary, key: str) -> LibraryEntry:
    models.download(key)
    until(lambda: entry(models, key).state != "downloading")
    found = entry(models, key)
    assert (found.state, found.failure) == ("complete", None)
    return found


def held() -> list[str]:
    return sorted(file.name for file in Path(constants.HF_HUB_CACHE).rglob("*.gguf"))


def cached_bytes() -> int:
    return sum(file.stat().st_size for file in Path(constants.HF_HUB_CACHE).rglob("blobs/*"))


def test_each_quantization_is_an_entry(models: ModelLibrary) -> None:
    assert keys(models) == set()
    found = complete(models, Q4)
    assert (found.repository, found.quantization, found.card) == (NAME, "Q4_K_M", None)
    assert found.done == found.total == found.on_disk == 1_000_000
    assert keys(models) == {Q4}
    complete(models, Q8)
    assert keys(models) == {Q4, Q8}
    again = ModelLibrary()
    assert keys(again) == {Q4, Q8}
    assert {entry(again, key).state for key in (Q4, Q8)} == {"complete"}
    assert NAME not in {each.key for each in models.entries()}, "no entry of the whole repository"


@pytest.mark.parametrize("key", ["nobody/Tiny-GGUF:Q4_K_M", f"{NAME}:", f"{NAME}:../x", f"{NAME}:Q4 K", NAME, f":{Q4}"])
def test_only_what_a_card_names_is_downloaded(models: ModelLibrary, hub: Hub, key: str) -> None:
    with pytest.raises(BadInput):
        models.download(key)
    assert hub.asked == []


def test_what_a_card_s_repository_lacks_is_said(models: ModelLibrary) -> None:
    key = f"{NAME}:Q2_K"
    models.download(key)
    until(lambda: entry(models, key).state != "downloading")
    found = entry(models, key)
    assert found.state == "absent"
    assert found.failure is not None
    assert found.failure.key == "quantization_not_found"


def test_to_remove_one_leaves_the_others_and_their_projector(models: ModelLibrary) -> None:
    complete(models, Q4)
    complete(models, Q8)
    models.remove(Q4)
    assert keys(models) == {Q8}
    assert held() == ["Magistral-Small-2509-Q8_0.gguf", "mmproj-BF16.gguf"]
    assert cached_bytes() == 1_200_000
    assert entry(models, Q8).state == "complete"
    models.remove(Q8)
    assert keys(models) == set()
    assert not list(Path(constants.HF_HUB_CACHE).glob("models--*"))


def test_a_projector_that_another_repository_s_model_needs_stays(models: ModelLibrary) -> None:
    lent = f"{OTHER}:Q8_0"
    complete(models, Q4)
    assert complete(models, lent).total == 1_100_000
    models.remove(Q4)
    assert entry(models, lent).state == "complete"
    assert held() == ["Magistral-Small-2509-Q8_0.gguf", "mmproj-BF16.gguf"]
    models.remove(lent)
    assert not list(Path(constants.HF_HUB_CACHE).glob("models--*"))


def test_where_there_are_no_symbolic_links(models: ModelLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on most Windows computers."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    complete(models, Q4)
    complete(models, Q8)
    assert entry(models, Q4).on_disk == 1_000_000
    assert cached_bytes() == 0, "no file is there twice"
    models.remove(Q4)
    assert held() == ["Magistral-Small-2509-Q8_0.gguf", "mmproj-BF16.gguf"]
    models.remove(Q8)
    assert not list(Path(constants.HF_HUB_CACHE).glob("models--*"))


def test_what_is_in_use_is_not_removed(models: ModelLibrary) -> None:
    complete(models, Q4)
    complete(models, Q8)
    used: set[str] = models.used  # type: ignore[attr-defined]
    for name in (Q4, Q4.upper(), NAME):
        used.clear()
        used.add(name)
        with pytest.raises(ModelRefused):
            models.remove(Q4)
    used.clear()
    used.update((Q4, NAME))  # as the engine names a model of a repository that has no card
    models.remove(Q8)
    assert entry(models, Q4).state == "complete"


def test_quantized_copies_and_other_files_stay(models: ModelLibrary) -> None:
    complete(models, Q4)
    copy = copies_folder() / "copy"
    copy.mkdir(parents=True)
    (copy / ORIGIN_FILE).write_text(f'{{"model": "{NAME}"}}', encoding="utf-8")
    (folder,) = Path(constants.HF_HUB_CACHE).glob("models--unsloth*/snapshots/*")
    (folder / "mine.txt").write_text("mine", encoding="utf-8")
    models.remove(Q4)
    assert (copy / ORIGIN_FILE).exists()
    assert (folder / "mine.txt").exists()


def test_files_that_another_program_s_revision_has_stay(models: ModelLibrary) -> None:
    complete(models, Q4)
    (file,) = Path(constants.HF_HUB_CACHE).glob("models--unsloth*/snapshots/*/*Q4_K_M.gguf")
    other = file.parent.with_name("c" * 40)
    other.mkdir()
    (other / file.name).symlink_to(file.resolve())
    models.remove(Q4)
    assert (other / file.name).stat().st_size == 300_000
    assert not file.exists()


def test_paused_and_resumed(models: ModelLibrary, hub: Hub) -> None:
    hub.step = threading.Event()
    models.download(Q8)
    until(lambda: bool(entry(models, Q8).done))
    assert entry(models, Q8).state == "downloading"
    models.pause(Q8)
    paused = entry(models, Q8)
    assert (paused.state, paused.total) == ("paused", 1_200_000)
    let_go(models, hub, Q8)
    after_restart = entry(ModelLibrary(), Q8)
    assert (after_restart.state, after_restart.total) == ("partial", 1_200_000)
    assert 0 < after_restart.done < after_restart.total
    complete(models, Q8)


def test_what_is_removed_while_it_comes_stays_away(models: ModelLibrary, hub: Hub) -> None:
    complete(models, Q4)
    hub.step = threading.Event()
    models.download(Q8)
    until(lambda: bool(list(Path(constants.HF_HUB_CACHE).rglob("*.partial"))))
    models.pause(Q8)
    let_go(models, hub, Q8)
    models.remove(Q8)
    assert keys(models) == {Q4}
    assert held() == ["Magistral-Small-2509-Q4_K_M.gguf", "mmproj-BF16.gguf"]
    assert cached_bytes() == 1_000_000


def test_sizes_are_estimated_until_the_hub_was_asked(models: ModelLibrary) -> None:
    estimated = gguf_download_bytes(NAME, "Q4_K_M")
    assert 14.0e9 < estimated < 15.5e9, "13,670 MiB on the Hub, and the projector"
    assert gguf_download_bytes("nobody/nothing", "Q4_K_M") == gguf_download_bytes(NAME, "TQ1_0") == 0
    complete(models, Q4)
    assert gguf_download_bytes(NAME, "Q4_K_M") == 1_000_000


def test_the_way_to_a_quantization(files: Path) -> None:
    assert gguf_way(MAGISTRAL_1_2, "Q3_K_M") == f"{NAME}:Q3_K_M"
    assert gguf_way(MAGISTRAL_1_2, "Q8_0") == f"{NAME}:Q8_0"
    download_gguf(OTHER, "q8_0", None, lambda _: None, threading.Event())
    assert gguf_way(MAGISTRAL_1_2, "Q8_0") == f"{OTHER}:Q8_0", "what is here comes first"
    assert recorded_models(OTHER)[0].mmproj is not None
