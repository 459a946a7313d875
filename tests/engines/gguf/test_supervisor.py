"""Supervises llama.cpp's child: progress, reasons of failures, crashes, restarts and the end."""

import os
import shutil
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from magistral_ui.engines.base import Loading
from magistral_ui.engines.gguf import supervisor as supervising
from magistral_ui.engines.gguf.child_process import ChildProcess
from magistral_ui.engines.gguf.supervisor import Supervisor
from magistral_ui.engines.weights.progress import Cancelled
from magistral_ui.errors import Message, ModelError
from tests.engines.gguf.children import ask, endless_file, files, runs, serving, settings, supervisor
from tests.waiting import until

PROMPT = {"prompt": [1, 3, 100, 4], "n_predict": 4}


def reason(path: Path | None = None, **changed: Any) -> Message:
    """Why a child with these settings does not load."""
    found = supervisor(path, **changed)
    try:
        with pytest.raises(ModelError) as failure:
            found.start()
    finally:
        found.close()
    return failure.value.message


def children() -> list[psutil.Process]:
    return [each for each in psutil.Process().children(recursive=True) if "child.py" in " ".join(each.cmdline())]


def test_it_reports_the_bytes_of_both_files_and_the_warm_up() -> None:
    said: list[Loading] = []
    model, mmproj = files() / "model.gguf", files() / "mmproj.gguf"
    found = supervisor(model, said.append, mmproj=mmproj, warm_up=True)
    server = found.start()
    assert server.props["modalities"]["vision"]
    assert ask(server, "/completion", PROMPT)[0] == 200
    found.close()
    total = model.stat().st_size + mmproj.stat().st_size
    reading = [each for each in said if each.stage == "reading"]
    assert reading[0] == Loading("reading", 0, total)
    assert reading[-1].done == total
    assert [each.done for each in reading] == sorted(each.done for each in reading)
    assert said[-1].stage == "warming_up"


def test_all_parts_of_a_model_count() -> None:
    said: list[Loading] = []
    model = files() / "model.gguf"
    found = supervisor(model, said.append, parts=(model, files() / "mmproj.gguf"))
    found.start()
    found.close()
    assert (
        said[-1].done == said[0].total == sum((files() / name).stat().st_size for name in ("model.gguf", "mmproj.gguf"))
    )


@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
def test_the_pool_is_as_large_as_asked(kv_type: str) -> None:
    with serving(context=3_072, slots=3, kv_type=kv_type) as server:
        assert server.props["total_slots"] == 3
        assert server.props["default_generation_settings"]["n_ctx"] == 3_072
        assert ask(server, "/completion", PROMPT)[0] == 200


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    found = reason(tmp_path / "gone.gguf", model_name="Gone")
    assert found.key == "model_file_unreadable"
    assert found.values == {"model": "Gone", "file": "gone.gguf", "reason": "No such file or directory"}


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    file = Path(shutil.copy(files() / "model.gguf", tmp_path))
    file.chmod(0)
    assert reason(file).key == "model_file_unreadable"


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    assert reason(tmp_path).key == "model_files_broken"


def test_a_projector_is_no_model() -> None:
    assert reason(files() / "mmproj.gguf") == Message("gguf_projector", {"model": "mmproj.gguf"})


def test_a_model_is_no_projector() -> None:
    found = reason(mmproj=files() / "model.gguf")
    assert found == Message("gguf_projector_unusable", {"model": "model.gguf", "file": "model.gguf"})


def test_a_damaged_projector_is_named(tmp_path: Path) -> None:
    whole = (files() / "mmproj.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: len(whole) // 3])
    assert reason(mmproj=cut) == Message("gguf_projector_unusable", {"model": "model.gguf", "file": "cut.gguf"})


def test_a_missing_projector_is_named(tmp_path: Path) -> None:
    found = reason(mmproj=tmp_path / "gone.gguf")
    assert found.key == "model_file_unreadable"
    assert found.values["file"] == "gone.gguf"


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Children may have a gigabyte of address space."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nulimit -v 1000000\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("context", [5_000_000, 2_000_000_000])
def test_a_context_that_does_not_fit_is_named(context: int) -> None:
    found = reason(context=context, device_name="This CPU")
    assert found.key == "gguf_context_too_large"
    assert found.values == {"model": "model.gguf", "device": "This CPU", "tokens": context}


@pytest.mark.parametrize("changed", [{"slots": 1_000}, {"batch": 0}], ids=str)
def test_impossible_settings_end_with_llama_cpp_s_own_words(changed: dict[str, Any]) -> None:
    found = reason(**changed)
    assert found.key == "gguf_ended"
    assert "n_" in str(found.values["reason"])


def test_a_taken_port_ends_with_llama_cpp_s_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as other:
        told = supervising.ServerSettings.told
        monkeypatch.setattr(
            supervising.ServerSettings, "told", lambda self, key: {**told(self, key), "port": other.port}
        )
        found = reason()
    assert found.key == "gguf_ended"
    assert str(other.port) in str(found.values["reason"])


def fake_package(folder: Path, code: str) -> None:
    (folder / "xllamacpp.py").write_text(f"import os, signal, time\n{code}\n")


@pytest.mark.parametrize(
    ("code", "key"),
    [
        ("raise ModuleNotFoundError('no xllamacpp')", "llama_cpp_missing"),
        ("raise ImportError('libcuda.so.1: cannot open shared object file')", "gguf_library_unusable"),
        ("os.kill(os.getpid(), signal.SIGILL)", "gguf_processor_too_old"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "gguf_killed"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "gguf_ended"),
        ("os.abort()", "gguf_ended"),
        ("raise SystemExit(3)", "gguf_ended"),
        ("os.write(1, b'\\xff[]\\n{'); os.write(2, b'\\xff CUDA error: bad\\n'); os._exit(1)", "gguf_card_failed"),
        ("os.write(2, b'CUDA error: out of memory\\n'); os.abort()", "gguf_out_of_memory"),
    ],
)  # fmt: skip
def test_what_ends_a_child_while_it_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, key: str
) -> None:
    fake_package(tmp_path, code)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert reason().key == key
    assert not children()


