"""Each card's model from a hub on loopback to a reply, through the real engine, in the layout of their repositories."""

import io
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub.constants as constants
import pytest
from PIL import Image

from magistral_ui.chat.events import Finished
from magistral_ui.chat.images import ImageFile, read_image
from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import Broken, EngineStatus, GenerationRequest, Loading, Ready
from magistral_ui.engines.local.engine import LocalEngine
from magistral_ui.engines.weights import devices, quantized_cache, source
from magistral_ui.i18n.texts import sentence
from magistral_ui.models.cards import DEMO, FAMILY, MAGISTRAL_1_0, MAGISTRAL_1_1, MAGISTRAL_1_2, ModelCard
from magistral_ui.models.folder import inspect_folder
from tests.engines.following import follow
from tests.hub.checkpoints import make_repository
from tests.hub.server import Hub

CARDS = [*FAMILY, MAGISTRAL_1_1, MAGISTRAL_1_0]
SERVED = {"config.json", "generation_config.json", "tekken.json", "SYSTEM_PROMPT.txt", "model.safetensors.index.json"}


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("repositories")
    return {card.key: make_repository(base / card.key, card) for card in CARDS}


@pytest.fixture
def large_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has room for 24 billion parameters: the cards tell so many, whatever the files hold."""
    memory = devices.psutil.virtual_memory()._replace(available=2**39, total=2**39)
    monkeypatch.setattr(devices.psutil, "virtual_memory", lambda: memory)


@pytest.fixture
def run(hub: Hub, repositories: dict[str, Path]) -> Iterator[Callable[..., LocalEngine]]:
    """Starts an engine and waits until it is ready or broken; all are closed afterwards."""
    engines: list[LocalEngine] = []
    for card in CARDS:
        hub.add(card.repository or "", repositories[card.key], card.revision or "")

    def started(model: str | None, **options: object) -> LocalEngine:
        engine = LocalEngine(model, device="cpu", **options)  # type: ignore[arg-type]
        engines.append(engine)
        engine.start()
        wait(engine)
        return engine

    yield started
    for engine in engines:
        engine.close()


def wait(engine: LocalEngine) -> EngineStatus:
    for _ in range(12_000):
        if not isinstance(engine.status(), Loading):
            break
        time.sleep(0.01)
    return engine.status()


def ask(engine: LocalEngine, image: ImageFile | None = None) -> Finished:
    turn = UserTurn("What is 12 + 30?", (image,) if image else (), message=1)
    params = SamplingParams(temperature=0.0, max_tokens=12, seed=1)
    generation = engine.submit(GenerationRequest(Prompt(engine.card.system(), (turn,)), params, "ann"))
    events = list(follow(generation))
    assert isinstance(events[-1], Finished)
    return events[-1]


def square() -> ImageFile:
    out = io.BytesIO()
    Image.new("RGB", (60, 60), "red").save(out, "PNG")
    return read_image(out.getvalue(), "red.png")


@pytest.mark.usefixtures("large_computer")
@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.key)
def test_each_card_comes_from_its_repository_and_answers(
    hub: Hub, run: Callable[..., LocalEngine], repositories: dict[str, Path], card: ModelCard
) -> None:
    engine = run(card.key)
    status = engine.status()
    assert isinstance(status, Ready), status
    shards = {file.name for file in repositories[card.key].glob("model-*")}
    assert len(shards) > 2
    assert set(hub.files()) == SERVED | shards, "and not the second format, which is as large again"
    assert (status.info.source, status.info.revision) == (
        card.repository,
        hub.repositories[card.repository or ""].commit,
    )
    assert status.info.name == card.name
    assert status.info.plan is not None
    assert (engine.card.vision, engine.card.marks) == (card.vision, card.marks)
    assert engine.card.sampling == card.sampling
    assert engine.card.system() == card.system()
    finished = ask(engine, square() if card.vision else None)
    assert finished.usage.completion_tokens == 12
    assert finished.usage.prompt_tokens > 100


@pytest.mark.usefixtures("large_computer")
def test_an_older_tokenizer_without_marks_works_as_1_0(
    hub: Hub, run: Callable[..., LocalEngine], tmp_path: Path
) -> None:
    hub.add("someone/older", make_repository(tmp_path / "older", MAGISTRAL_1_0, "v7"))
    engine = run("someone/older")
    assert isinstance(engine.status(), Ready), engine.status()
    assert engine.card.marks == "text"
    assert engine.card.name == "older"
    assert ask(engine).usage.completion_tokens == 12


@pytest.mark.usefixtures("large_computer")
def test_the_head_is_not_taken_for_the_embedding(repositories: dict[str, Path]) -> None:
    """transformers takes Mistral3's weights for tied where config.json is silent, as the published one is."""
    assert not inspect_folder(repositories[MAGISTRAL_1_2.key]).shape.tied


