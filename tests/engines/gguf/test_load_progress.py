"""Progress of loading, in bytes: what llama.cpp tells, and what is read for it meanwhile."""

import os
from pathlib import Path

import pytest

from magistral_ui.engines.base import Loading
from magistral_ui.engines.gguf import load_progress, supervisor
from magistral_ui.engines.gguf.load_progress import LoadProgress, size_of
from magistral_ui.engines.gguf.supervisor import ServerSettings
from magistral_ui.engines.weights import progress
from tests.waiting import until

SIZES = {"text_model": 1_000, "mmproj_model": 200}
BOTH = ["text_model", "mmproj_model"]


@pytest.fixture(autouse=True)
def _every_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """However close one follows another."""
    monkeypatch.setattr(progress, "REPORT_INTERVAL", 0.0)


def told(current: str, value: object) -> dict[str, object]:
    return {"stages": BOTH, "current": current, "value": value}


def test_what_llama_cpp_tells_is_counted_in_bytes_of_both_files() -> None:
    said: list[Loading] = []
    counted = LoadProgress(SIZES, said.append, warm_up=True)
    for stage, value in (("text_model", 0.0), ("text_model", 0.5), ("text_model", 1.0), ("mmproj_model", 1.0)):
        counted.on_loading(told(stage, value))
    assert [(each.stage, each.done) for each in said] == [
        ("reading", 0),
        ("reading", 500),
        ("reading", 1_000),
        ("reading", 1_200),
        ("warming_up", 0),
    ]
    assert {each.total for each in said[:-1]} == {1_200}


@pytest.mark.parametrize("value", [None, "x", -3, float("-inf"), 0.0])
def test_nonsense_counts_nothing(value: object) -> None:
    said: list[Loading] = []
    counted = LoadProgress(SIZES, said.append, warm_up=True)
    counted.on_loading(told("text_model", value))
    counted.on_loading(told("another_model", 1.0))
    counted.on_loading({"stage": "mmproj_model"})
    assert [each.done for each in said] == [0]


def test_it_never_goes_back_nor_beyond() -> None:
    said: list[Loading] = []
    counted = LoadProgress(SIZES, said.append, warm_up=False)
    for value in (0.6, 0.2, 5.0):
        counted.on_loading(told("text_model", value))
    assert [each.done for each in said] == [0, 600, 1_000]


def test_reading_ahead_counts_where_llama_cpp_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_progress, "CHUNK", 300)
    file = tmp_path / "model.gguf"
    file.write_bytes(bytes(1_000))
    said: list[Loading] = []
    counted = LoadProgress(SIZES, said.append, warm_up=True)
    with counted.reading((file, tmp_path / "gone.gguf", tmp_path)):
        until(lambda: said[-1].done == 1_000, "it has not been read")
    counted.on_loading(told("text_model", 1.0))
    counted.on_loading(told("mmproj_model", 1.0))
    assert [each.done for each in said] == [0, 300, 600, 900, 1_000, 1_200, 0]


def test_reading_ahead_waits_for_no_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with LoadProgress(SIZES, lambda said: None, warm_up=False).reading((pipe,)):
        pass


def test_only_what_is_mapped_is_read_ahead(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(bytes(10))
    assert ServerSettings(file).read_ahead() == (file,)
    assert ServerSettings(file, gpu_layers=1).read_ahead() == ()
    os.truncate(file, 2**42)  # more than any memory, and nothing on the disk
    assert ServerSettings(file).read_ahead() == ()


def test_a_small_model_gets_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that wait for each other make it many times slower on a busy computer."""
    monkeypatch.setattr(supervisor, "usable_cores", lambda: 8)
    file = tmp_path / "model.gguf"
    file.write_bytes(bytes(10))
    assert ServerSettings(file).told("")["threads"] == 1
    assert ServerSettings(file, threads=3).told("")["threads"] == 3
    os.truncate(file, supervisor.SMALL_BYTES)
    assert ServerSettings(file).told("")["threads"] == 8


def test_a_missing_file_has_no_bytes(tmp_path: Path) -> None:
    assert size_of(tmp_path / "gone") == 0
