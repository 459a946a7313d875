"""What a request for a GGUF model resolves to: files, projector, tokenizer and card; or a sentence."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from magistral_ui.engines.base import ModelRequest
from magistral_ui.engines.gguf import cache_folder, default_model, source
from magistral_ui.engines.gguf.demo_file import demo_files, mmproj_parts, write_mmproj
from magistral_ui.engines.gguf.devices import LlamaDevice
from magistral_ui.engines.gguf.fitting import plan_fitting
from magistral_ui.engines.gguf.repository import GGUFDownload
from magistral_ui.engines.gguf.source import GGUFSource, find_gguf, names_gguf
from magistral_ui.engines.gguf.writer import write_gguf
from magistral_ui.engines.weights import gguf_entries
from magistral_ui.engines.weights.gguf_record import HeldFile, HeldModel
from magistral_ui.errors import DeviceTooSmall, Message, ModelError, ModelFilesBroken, ModelNotFound
from magistral_ui.models.cards import CARDS, DEMO, MAGISTRAL_1_0, MAGISTRAL_1_2
from magistral_ui.models.folder import DEMO_FOLDER
from magistral_ui.models.ladder import no_pace
from tests.servers.broken_gguf import DAMAGED, OTHERS, demo_parts, write_demo, write_split

CPU = LlamaDevice("cpu", "CPU", "CPU", 20 * 2**30, 24 * 2**30)
SMALL = LlamaDevice("cpu", "CPU", "A small one", 2**20, 24 * 2**30)
REPOSITORY = "unsloth/Magistral-Small-2509-GGUF"
REFUSED = DAMAGED | OTHERS
COMMIT = "0123456789" * 4


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(cache_folder, "user_cache_path", lambda name: folder / name)


def find(model: str | Path | None, device: LlamaDevice = CPU, **request: Any) -> tuple[GGUFSource, list[str]]:
    """What was found, and the keys of what the operator is told."""
    told: list[Message] = []
    asked = ModelRequest(None if model is None else str(model), **request)
    found = find_gguf(asked, device, lambda _: None, threading.Event(), told.append)
    return found, [message.key for message in told]


Fetched = Callable[..., list[Any]]


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> Fetched:
    """Replaces the Hub; returns what it is asked for."""

    def serve(model: Path, mmproj: Path | None = None, label: str = "Q4_K_M") -> list[Any]:
        asked: list[Any] = []

        def fetch(repository: str, quantization: str | None, revision: str | None, plan: Any, *_: Any) -> GGUFDownload:
            asked.append((repository, quantization, revision))
            plan(source.inspect_gguf(model)[0])
            return GGUFDownload((model,), mmproj, COMMIT, label)

        monkeypatch.setattr(source, "fetch", fetch)
        return asked

    return serve


def test_the_demo_model() -> None:
    found, told = find("demo")
    assert (found.files, found.mmproj) == ((demo_files()[0],), demo_files()[1])
    assert found.card.demo
    assert found.card.key == found.name == DEMO.key
    assert found.facts.shape.vision == found.card.shape.vision  # type: ignore[union-attr]
    assert found.tekken == DEMO_FOLDER / "tekken.json"
    assert told == []


def test_a_lone_file_brings_its_own_tokenizer(tmp_path: Path) -> None:
    model = write_demo(tmp_path / "My model.gguf")
    found, told = find(model)
    assert (found.files, found.mmproj, found.name) == ((model,), None, "My model.gguf")
    assert found.card.key == "My model.gguf"
    assert not found.card.vision
    assert told == ["gguf_without_projector"]
    tokenizers = [MistralTokenizer.from_file(str(file)) for file in (found.tekken, DEMO_FOLDER / "tekken.json")]
    made, original = (each.instruct_tokenizer.tokenizer for each in tokenizers)
    assert made.encode("What is 2 + 2? हिन्दी", True, False) == original.encode("What is 2 + 2? हिन्दी", True, False)


def test_a_projector_beside_the_file_is_used(tmp_path: Path) -> None:
    model = write_demo(tmp_path / "model.gguf")
    write_mmproj(tmp_path / "some other name.gguf")
    found, told = find(model)
    assert found.mmproj == tmp_path / "some other name.gguf"
    assert found.card.vision
    assert found.facts.weights.mmproj == found.mmproj.stat().st_size
    assert MistralTokenizer.from_file(str(found.tekken)).instruct_tokenizer.image_encoder is not None
    assert told == []


def test_a_model_that_never_saw_images_misses_no_projector(tmp_path: Path) -> None:
    tokens: Any = demo_parts()[0]["tokenizer.ggml.tokens"]
    plain = [token.replace("THINK", "TXINK") if token in ("[THINK]", "[/THINK]") else token for token in tokens]
    found, told = find(write_demo(tmp_path / "model.gguf", {"tokenizer.ggml.tokens": plain}))
    assert found.card.marks == "text"
    assert told == []


def test_a_folder_and_a_split_model(tmp_path: Path) -> None:
    files = write_split(tmp_path, 3)
    write_mmproj(tmp_path / "mmproj.gguf")
    for model in (tmp_path, *files):
        found, _ = find(model)
        assert found.files == tuple(files)
        assert found.mmproj == tmp_path / "mmproj.gguf"


def test_in_a_folder_the_precision_chooses(tmp_path: Path) -> None:
    write_demo(tmp_path / "demo-BF16.gguf")
    coarse = write_demo(tmp_path / "demo-Q4_K_M.gguf", {"general.file_type": 15})
    assert find(tmp_path, precision="Q4_K_M")[0].files == (coarse,)
    with pytest.raises(ModelError) as refused:
        find(tmp_path)
    assert refused.value.message.key == "gguf_several"


def test_a_precision_that_the_file_does_not_have(tmp_path: Path) -> None:
    model = write_demo(tmp_path / "model.gguf")
    assert find(model, precision="BF16")[0].facts.quantization == "BF16"
    with pytest.raises(ModelFilesBroken) as refused:
        find(model, precision="Q4_K_M")
    assert refused.value.message == Message(
        "gguf_precision", {"model": "model.gguf", "found": "BF16", "precision": "Q4_K_M"}
    )


@pytest.mark.parametrize("fault", REFUSED)
def test_what_cannot_run_gets_its_sentence(tmp_path: Path, fault: str) -> None:
    write, key = REFUSED[fault]
    write(tmp_path / "odd.gguf")
    for model in (tmp_path / "odd.gguf", *([] if key == "gguf_not_gguf" else [tmp_path])):
        with pytest.raises(ModelError) as refused:
            find(model)
        assert refused.value.message.key == key


@pytest.mark.parametrize("model", ["/missing/x.gguf", "missing.gguf", "no such model", "a" * 5_000])
def test_what_is_not_there_is_not_found(model: str) -> None:
    with pytest.raises(ModelNotFound):
        find(model)


def test_a_model_that_does_not_fit_is_refused_with_what_it_needs(tmp_path: Path) -> None:
    found = find(write_demo(tmp_path / "model.gguf"), SMALL)[0]
    with pytest.raises(DeviceTooSmall) as refused:
        plan_fitting(found.card.name, found.facts, ModelRequest(found.name), SMALL)
    values = refused.value.message.values
    assert (values["device"], values["precision"], values["free"]) == ("A small one", "BF16", 0.0)


@pytest.mark.parametrize(
    ("model", "precision", "asked"),
    [
        (REPOSITORY, "auto", (REPOSITORY, None)),
        (REPOSITORY, "Q4_K_M", (REPOSITORY, "Q4_K_M")),
        (f"{REPOSITORY}:UD-Q4_K_XL", "auto", (REPOSITORY, "UD-Q4_K_XL")),
        (f"{REPOSITORY}:q4_k_m", "Q4_K_M", (REPOSITORY, "q4_k_m")),
        ("someone/Their-GGUF:Q8_0", "auto", ("someone/Their-GGUF", "Q8_0")),
        (MAGISTRAL_1_2.key, "Q4_K_M", (MAGISTRAL_1_2.gguf_repositories[0], "Q4_K_M")),
        ("mistralai/Magistral-Small-2509", "auto", (MAGISTRAL_1_2.gguf_repositories[0], None)),
    ],
)
def test_a_repository(fetched: Fetched, model: str, precision: str, asked: tuple[str, str | None]) -> None:
    files = demo_files()
    calls = fetched(*files)
    found, told = find(model, precision=precision)
    assert calls == [(*asked, None)]
    assert (found.name, found.revision) == (f"{asked[0]}:Q4_K_M", COMMIT)
    assert (found.files, found.mmproj) == ((files[0],), files[1])
    assert told == []
    assert found.card.vision
    if asked[0] in MAGISTRAL_1_2.gguf_repositories:
        assert found.card.key == MAGISTRAL_1_2.key
        assert found.card.benchmarks == MAGISTRAL_1_2.benchmarks
    else:
        assert found.card.repository == asked[0]
        assert found.card.benchmarks == {}


def test_a_repository_without_a_projector_is_told(fetched: Fetched) -> None:
    fetched(demo_files()[0])
    found, told = find(REPOSITORY)
    assert told == ["gguf_without_projector"]
    assert not found.card.vision


def test_a_repositorys_projector_of_another_width_is_left_out(tmp_path: Path, fetched: Fetched) -> None:
    metadata, tensors = mmproj_parts()
    narrow = {**tensors, "mm.2.weight": tensors["mm.2.weight"][:64]}
    write_gguf(tmp_path / "mmproj.gguf", {**metadata, "clip.vision.projection_dim": 64}, narrow)
    fetched(demo_files()[0], tmp_path / "mmproj.gguf")
    assert find(REPOSITORY)[0].mmproj is None
    write_gguf(tmp_path / "mmproj.gguf", {**metadata, "clip.projector_type": "gemma3"}, tensors)
    found, told = find(REPOSITORY)
    assert found.mmproj is None
    assert told == ["gguf_without_projector"]


def test_a_quantization_named_twice_must_be_the_same() -> None:
    with pytest.raises(ModelFilesBroken) as refused:
        find(f"{REPOSITORY}:Q8_0", precision="Q4_K_M")
    assert refused.value.message.key == "gguf_precision"


def test_a_repository_is_planned_before_the_download(fetched: Fetched) -> None:
    fetched(demo_files()[0])
    with pytest.raises(DeviceTooSmall):
        find(REPOSITORY, SMALL)


def test_a_card_without_gguf_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "find_card", lambda _: replace(MAGISTRAL_1_0, gguf_repositories=()))
    with pytest.raises(ModelFilesBroken) as refused:
        find(MAGISTRAL_1_0.key)
    assert refused.value.message.key == "gguf_missing"


@pytest.fixture
def downloaded(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes models of repositories count as complete here; no pace is timed."""
    monkeypatch.setattr(default_model, "_pace", lambda *_: no_pace)

    def replace(**labels: str) -> None:
        held = {CARDS[key.replace("_", "-")].gguf_repositories[0]: label for key, label in labels.items()}
        file = HeldFile(repository="a/b", commit=COMMIT, name="x.gguf", size=0, sha256="0" * 64)
        monkeypatch.setattr(
            gguf_entries,
            "held_models",
            lambda name, _: [HeldModel(label=held[name], files=(file,))] if name in held else [],
        )

    return replace