@pytest.mark.usefixtures("large_computer")
def test_a_broken_download_is_said_and_retry_mends_it(hub: Hub, run: Callable[..., LocalEngine]) -> None:
    name = MAGISTRAL_1_1.repository or ""
    repository = hub.repositories[name]
    shard = sorted(repository.folder.glob("model-*"))[0].name
    repository.spoiled.add(shard)
    engine = run(MAGISTRAL_1_1.key)
    status = engine.status()
    assert isinstance(status, Broken)
    assert (status.key, status.values["file"]) == ("file_corrupt", shard)
    repository.spoiled.clear()
    engine.retry()
    assert isinstance(wait(engine), Ready)
    assert ask(engine).usage.completion_tokens == 12


def test_what_cannot_fit_is_not_downloaded(
    hub: Hub, run: Callable[..., LocalEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = devices.psutil.virtual_memory()._replace(available=2**33, total=2**33)
    monkeypatch.setattr(devices.psutil, "virtual_memory", lambda: memory)
    status = run(MAGISTRAL_1_2.key).status()
    assert isinstance(status, Broken)
    assert status.key == "device_too_small"
    assert status.values["precision"] == "nf4"
    memory = memory._replace(available=2**35, total=2**35)
    status = run(MAGISTRAL_1_2.key, precision="bfloat16").status()
    assert isinstance(status, Broken)
    assert (status.key, status.values["other"]) == ("precision_too_large", "nf4")
    assert not hub.served


@pytest.mark.usefixtures("large_computer")
@pytest.mark.parametrize("kind", ["mistral4", "mistral_large4", "llama"])
def test_what_cannot_run_here_is_not_downloaded(
    hub: Hub, run: Callable[..., LocalEngine], repositories: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    """Mistral Small 4 calls itself mistral3 outside, as Magistral does."""
    folder = Path(shutil.copytree(repositories[MAGISTRAL_1_2.key], tmp_path / kind))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["text_config"]["model_type"] = kind
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    hub.add("mistralai/other", folder)
    status = run("mistralai/other").status()
    assert isinstance(status, Broken)
    assert (status.key, status.values["found"]) == ("not_a_mistral_model", kind)
    assert "--base-url" in sentence(status)
    assert hub.files() == ["config.json"]


@pytest.mark.usefixtures("large_computer")
def test_a_slow_processor_is_told_before_the_download(
    hub: Hub, run: Callable[..., LocalEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "has_fast_nf4", lambda: False)
    monkeypatch.setattr(devices.torch, "get_num_threads", lambda: 1)
    told: list[tuple[str, tuple[str, ...], int]] = []
    report = LocalEngine._report

    def listen(engine: LocalEngine, status: Loading) -> None:
        told.append((status.stage, tuple(each.key for each in status.notices), len(hub.files())))
        report(engine, status)

    monkeypatch.setattr(LocalEngine, "_report", listen)
    status = run(MAGISTRAL_1_2.key, precision="nf4").status()
    assert isinstance(status, Ready), status
    assert [each.key for each in status.info.notices] == ["slow_processor"]
    assert ("downloading", ("slow_processor",), 0) in told


@pytest.mark.usefixtures("large_computer")
def test_only_auto_downloads_what_nobody_named(
    hub: Hub, run: Callable[..., LocalEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "pace_of", lambda device: lambda shape, precision: (9.0, False))
    status = run(None).status()
    assert isinstance(status, Ready), status
    assert (status.info.name, status.info.chosen_because) == (DEMO.name, "model_chosen_not_downloaded")
    assert not hub.served
    status = run("auto").status()
    assert isinstance(status, Ready), status
    assert (status.info.name, status.info.chosen_because) == (MAGISTRAL_1_2.name, "model_chosen_cpu_fits")
    hub.served.clear()
    hub.repositories.clear()
    status = run(None).status()
    assert isinstance(status, Ready), status
    assert status.info.name == MAGISTRAL_1_2.name, "what is complete here runs without being named"
    assert not hub.served
    monkeypatch.setattr(source, "pace_of", lambda device: lambda shape, precision: (1.0, False))
    status = run(None).status()
    assert isinstance(status, Ready), status
    assert (status.info.name, status.info.chosen_because) == (DEMO.name, "model_chosen_too_slow")


@pytest.mark.usefixtures("large_computer")
def test_a_saved_copy_is_read_the_next_time(hub: Hub, run: Callable[..., LocalEngine], tmp_path: Path) -> None:
    copy = str(tmp_path / "copy")
    first = run(MAGISTRAL_1_2.key, precision="nf4", save_quantized=copy)
    assert isinstance(first.status(), Ready), first.status()
    assert ask(first).usage.completion_tokens == 12
    first.close()
    hub.served.clear()
    hub.repositories.clear()
    again = run(MAGISTRAL_1_2.key, precision="nf4", save_quantized=copy)
    status = again.status()
    assert isinstance(status, Ready), status
    assert status.info.precision == "nf4"
    assert again.card.system() == MAGISTRAL_1_2.system()
    assert ask(again, square()).usage.completion_tokens == 12
    assert not hub.served


@pytest.fixture
def worth_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' models are small, and their disk may be full: here each is worth keeping, and there is room."""
    monkeypatch.setattr(quantized_cache, "MIN_CACHED_BYTES", 1_000)
    usage = quantized_cache.shutil.disk_usage("/")._replace(free=2**40)
    monkeypatch.setattr(quantized_cache.shutil, "disk_usage", lambda _: usage)


@pytest.mark.usefixtures("large_computer", "worth_a_copy")
@pytest.mark.parametrize("card", [MAGISTRAL_1_2, MAGISTRAL_1_0], ids=lambda card: card.key)
def test_a_copy_is_kept_by_itself_and_needs_the_original_no_more(
    hub: Hub, run: Callable[..., LocalEngine], card: ModelCard
) -> None:
    first = run(card.key, precision="nf4")
    assert isinstance(first.status(), Ready), first.status()
    said = ask(first)
    (copy,) = quantized_cache.copies_folder().iterdir()
    assert quantized_cache.copies_held()[0] == 1
    commit = hub.repositories[card.repository or ""].commit
    assert copy.name == f"{(card.repository or '').replace('/', '--')}--{commit[:12]}--nf4"
    first.close()
    hub.served.clear()
    for blob in Path(constants.HF_HUB_CACHE).rglob("blobs/*"):
        blob.unlink()
    again = run(card.key, precision="nf4")
    status = again.status()
    assert isinstance(status, Ready), status
    assert (status.info.precision, status.info.revision, status.info.source) == ("nf4", commit, card.repository)
    assert ask(again).usage.prompt_tokens == said.usage.prompt_tokens
    assert not hub.served


@pytest.mark.usefixtures("large_computer", "worth_a_copy")
def test_a_damaged_copy_is_made_again(run: Callable[..., LocalEngine], hub: Hub) -> None:
    run(MAGISTRAL_1_1.key, precision="int8").close()
    (copy,) = quantized_cache.copies_folder().iterdir()
    weights = copy / "model.safetensors"
    size = weights.stat().st_size
    weights.write_bytes(weights.read_bytes()[:-10])
    hub.served.clear()
    assert isinstance(run(MAGISTRAL_1_1.key, precision="int8").status(), Ready)
    assert weights.stat().st_size == size
    assert not hub.served


@pytest.mark.usefixtures("large_computer", "worth_a_copy")
def test_nobody_s_start_fails_for_a_copy_that_nobody_asked_for(
    run: Callable[..., LocalEngine], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file, not a folder", encoding="utf-8")
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(blocked))
    assert isinstance(run(MAGISTRAL_1_1.key, precision="nf4").status(), Ready)


@pytest.mark.usefixtures("large_computer")
@pytest.mark.parametrize("wanted", ["no", "auto"])
def test_no_copy_where_none_is_wanted_or_none_is_worth_it(run: Callable[..., LocalEngine], wanted: str) -> None:
    assert isinstance(run(MAGISTRAL_1_1.key, precision="nf4", save_quantized=wanted).status(), Ready)
    assert not quantized_cache.copies_folder().exists()


@pytest.mark.usefixtures("large_computer")
def test_a_disk_without_room_for_a_wanted_copy_is_known_before_the_work(
    run: Callable[..., LocalEngine], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = quantized_cache.shutil.disk_usage("/")._replace(free=2**30)
    monkeypatch.setattr(quantized_cache.shutil, "disk_usage", lambda _: usage)
    status = run(MAGISTRAL_1_1.key, precision="nf4", save_quantized=str(tmp_path / "copy")).status()
    assert isinstance(status, Broken)
    assert status.key == "copy_no_room"
    assert not (tmp_path / "copy").exists()


@pytest.mark.usefixtures("large_computer")
def test_a_changed_folder_is_not_read_from_its_old_copy(
    run: Callable[..., LocalEngine], tmp_path: Path, repositories: dict[str, Path]
) -> None:
    folder, copy = tmp_path / "model", tmp_path / "copy"
    shutil.copytree(repositories[MAGISTRAL_1_1.key], folder)
    run(str(folder), precision="nf4", save_quantized=str(copy)).close()
    before = (copy / quantized_cache.ORIGIN_FILE).read_text(encoding="utf-8")
    run(str(folder), precision="nf4", save_quantized=str(copy)).close()
    assert (copy / quantized_cache.ORIGIN_FILE).read_text(encoding="utf-8") == before
    shard = sorted(folder.glob("model-*"))[0]
    os.utime(shard, ns=(1, 1))
    assert isinstance(run(str(folder), precision="nf4", save_quantized=str(copy)).status(), Ready)
    assert (copy / quantized_cache.ORIGIN_FILE).read_text(encoding="utf-8") != before


@pytest.mark.usefixtures("large_computer")
def test_weights_never_change_by_themselves(hub: Hub, run: Callable[..., LocalEngine]) -> None:
    name = MAGISTRAL_1_0.repository or ""
    repository = hub.repositories[name]
    first, newer = repository.commit, "b" * 40

    def revision(**options: object) -> str:
        engine = run(MAGISTRAL_1_0.key, **options)
        status = engine.status()
        engine.close()
        assert isinstance(status, Ready), status
        return status.info.revision

    assert revision() == first
    repository.commit = newer  # somebody pushes
    hub.served.clear()
    hub.asked.clear()
    assert revision() == first
    assert not hub.served
    assert not hub.asked, "the Hub is not even asked"
    assert revision(revision="main") == newer
    assert revision() == newer, "until another one is named"
    assert revision(revision=first) == first
    assert revision() == first


@pytest.mark.usefixtures("large_computer")
def test_a_hub_without_our_revision_says_how_to_take_its_newest(hub: Hub, run: Callable[..., LocalEngine]) -> None:
    hub.repositories[MAGISTRAL_1_2.repository or ""].commit = "c" * 40
    status = run(MAGISTRAL_1_2.key).status()
    assert isinstance(status, Broken)
    assert status.key == "own_revision_gone"
    assert "--revision main" in sentence(status)
    assert isinstance(run(MAGISTRAL_1_2.key, revision="main").status(), Ready)


@pytest.mark.usefixtures("large_computer")
def test_a_folder_in_which_something_else_lies_is_left_alone(
    hub: Hub, run: Callable[..., LocalEngine], tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    status = run(MAGISTRAL_1_2.key, precision="nf4", save_quantized=str(tmp_path)).status()
    assert isinstance(status, Broken)
    assert status.key == "copy_folder_in_use"
    assert (tmp_path / "thesis.txt").exists()
    assert not hub.served


@pytest.mark.usefixtures("large_computer")
def test_closing_while_downloading_ends_soon(hub: Hub, run: Callable[..., LocalEngine]) -> None:
    hub.step = threading.Event()
    engine = LocalEngine(MAGISTRAL_1_2.key, device="cpu")
    engine.start()
    for _ in range(1_000):
        status = engine.status()
        if isinstance(status, Loading) and status.stage == "downloading" and status.total:
            break
        time.sleep(0.01)
    hub.step.set()
    engine.close()
    assert engine._thread is not None
    assert not engine._thread.is_alive()