@pytest.mark.parametrize(
    ("number", "key"),
    [
        (signal.SIGKILL, "gguf_killed"),
        (signal.SIGBUS, "gguf_file_changed"),
        (signal.SIGILL, "gguf_processor_too_old"),
        (signal.SIGSEGV, "gguf_ended"),
    ],
)
def test_the_reason_of_a_crash_is_told(number: signal.Signals, key: str) -> None:
    said: list[Message] = []
    found = supervisor()
    found.when_died(said.append)
    server = found.start()
    os.kill(server.pid, number)
    until(lambda: bool(said), "nobody was told")
    assert said[0].key == key
    assert not server.alive
    found.close()


def test_a_file_that_shrinks_while_it_is_mapped_ends_only_the_child(tmp_path: Path) -> None:
    file = Path(shutil.copy(files() / "model.gguf", tmp_path))
    said: list[Message] = []
    found = supervisor(file)
    found.when_died(said.append)
    server = found.start()
    os.truncate(file, 100_000)
    with pytest.raises(OSError):  # whatever a connection says that ends
        ask(server, "/completion", {"prompt": [1, 3, *range(100, 600), 4], "n_predict": 50})
    until(lambda: bool(said), "nobody was told")
    assert said == [Message("gguf_file_changed", {"model": "model.gguf", "file": "model.gguf"})]
    with pytest.raises(ModelError) as failure:
        found.start()
    assert failure.value.message.key == "model_files_broken"
    found.close()


def test_it_starts_again_after_a_crash_but_not_for_ever() -> None:
    said: list[Message] = []
    found = supervisor()
    found.when_died(said.append)
    for crash in range(1, supervising.MAX_CRASHES + 1):
        server = found.start()
        assert ask(server, "/completion", PROMPT)[0] == 200
        os.kill(server.pid, signal.SIGKILL)
        until(lambda crash=crash: len(said) == crash, "nobody was told")  # type: ignore[misc]
    with pytest.raises(ModelError) as failure:
        found.start()
    assert failure.value.message == said[-1]
    found.close()


def test_crashes_long_ago_are_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "CRASH_SECONDS", 0.0)
    said: list[Message] = []
    found = supervisor()
    found.when_died(said.append)
    for crash in range(1, supervising.MAX_CRASHES + 2):
        os.kill(found.start().pid, signal.SIGKILL)
        until(lambda crash=crash: len(said) == crash, "nobody was told")  # type: ignore[misc]
    found.close()


def test_each_start_has_another_key_and_ends_the_child_before() -> None:
    said: list[Message] = []
    found = supervisor()
    found.when_died(said.append)
    first, second = found.start(), found.start()
    assert first.key != second.key
    assert not first.alive
    assert second.alive
    found.close()
    assert not second.alive
    assert not said, "an end that was asked for is no crash"


def test_closing_ends_a_child_that_loads(tmp_path: Path) -> None:
    with endless_file(tmp_path) as (file, wait_until_loads), ThreadPoolExecutor() as threads:
        found = supervisor(file)
        started = threads.submit(found.start)
        wait_until_loads()
        (child,) = children()
        found.close()
        assert not runs(child.pid)
        assert isinstance(started.exception(), Cancelled)
        with pytest.raises(psutil.NoSuchProcess):  # it has been waited for
            child.status()


def test_a_closing_app_ends_a_child_that_loads(tmp_path: Path) -> None:
    with endless_file(tmp_path) as (file, wait_until_loads):
        closing = threading.Event()
        found = Supervisor(settings(file), lambda said: None, closing)

        def close() -> None:
            wait_until_loads()
            closing.set()

        threading.Thread(target=close).start()
        with pytest.raises(Cancelled):
            found.start()
        until(lambda: not children(), "the child has outlived the app's end")
        with pytest.raises(Cancelled):
            found.start()


def test_nothing_is_left_of_a_closed_child() -> None:
    supervisor().close()  # also before it has started
    threads, found = threading.active_count(), supervisor()
    server = found.start()
    found.close()
    found.close()
    with pytest.raises(psutil.NoSuchProcess):
        psutil.Process(server.pid)
    until(lambda: threading.active_count() <= threads, "a thread is left")
    with pytest.raises(Cancelled):
        found.start()


def test_the_child_is_offered_first_when_memory_runs_out() -> None:
    with serving() as server:
        if Path("/proc/self/oom_score_adj").exists():
            assert int(Path(f"/proc/{server.pid}/oom_score_adj").read_text()) >= 500


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode elsewhere")
def test_a_file_whose_name_is_not_unicode_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"mod\xe8le.gguf")
    file.symlink_to(files() / "model.gguf")
    with serving(file) as server:
        assert ask(server, "/completion", PROMPT)[0] == 200


def test_closing_does_not_wait_for_a_child_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    props = Supervisor._props

    def hang(runs: Supervisor, child: ChildProcess, *more: Any) -> Any:
        os.kill(child.pid, signal.SIGSTOP)
        threading.Thread(target=runs.close).start()
        return props(runs, child, *more)

    monkeypatch.setattr(Supervisor, "_props", hang)
    found = supervisor()
    with pytest.raises(Cancelled):
        found.start()
    assert not children()