def test_without_a_name_the_demo_runs_until_something_is_downloaded(
    fetched: Fetched, downloaded: Callable[..., None]
) -> None:
    downloaded()
    found, _ = find(None)
    assert found.card.demo
    assert found.chosen_because == "model_chosen_not_downloaded"
    calls = fetched(*demo_files())
    downloaded(ministral_3_3b="UD-Q4_K_XL")
    found, _ = find(None)
    assert found.card.key == "ministral-3-3b"
    assert found.chosen_because == "model_chosen_cpu_fits"
    assert calls == [(CARDS["ministral-3-3b"].gguf_repositories[0], "UD-Q4_K_XL", None)]


def test_of_what_is_downloaded_the_best_runs(fetched: Fetched, downloaded: Callable[..., None]) -> None:
    fetched(*demo_files())
    downloaded(ministral_3_3b="Q8_0", ministral_3_8b="Q4_K_M")
    assert find(None)[0].card.key == "ministral-3-8b"
    assert find(None, precision="Q8_0")[0].card.key == "ministral-3-3b"
    assert find(None, precision="Q2_K")[0].card.demo


def test_auto_chooses_by_what_fits(fetched: Fetched, downloaded: Callable[..., None]) -> None:
    downloaded()
    calls = fetched(*demo_files())
    assert not find("auto")[0].card.demo
    find("auto", precision="UD-Q3_K_XL")
    assert [label for _, label, _ in calls][1:] == ["UD-Q3_K_XL"]
    found, _ = find("auto", LlamaDevice("cpu", "CPU", "CPU", 2**30, 2**30))
    assert found.card.demo
    assert found.chosen_because == "model_chosen_no_gpu"


