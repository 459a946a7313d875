"""GGUF repositories over a loopback Hub: planned by a header before anything is downloaded, resumed, checked, and recorded."""

import json
import random
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants as constants
import pytest

from magistral_ui.engines.base import Loading
from magistral_ui.engines.gguf.repository import GGUFDownload, fetch, is_gguf_repository
from magistral_ui.engines.weights import gguf_download, gguf_record, large_files
from magistral_ui.engines.weights.gguf_record import RECORD_FILE, recorded_models
from magistral_ui.engines.weights.hub import download, read_config
from magistral_ui.engines.weights.pinned_revision import recorded
from magistral_ui.engines.weights.progress import Cancelled
from magistral_ui.errors import DeviceTooSmall, HoldsGGUF, MagistralUIError
from magistral_ui.i18n.texts import sentence, strings
from magistral_ui.models.cards import MAGISTRAL_1_2
from magistral_ui.models.gguf_file import GGUFFacts
from magistral_ui.models.memory import MemoryPlan
from tests.hub.gguf_repositories import SMALLEST, listed, make_mmproj, make_model, plan_of
from tests.hub.server import Hub, Repository

NAME = "someone/Tiny-GGUF"
OWN, OTHER = "mistralai/Magistral-Small-2509-GGUF", "unsloth/Magistral-Small-2509-GGUF"
SIZES = {"Q8_0": 400_000, "Q4_K_M": 200_000, "UD-Q4_K_XL": 220_000}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    made = tmp_path / "gguf"
    for label, size in SIZES.items():
        make_model(made / f"Tiny-{label}.gguf", size)
    for part in range(3):
        make_model(made / "BF16" / f"Tiny-BF16-0000{part + 1}-of-00003.gguf", 300_000 + part, part=(part, 3))
    make_mmproj(made / "mmproj-F16.gguf", 50_000)
    make_mmproj(made / "mmproj-BF16.gguf", 60_000)
    (made / "README.md").write_text("# Tiny", encoding="utf-8")
    (made / "config.json").write_text("{}", encoding="utf-8")
    return made


@pytest.fixture
def repository(hub: Hub, files: Path) -> Repository:
    return hub.add(NAME, files)


def fits(facts: GGUFFacts) -> MemoryPlan:
    return plan_of(facts, 131_072)


def get(
    label: str | None = "Q4_K_M",
    plan: Callable[[GGUFFacts], MemoryPlan] = fits,
    revision: str | None = None,
    reports: list[Loading] | None = None,
    name: str = NAME,
) -> GGUFDownload:
    return fetch(name, label, revision, plan, ([] if reports is None else reports).append, threading.Event())


def refusal(label: str | None = "Q4_K_M", name: str = NAME, revision: str | None = None) -> str:
    """The key of the sentence that fetching ends with; the sentence has no gap left."""
    with pytest.raises(MagistralUIError) as refused:
        get(label, name=name, revision=revision)
    assert f"error_{refused.value.message.key}" in strings()
    assert "{" not in sentence(refused.value.message)
    return refused.value.message.key


def assert_same(found: GGUFDownload, folder: Path, *names: str, mmproj: str | None = "mmproj-BF16.gguf") -> None:
    assert [file.read_bytes() for file in found.files] == [(folder / name).read_bytes() for name in names]
    assert [file.name for file in found.files] == [Path(name).name for name in names]
    if mmproj is None:
        assert found.mmproj is None
    else:
        assert found.mmproj is not None
        assert found.mmproj.read_bytes() == (folder / mmproj).read_bytes()
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.partial"))


def test_one_quantization_comes_with_its_projector(hub: Hub, repository: Repository, files: Path) -> None:
    reports: list[Loading] = []
    found = get(reports=reports)
    assert_same(found, files, "Tiny-Q4_K_M.gguf")
    assert (found.label, found.commit) == ("Q4_K_M", repository.commit)
    assert set(hub.files()) == {"Tiny-Q4_K_M.gguf", "mmproj-BF16.gguf"}
    assert reports[-1].done == reports[-1].total == SIZES["Q4_K_M"] + 60_000
    assert (recorded(NAME), is_gguf_repository(NAME)) == (repository.commit, True)
    assert get("ud-q4_k_xl").label == "UD-Q4_K_XL"


