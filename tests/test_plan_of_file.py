"""What `--plan` prints of a GGUF file, and that it refuses what the app would refuse."""

import os
from pathlib import Path

import pytest

from magistral_ui import plan_command
from magistral_ui.engines.gguf.devices import LlamaDevice
from magistral_ui.errors import ModelError
from magistral_ui.plan_command import print_plan
from tests.servers.broken_gguf import write_demo


@pytest.fixture(autouse=True)
def processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_command, "find_llama_device", lambda _: LlamaDevice("cpu", "CPU", "CPU", 2**34, 2**35))


def test_the_plan_of_a_file_or_of_the_folder_around_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_demo(tmp_path / "demo.gguf")
    print_plan(str(file))
    of_file = capsys.readouterr().out
    print_plan(str(tmp_path))
    assert "BF16" in of_file
    assert capsys.readouterr().out == of_file


@pytest.mark.parametrize("name", ["missing.gguf", "x" * 5_000, "a\0b.gguf", "empty.gguf", "pipe.gguf", "empty-folder"])
def test_what_cannot_run_has_no_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "empty-folder").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ModelError):
        print_plan(f"{tmp_path}/{name}")
    assert not capsys.readouterr().out
