"""Downloading, against the Hub's real client: what is fetched, what resumes after a break, and what each failure says."""

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants as constants
import huggingface_hub.utils._http as http
import pytest

from magistral_ui.engines.base import Loading
from magistral_ui.engines.weights import hub as hub_module
from magistral_ui.engines.weights import large_files
from magistral_ui.engines.weights.hub import Snapshot, download
from magistral_ui.engines.weights.progress import Cancelled
from magistral_ui.errors import MagistralUIError
from magistral_ui.i18n.texts import sentence, strings
from tests.hub.server import Hub, Repository

NAME = "mistralai/Magistral-Small-2509"
SHARD = "model-00002-of-00003.safetensors"
WANTED = {
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "tekken.json",
    "SYSTEM_PROMPT.txt",
    *(f"model-0000{part}-of-00003.safetensors" for part in (1, 2, 3)),
}


@pytest.fixture
def repository(hub: Hub, folder: Path) -> Repository:
    return hub.add(NAME, folder)


def fetch(revision: str | None = None, reports: list[Loading] | None = None, name: str = NAME) -> Snapshot:
    return download(name, revision, ([] if reports is None else reports).append, threading.Event())


def refusal(name: str = NAME, revision: str | None = None) -> str:
    """The key of the sentence that downloading ends with; the sentence has no gap left."""
    with pytest.raises(MagistralUIError) as refused:
        fetch(revision, name=name)
    assert f"error_{refused.value.message.key}" in strings()
    assert "{" not in sentence(refused.value.message)
    return refused.value.message.key


def assert_whole(snapshot: Snapshot, folder: Path) -> None:
    assert {file.name for file in snapshot.folder.iterdir()} == WANTED
    for name in WANTED:
        assert (snapshot.folder / name).read_bytes() == (folder / name).read_bytes()
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.partial"))


def test_only_what_is_needed_is_fetched_and_it_is_whole(hub: Hub, repository: Repository, folder: Path) -> None:
    snapshot = fetch()
    assert_whole(snapshot, folder)
    assert snapshot.commit == repository.commit
    assert set(hub.files()) == WANTED
    assert len(hub.served) == len(WANTED)


def test_nothing_is_fetched_twice(hub: Hub, repository: Repository) -> None:
    first = fetch()
    hub.served.clear()
    assert fetch() == first
    assert not hub.served


def test_a_pinned_commit_is_what_comes(hub: Hub, repository: Repository, folder: Path) -> None:
    assert_whole(fetch(repository.commit), folder)
    assert refusal(revision="0" * 40) == "revision_not_found"
    assert refusal(revision="v9") == "revision_not_found"


def test_progress_is_told_in_bytes(repository: Repository, folder: Path) -> None:
    reports: list[Loading] = []
    fetch(reports=reports)
    large = sum((folder / name).stat().st_size for name in WANTED if name.startswith(("model-", "tekken")))
    assert {report.stage for report in reports} == {"downloading"}
    assert (reports[-1].done, reports[-1].total) == (large, large)
    assert [r.done for r in reports] == sorted(r.done for r in reports)


def test_a_cut_line_continues_where_it_broke(hub: Hub, repository: Repository, folder: Path) -> None:
    repository.cuts[SHARD] = [100_000, 50_000]
    assert_whole(fetch(), folder)
    starts = [each.start for each in hub.served if each.file == SHARD]
    assert starts[0] == 0
    assert 0 < starts[1] < starts[2] < 150_001


def test_after_a_restart_it_continues_too(hub: Hub, repository: Repository, folder: Path) -> None:
    repository.cuts[SHARD] = [100_000] + [0] * 20
    assert refusal() == "connection_lost"
    assert not list(Path(constants.HF_HUB_CACHE).rglob("snapshots/*/model-*")), "half a model must not look like one"
    repository.cuts.clear()
    before = len(hub.served)
    reports: list[Loading] = []
    assert_whole(fetch(reports=reports), folder)
    again = [each for each in hub.served[before:] if each.file == SHARD]
    assert [each.start for each in again] == [100_000]
    assert reports[1].done >= 100_000


def test_a_server_without_ranges_begins_again(hub: Hub, repository: Repository, folder: Path) -> None:
    repository.ranges = False
    repository.cuts[SHARD] = [100_000]
    assert_whole(fetch(), folder)