def test_a_later_start_asks_no_hub(hub: Hub, repository: Repository, offline: Callable[[], None]) -> None:
    first = get()
    hub.asked.clear()
    assert get() == first
    assert get(label="q4_k_m") == first
    assert get(label=None) == first
    assert hub.asked == []
    offline()
    assert get() == first
    assert refusal("Q8_0") == "hub_offline"


def test_the_hub_is_away_and_nothing_is_recorded(hub: Hub, repository: Repository, offline: Callable[[], None]) -> None:
    first = get()
    for reference in Path(constants.HF_HUB_CACHE).glob("*/refs/*"):
        reference.unlink()
    offline()
    assert get() == first


def test_all_parts_of_a_model_come(repository: Repository, files: Path) -> None:
    assert_same(get("BF16"), files, *(f"BF16/Tiny-BF16-0000{part}-of-00003.gguf" for part in (1, 2, 3)))


def test_the_plan_is_asked_before_the_download(hub: Hub, repository: Repository) -> None:
    def refuse(facts: GGUFFacts) -> MemoryPlan:
        assert facts.weights.mmproj == 60_000
        raise DeviceTooSmall(model=NAME, precision="", device="", free=0, needed=0, other="")

    with pytest.raises(DeviceTooSmall):
        get(plan=refuse)
    assert not list(Path(constants.HF_HUB_CACHE).rglob("blobs/*"))
    assert not is_gguf_repository(NAME)
    assert set(hub.files()) == {"Tiny-Q4_K_M.gguf", "mmproj-BF16.gguf"}


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_only_the_asked_range_is_read(
    hub: Hub, repository: Repository, files: Path, monkeypatch: pytest.MonkeyPatch, ranges: bool
) -> None:
    """Of a file that is larger than what both ends hold on their way."""
    monkeypatch.setattr(gguf_download, "HEADER_RANGE", 2**16)
    monkeypatch.setattr(gguf_download.read_hub_header, "__defaults__", (2**16,))
    make_model(files / "Tiny-Q4_K_M.gguf", 2**26)
    repository.ranges = ranges
    with pytest.raises(DeviceTooSmall):
        get(plan=lambda _: _refuse())
    sent = [each for each in hub.served if each.file == "Tiny-Q4_K_M.gguf"]
    assert len(sent) == 1
    assert sent[0].sent == 2**16 if ranges else sent[0].start == 0


def _refuse() -> MemoryPlan:
    raise DeviceTooSmall(model=NAME, precision="", device="", free=0, needed=0, other="")


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_a_long_header_takes_more_requests(hub: Hub, repository: Repository, files: Path, ranges: bool) -> None:
    make_model(files / "Tiny-Q4_K_M.gguf", 2**24, header=9 * 2**20)
    repository.ranges = ranges
    with pytest.raises(DeviceTooSmall):
        get(plan=lambda _: _refuse())
    starts = [each.start for each in hub.served if each.file == "Tiny-Q4_K_M.gguf"]
    assert starts == ([0, 2**23] if ranges else [0, 0])


def test_a_header_without_an_end_is_given_up(
    hub: Hub, repository: Repository, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_download, "MAX_HEADER_BYTES", 2**17)
    monkeypatch.setattr(gguf_download.read_hub_header, "__defaults__", (2**16,))
    make_model(files / "Tiny-Q4_K_M.gguf", 2**21, header=2**20)
    with pytest.raises(MagistralUIError) as refused:
        get()
    assert refused.value.message.key == "gguf_damaged"
    assert sum(each.sent for each in hub.served) <= 2**17


def test_a_cut_line_while_a_header_comes(hub: Hub, repository: Repository, files: Path) -> None:
    repository.cuts["Tiny-Q4_K_M.gguf"] = [1_000, 3_000]
    assert_same(get(), files, "Tiny-Q4_K_M.gguf")
    assert [each.start for each in hub.served if each.file == "Tiny-Q4_K_M.gguf"][:3] == [0, 1_000, 4_000]


@pytest.mark.parametrize("content", ["another architecture", "a projector", "no GGUF", "cut off"])
def test_what_is_no_model_of_ours_is_refused_from_its_header(
    hub: Hub, repository: Repository, files: Path, content: str
) -> None:
    file = files / "Tiny-Q4_K_M.gguf"
    match content:
        case "another architecture":
            make_model(file, architecture="qwen3")
        case "a projector":
            make_mmproj(file, 50_000)
        case "no GGUF":
            file.write_bytes(bytes(50_000))
        case "cut off":
            file.write_bytes(file.read_bytes()[:20_000])
    assert refusal() != "download_failed"
    assert not list(Path(constants.HF_HUB_CACHE).rglob("blobs/*"))


