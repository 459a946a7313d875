"""A quantized re-upload without Mistral's tokenizer file takes it from the original that its model card names."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants as constants
import pytest

from magistral_ui.engines.base import Loading
from magistral_ui.engines.weights.hub import Snapshot, download
from magistral_ui.errors import DownloadFailed
from magistral_ui.models.cards import MINISTRAL_3_8B
from tests.hub.server import Hub

COPY, MIDDLE, ORIGINAL = "someone/Ministral-bnb-4bit", "someone/Ministral", MINISTRAL_3_8B.repository or ""
LENT = ("tekken.json", "SYSTEM_PROMPT.txt")


@pytest.fixture
def copy(hub: Hub, folder: Path, tmp_path: Path) -> Path:
    """Served with its original, at the card's commit, and what lies between them; only the original has a tokenizer."""
    bare = tmp_path / "copy"
    shutil.copytree(folder, bare)
    for name in LENT:
        (bare / name).unlink()
    hub.add(ORIGINAL, folder, MINISTRAL_3_8B.revision or "")
    hub.add(MIDDLE, bare, "b" * 40).card = {"base_model": [ORIGINAL]}
    hub.add(COPY, bare, "c" * 40).card = {"base_model": ORIGINAL, "base_model_relation": "quantized"}
    return bare


def fetch(reports: list[Loading] | None = None, revision: str | None = None) -> Snapshot:
    return download(COPY, revision, ([] if reports is None else reports).append, threading.Event())


@pytest.mark.parametrize("base", [ORIGINAL, MIDDLE], ids=["one hop", "two hops"])
@pytest.mark.usefixtures("copy")
def test_the_tokenizer_comes_from_the_original(hub: Hub, folder: Path, base: str, offline: Callable[[], None]) -> None:
    hub.repositories[COPY].card["base_model"] = base
    reports: list[Loading] = []
    snapshot = fetch(reports)
    for name in LENT:
        assert (snapshot.folder / name).read_bytes() == (folder / name).read_bytes()
    assert snapshot.commit == "c" * 40
    tokenizer = (folder / "tekken.json").stat().st_size
    assert reports[-1].done == reports[-1].total == 3 * 300_000 + tokenizer, "what the original lends is counted"
    assert hub.files().count("tekken.json") == 1
    assert not [path for path in hub.asked if path.startswith(f"/{ORIGINAL}/resolve/main")]
    hub.served.clear()
    assert fetch() == snapshot
    assert hub.served == []
    offline()
    assert fetch() == snapshot


@pytest.mark.parametrize(
    "card",
    [
        {},
        {"base_model": COPY},
        {"base_model": "someone/nowhere"},
        {"base_model": [ORIGINAL, MIDDLE]},
        {"base_model": ORIGINAL, "base_model_relation": "finetune"},
        {"base_model": ORIGINAL, "base_model_relation": "merge"},
    ],
    ids=["no card", "itself", "gone", "several", "trained further", "merged"],
)
@pytest.mark.usefixtures("copy")
def test_without_a_certain_original_nothing_is_downloaded(hub: Hub, card: dict[str, object]) -> None:
    hub.repositories[COPY].card = card
    with pytest.raises(DownloadFailed) as refused:
        fetch()
    assert (refused.value.message.key, refused.value.message.values["file"]) == ("file_missing", "tekken.json")
    assert hub.served == []


NO_NAMES = ["../../etc/passwd", "/etc", "https://huggingface.co/a/b", "a--b/c", "a/b..c", "a/b.git", "a/b@main", "demo"]


@pytest.mark.parametrize(
    "base", [*NO_NAMES, "", " ", 5, {}, [[ORIGINAL]], [None], "a/" + "b" * 100_000], ids=lambda base: repr(base)[:20]
)
@pytest.mark.usefixtures("copy")
def test_what_is_no_repository_s_name_is_no_original(hub: Hub, base: object) -> None:
    hub.repositories[COPY].card = {"base_model": base}
    with pytest.raises(DownloadFailed) as refused:
        fetch()
    assert refused.value.message.values["file"] == "tekken.json"
    assert {path for path in hub.asked if not path.startswith(f"/api/models/{COPY}")} == set()


@pytest.mark.usefixtures("copy")
def test_a_chain_has_an_end(hub: Hub) -> None:
    hub.repositories["someone/between"] = hub.repositories[MIDDLE]
    hub.repositories["someone/first"] = hub.add("someone/first", hub.repositories[MIDDLE].folder, "d" * 40)
    hub.repositories["someone/first"].card = {"base_model": "someone/between"}
    hub.repositories[COPY].card = {"base_model": "someone/first"}
    with pytest.raises(DownloadFailed):
        fetch()


@pytest.mark.usefixtures("copy")
def test_a_spoiled_tokenizer_is_refused(hub: Hub) -> None:
    hub.repositories[ORIGINAL].spoiled.add("tekken.json")
    with pytest.raises(DownloadFailed) as refused:
        fetch()
    assert refused.value.message.key == "file_corrupt"
    assert not list(Path(constants.HF_HUB_CACHE).rglob("tekken.json"))