def test_a_corrupt_shard_is_deleted_and_fetched_again(hub: Hub, repository: Repository, folder: Path) -> None:
    repository.spoiled.add(SHARD)
    assert refusal() == "file_corrupt"
    blobs = {file.stat().st_size for file in Path(constants.HF_HUB_CACHE).rglob("blobs/*")}
    assert not list(Path(constants.HF_HUB_CACHE).rglob(f"snapshots/*/{SHARD}"))
    assert blobs
    repository.spoiled.clear()
    assert_whole(fetch(), folder)
    assert len([each for each in hub.served if each.file == SHARD]) == 2


def test_a_partial_file_that_is_not_the_file_s_beginning_is_detected(hub: Hub, repository: Repository) -> None:
    repository.cuts[SHARD] = [100_000] + [0] * 20
    assert refusal() == "connection_lost"
    (partial,) = (p for p in Path(constants.HF_HUB_CACHE).rglob("*.partial") if p.stat().st_size == 100_000)
    partial.write_bytes(bytes(100_000))
    repository.cuts.clear()
    assert refusal() == "file_corrupt"
    assert fetch()


def test_a_full_disk_is_known_before_anything_is_fetched(
    hub: Hub, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = large_files.shutil.disk_usage(".")
    monkeypatch.setattr(large_files.shutil, "disk_usage", lambda _: usage._replace(free=500_000))
    assert refusal() == "disk_full"
    assert not hub.served


def test_a_disk_that_becomes_full_meanwhile(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel itself refuses to write: the unfinished file is /dev/full."""
    opened = Path.open

    def full(path: Path, mode: str = "r", *more: object, **named: object) -> object:
        return opened(Path("/dev/full") if path.suffix == ".partial" and "a" in mode else path, mode, *more, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", full)
    assert refusal() == "disk_full"


def test_a_wrong_token(hub: Hub, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "expired")
    assert refusal() == "token_refused"


@pytest.mark.parametrize("token", [None, "someone else's"])
def test_a_gated_repository(repository: Repository, monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    repository.token, repository.gated = "mine", True
    if token:
        monkeypatch.setenv("HF_TOKEN", token.replace(" ", "-").replace("'", ""))
    assert refusal() == "access_denied"


def test_the_right_token_opens_and_goes_nowhere_else(
    hub: Hub, repository: Repository, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.token = "mine"
    assert refusal() == "repository_not_found"
    monkeypatch.setenv("HF_TOKEN", "mine")
    assert_whole(fetch(), folder)
    assert {each.authorization for each in hub.served if each.file.endswith(".safetensors")} == {None}


def test_no_such_repository(hub: Hub) -> None:
    assert refusal("nobody/nothing") == "repository_not_found"


@pytest.mark.parametrize("name", ["config.json", "tekken.json"])
def test_a_file_that_the_repository_lacks_is_named_before_48_gb(
    hub: Hub, repository: Repository, folder: Path, name: str
) -> None:
    (folder / name).unlink()
    assert refusal() == "file_missing"
    assert not hub.served


def test_a_repository_without_weights_for_us(hub: Hub, repository: Repository, folder: Path) -> None:
    for part in (1, 2, 3):
        (folder / f"model-0000{part}-of-00003.safetensors").unlink()
    assert refusal() == "file_missing"


def test_a_shard_that_is_listed_but_gone(repository: Repository) -> None:
    repository.hidden.add(SHARD)
    assert refusal() == "file_gone"


def test_offline_afterwards(hub: Hub, repository: Repository, offline: Callable[[], None]) -> None:
    first = fetch()
    hub.served.clear()
    offline()
    assert fetch() == first
    assert fetch(repository.commit) == first
    assert not hub.served


def test_offline_before(repository: Repository, offline: Callable[[], None]) -> None:
    offline()
    assert refusal() == "hub_offline"


def test_without_a_network(hub: Hub, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "time", SimpleNamespace(sleep=lambda _: None))  # the client's pauses between its attempts
    first = fetch()
    for name, value in (("ENDPOINT", "http://127.0.0.1:9"),):
        monkeypatch.setattr(constants, name, value)
    assert fetch() == first
    assert refusal("owner/other") == "hub_unreachable"
    url = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
    with pytest.raises(MagistralUIError) as refused:
        hub_module.read_config("owner/other", None)
    assert refused.value.message.key == "hub_unreachable"


def test_half_a_download_is_not_a_model_without_a_network(repository: Repository, offline: Callable[[], None]) -> None:
    repository.cuts[SHARD] = [100_000] + [0] * 20
    assert refusal() == "connection_lost"
    offline()
    assert refusal() == "hub_offline"


def test_closing_gives_up_soon_and_keeps_what_has_come(hub: Hub, repository: Repository, folder: Path) -> None:
    hub.step, closing = threading.Event(), threading.Event()

    def report(loading: Loading) -> None:
        if loading.total:
            closing.set()
            hub.step.set()  # type: ignore[union-attr]

    with pytest.raises(Cancelled):
        download(NAME, None, report, closing)
    hub.step = None
    assert_whole(fetch(), folder)


@pytest.fixture
def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows without developer mode, and on disks that know no symbolic links."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)


def held_bytes() -> int:
    """Of all large files in the cache."""
    files = [file for file in Path(constants.HF_HUB_CACHE).rglob("*") if file.is_file() and not file.is_symlink()]
    return sum(file.stat().st_size for file in files if file.stat().st_size > 10_000)


@pytest.mark.usefixtures("without_links")
def test_without_symbolic_links_each_file_stands_once(hub: Hub, repository: Repository, folder: Path) -> None:
    first = fetch()
    assert_whole(first, folder)
    assert not any(file.is_symlink() for file in first.folder.iterdir())
    large = sum(file.stat().st_size for name in WANTED if (file := folder / name).stat().st_size > 10_000)
    assert held_bytes() == large
    hub.served.clear()
    assert fetch() == first
    assert fetch(repository.commit) == first
    assert not hub.served


@pytest.mark.usefixtures("without_links")
def test_without_symbolic_links_the_disk_needs_room_for_one(
    hub: Hub, repository: Repository, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = sum((folder / name).stat().st_size for name in WANTED if name.startswith(("model-", "tekken")))
    usage = large_files.shutil.disk_usage(".")
    free = needed + large_files.MIN_FREE_BYTES
    monkeypatch.setattr(large_files.shutil, "disk_usage", lambda _: usage._replace(free=free - 1))
    assert refusal() == "disk_full"
    monkeypatch.setattr(large_files.shutil, "disk_usage", lambda _: usage._replace(free=free))
    assert_whole(fetch(), folder)


@pytest.mark.usefixtures("without_links")
def test_without_symbolic_links_half_a_download_does_not_look_like_a_model(
    hub: Hub, repository: Repository, folder: Path
) -> None:
    repository.cuts[SHARD] = [100_000] + [0] * 20
    assert refusal() == "connection_lost"
    assert not list(Path(constants.HF_HUB_CACHE).rglob("snapshots/*/model-*"))
    repository.cuts.clear()
    before = len(hub.served)
    assert_whole(fetch(), folder)
    assert [each.start for each in hub.served[before:] if each.file == SHARD] == [100_000]


@pytest.mark.usefixtures("without_links")
def test_a_copy_that_an_older_version_left_goes(repository: Repository, folder: Path) -> None:
    """It kept each file by its digest too."""
    snapshot = fetch()
    for file in snapshot.folder.glob("model-*.safetensors"):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        (snapshot.folder.parents[1] / "blobs" / digest).write_bytes(file.read_bytes())
    twice = held_bytes()
    assert_whole(fetch(), folder)
    assert held_bytes() == twice - 3 * 300_000


def test_links_from_before_keep_their_files(
    repository: Repository, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fetch()
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    assert fetch() == first
    assert_whole(first, folder)


def test_it_is_the_usual_cache(repository: Repository) -> None:
    """Other programs find the model there too."""
    from huggingface_hub import scan_cache_dir

    snapshot = fetch()
    (found,) = scan_cache_dir(constants.HF_HUB_CACHE).repos
    assert found.repo_id == NAME
    assert {revision.commit_hash for revision in found.revisions} == {snapshot.commit}
    assert all(os.path.islink(file) for file in snapshot.folder.iterdir())