def test_an_unknown_quantization_is_told_those_that_there_are(repository: Repository) -> None:
    with pytest.raises(MagistralUIError) as refused:
        get("Q5_K_M")
    assert refused.value.message.values["names"] == "BF16, Q8_0, UD-Q4_K_XL, Q4_K_M"
    assert refusal("Q5_K_M") == "quantization_not_found"


def test_a_repository_of_a_hundred_quantizations(repository: Repository) -> None:
    repository.listed = [listed(f"Tiny-Q{n}_9.gguf", 10**9 + n) for n in range(100, 200)]
    with pytest.raises(MagistralUIError) as refused:
        get("nothing")
    assert str(refused.value.message.values["names"]).endswith(", …")
    assert get().label == "Q4_K_M"


def test_hostile_names_are_no_files(hub: Hub, repository: Repository, files: Path, tmp_path: Path) -> None:
    names = ("../../x-Q4_K_M.gguf", "/x-Q2_K.gguf", "x\n-Q2_K.gguf", "a/../../mmproj-BF16.gguf", "..\\x-Q2_K.gguf")
    repository.listed = [listed(name, 10**9) for name in names]
    repository.listed += [listed("Tiny-Q1_0.gguf", 10**9) | {"lfs": {"size": 9, "sha256": "../../x", "pointerSize": 1}}]
    assert_same(get(), files, "Tiny-Q4_K_M.gguf")
    assert refusal("Q2_K") == refusal("Q1_0") == "quantization_not_found"


def test_a_projector_is_known_by_its_contents(hub: Hub, repository: Repository, files: Path) -> None:
    make_mmproj(files / "mmproj-BF16.gguf", 60_000, width=64)
    assert_same(get(), files, "Tiny-Q4_K_M.gguf", mmproj="mmproj-F16.gguf")
    make_model(files / "mmproj-F16.gguf", SMALLEST * 2)
    assert_same(get("Q8_0"), files, "Tiny-Q8_0.gguf", mmproj=None)
    (files / "mmproj-F16.gguf").write_bytes(bytes(20_000))
    assert get("UD-Q4_K_XL").mmproj is None