@pytest.mark.parametrize(
    ("model", "precision", "expected"),
    [
        (None, "auto", False),
        ("auto", "auto", False),
        ("auto", "Q4_K_M", True),
        (None, "q4_k_m", True),
        ("magistral-small-2509", "auto", False),
        ("magistral-small-2509", "nf4", False),
        ("magistral-small-2509", "UD-Q4_K_XL", True),
        ("mistralai/Magistral-Small-2509", "auto", False),
        (REPOSITORY, "auto", True),
        (f"{REPOSITORY}:Q4_K_M", "auto", True),
        ("owner/name:Q4_K_M", "auto", True),
        ("owner/name-gguf", "auto", True),
        ("mistralai/Magistral-Small-2506_gguf", "auto", True),
        ("owner/name_GGUF", "auto", True),
        ("owner/name", "auto", False),
        ("owner/name:", "auto", False),
        ("missing.gguf", "auto", True),
        ("MISSING.GGUF", "auto", True),
        ("a" * 5_000, "auto", False),
        ("a\0b", "auto", False),
        (str(DEMO_FOLDER), "auto", False),
    ],
)
def test_which_requests_name_a_gguf_model(model: str | None, precision: str, expected: bool) -> None:
    assert names_gguf(model, precision) is expected


def test_files_and_folders_are_known_by_their_contents(tmp_path: Path) -> None:
    assert not names_gguf(str(tmp_path), "auto")
    model = write_demo(tmp_path / "model")
    assert names_gguf(str(model), "auto")
    assert names_gguf(str(tmp_path), "auto")