def test_another_repository_of_the_card_lends_its_projector(
    hub: Hub, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = replace(MAGISTRAL_1_2, gguf_repositories=(OTHER, OWN))
    monkeypatch.setattr(gguf_download, "card_of_repository", lambda _: card)
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(files / "Tiny-Q8_0.gguf", bare)
    hub.add(OWN, bare, "a" * 40)
    assert get("Q8_0", name=OWN).mmproj is None, "the other one is not there"
    hub.add(OTHER, files, "b" * 40)
    shutil.rmtree(constants.HF_HUB_CACHE)
    found = get("Q8_0", name=OWN)
    assert found.mmproj is not None
    assert "models--unsloth--" in str(found.mmproj)
    assert found.mmproj.read_bytes() == (files / "mmproj-BF16.gguf").read_bytes()
    hub.asked.clear()
    assert get("Q8_0", name=OWN) == found
    assert hub.asked == []


@pytest.mark.parametrize("seed", range(6))
def test_a_line_cut_anywhere_continues(hub: Hub, repository: Repository, files: Path, seed: int) -> None:
    chance = random.Random(seed)
    cuts = [chance.randrange(1, 150_000) for _ in range(3)]
    repository.cuts["Tiny-Q8_0.gguf"] = [8_388_608, *cuts]  # the header's request is not cut
    assert_same(get("Q8_0"), files, "Tiny-Q8_0.gguf")


def test_after_a_restart_it_continues(hub: Hub, repository: Repository, files: Path) -> None:
    repository.cuts["Tiny-Q8_0.gguf"] = [8_388_608, 100_000] + [0] * 20
    assert refusal("Q8_0") == "connection_lost"
    (begun,) = recorded_models(NAME)
    assert not begun.is_complete
    assert 100_000 <= begun.bytes_here < begun.bytes
    repository.cuts.clear()
    before = len(hub.served)
    assert_same(get("Q8_0"), files, "Tiny-Q8_0.gguf")
    assert [each.start for each in hub.served[before:] if each.file == "Tiny-Q8_0.gguf"] == [0, 100_000]


def test_a_wrong_checksum_is_detected(repository: Repository, files: Path) -> None:
    repository.spoiled.add("Tiny-Q8_0.gguf")
    assert refusal("Q8_0") == "file_corrupt"
    repository.spoiled.clear()
    assert_same(get("Q8_0"), files, "Tiny-Q8_0.gguf")


def test_a_file_that_changes_meanwhile_leaves_nothing_behind(
    hub: Hub, repository: Repository, files: Path, tmp_path: Path
) -> None:
    repository.cuts["Tiny-Q8_0.gguf"] = [8_388_608, 100_000] + [0] * 20
    assert refusal("Q8_0") == "connection_lost"
    other = shutil.copytree(files, tmp_path / "other")
    changed = other / "Tiny-Q8_0.gguf"
    changed.write_bytes(changed.read_bytes()[:-1] + b"?")
    hub.add(NAME, other, "d" * 40)
    assert_same(get("Q8_0"), other, "Tiny-Q8_0.gguf")
    assert [model.commit for model in recorded_models(NAME)] == ["d" * 40]


def test_a_recorded_commit_that_is_gone(hub: Hub, repository: Repository, files: Path) -> None:
    get()
    hub.add(NAME, files, "d" * 40)
    assert refusal("Q8_0") == "own_revision_gone"
    assert refusal("Q8_0", revision="v9") == "revision_not_found"
    assert get("Q8_0", revision="d" * 40).commit == "d" * 40


def test_a_full_disk_is_known_before_anything_is_fetched(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = large_files.shutil.disk_usage(".")
    monkeypatch.setattr(large_files.shutil, "disk_usage", lambda _: usage._replace(free=100_000))
    assert refusal() == "disk_full"
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.partial"))


def test_a_file_too_large_for_plain_downloads_is_refused(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "MAX_HTTP_DOWNLOAD_SIZE", 300_000)
    assert refusal("Q8_0") == "download_failed"
    assert get("Q4_K_M").label == "Q4_K_M"


def test_a_cache_that_cannot_be_written(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(gguf_record, "_write", refuse)
    assert refusal() == "download_failed"


def test_refusals_of_the_hub(hub: Hub, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(name="nobody/nothing-GGUF") == "repository_not_found"
    repository.hidden.add("Tiny-Q8_0.gguf")
    assert refusal("Q8_0") == "file_gone"
    repository.token = "mine"
    assert refusal() == "repository_not_found"
    repository.gated = True
    assert refusal() == "access_denied"
    monkeypatch.setenv("HF_TOKEN", "expired")
    assert refusal() == "token_refused"


def test_a_repository_without_gguf(hub: Hub, folder: Path) -> None:
    hub.add(NAME, folder)
    assert refusal() == "gguf_missing"


def test_closing_ends_it(repository: Repository) -> None:
    closing = threading.Event()
    closing.set()
    with pytest.raises(Cancelled):
        fetch(NAME, "Q8_0", None, fits, lambda _: None, closing)


def test_a_damaged_record_is_none(repository: Repository) -> None:
    first = get()
    (record,) = Path(constants.HF_HUB_CACHE).glob(f"*/{RECORD_FILE}")
    for content in (b"", b"[]", b"{", b'[{"label": "x", "files": []}]', b"\xff" * 9, b"[" * 100_000):
        record.write_bytes(content)
        assert recorded_models(NAME) == []
    file = {"repository": "a/b", "commit": "a" * 40, "name": "../../../x", "size": 1, "sha256": "b" * 64}
    hostile = json.dumps([{"label": "Q4_K_M", "files": [file]}])
    record.write_text(hostile, encoding="utf-8")
    assert recorded_models(NAME) == []
    assert get() == first


@pytest.mark.parametrize("has_config", [True, False])
def test_the_other_engine_recognises_a_gguf_repository(
    hub: Hub, repository: Repository, files: Path, has_config: bool
) -> None:
    if not has_config:
        (files / "config.json").unlink()
    for ask in (lambda: read_config(NAME, None), lambda: download(NAME, None, lambda _: None, threading.Event())):
        with pytest.raises(HoldsGGUF):
            ask()
    assert hub.served == []
