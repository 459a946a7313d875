"""The command line from outside: wrong input is answered at once, and a signal ends everything that was begun."""

import gc
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import app
from magistral_ui.engines.base import Loading, Ready
from magistral_ui.engines.weights import gpu_diagnosis
from magistral_ui.engines.weights.gpu_diagnosis import GraphicsCard
from tests.loopback import assert_nothing_is_left, free_port
from tests.scripted_engine import ScriptedEngine

ROOT = Path(__file__).parents[1]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "app.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--port", "x"], "“x” is not a valid value for --port"),
        (["--nope"], "--nope"),
        (["--model", "/no/such/folder"], "There is no model “/no/such/folder”: no file, folder or repository"),
        (["--model", "tests"], "“tests” contains no model: neither a GGUF file nor a config.json"),
    ],
)
def test_wrong_input_is_answered_with_a_sentence_and_2(arguments: list[str], told: str) -> None:
    ended = run(*arguments)
    assert ended.returncode == 2
    assert told in ended.stderr
    assert ended.stderr.count("\n") == 1, "one sentence, and no stack trace"
    assert ended.stdout == ""


def test_a_folder_with_another_kind_of_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    ended = run("--model", str(tmp_path))
    assert ended.returncode == 2
    assert "(it is: llama)" in ended.stderr


def test_help_and_wrong_input_import_nothing_heavy() -> None:
    code = (
        "import runpy, sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        assert name.partition('.')[0] not in {'torch', 'gradio', 'transformers', 'mistral_common'}, name\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "sys.argv = ['app.py', '--model', '/no/such/folder']\n"
        "runpy.run_path('app.py', run_name='__main__')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run("--port", str(port), "--model", "demo")
    assert ended.returncode == 2, ended.stderr
    assert f"Port {port} is in use" in ended.stderr
    assert "Traceback" not in ended.stderr


IMPORTS = """
import os, sys, threading, time
import torch  # the longest part, which would hide the rest
from app import model_actions_of
from magistral_ui.engines.base import Loading, ModelRequest, Ready
from magistral_ui.engines.switching.switchable import SwitchableEngine

engine = SwitchableEngine(ModelRequest("demo", device="cpu"))
models = model_actions_of(engine, shared=False)
engine.start()
while "transformers" not in sys.modules:
    time.sleep(0)
listed = models.list({})
while isinstance(engine.status(), Loading):
    time.sleep(0.05)
assert isinstance(engine.status(), Ready), engine.status()
assert listed["models"], listed
os._exit(0)  # as the app does: to end torch takes a second
"""


def test_a_page_may_list_models_while_the_libraries_are_imported() -> None:
    ended = subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A running app on a free port, and the URL that it printed."""
    environment = {**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "GRADIO_TEMP_DIR": str(tmp_path / "g")}
    process = subprocess.Popen(
        [sys.executable, "app.py", "--model", "demo", "--port", str(free_port())],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line + (process.stderr.read() if process.stderr and process.poll() is not None else "")
        yield process, found[0]
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_ends_it_all_and_leaves_nothing(served: tuple["subprocess.Popen[str]", str]) -> None:
    """As SIGTERM does, with which tests/test_starts.py ends what it starts."""
    process, url = served
    with urllib.request.urlopen(url, timeout=120) as page:
        assert page.status == 200
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert "Traceback" not in stderr
    assert_nothing_is_left(children, int(url.rstrip("/").rpartition(":")[2]))


def test_a_signal_right_after_the_start_is_quiet_too() -> None:
    for delay in (1.0, 3.0, 9.0):  # in the middle of the imports, also on a machine that is busy with other things
        process = subprocess.Popen(
            [sys.executable, "app.py", "--model", "demo", "--port", str(free_port())],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(delay)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=120)
        if process.returncode != -signal.SIGTERM:  # else the interpreter itself had not begun
            break
    assert process.returncode == 0
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("space", "cards", "model"),
    [
        ("", [GraphicsCard("RTX", "580.1")], None),
        ("owner/name", [GraphicsCard("A10G", "580.1")], "auto"),
        ("owner/name", [GraphicsCard("no driver")], None),
        ("owner/name", [], None),
    ],
)
def test_only_a_space_with_a_gpu_downloads_what_nobody_named(
    space: str, cards: list[GraphicsCard], model: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPACE_ID", space)
    monkeypatch.setattr(gpu_diagnosis, "find_graphics_cards", lambda: cards)
    assert app.default_model() == model


def test_what_stays_is_not_searched_for_garbage_once_the_model_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "SIGNAL_POLL_SECONDS", 0.01)
    over, seen = threading.Event(), list[int]()
    ready = ScriptedEngine(lambda _: ()).status()
    assert isinstance(ready, Ready)
    statuses = iter(list[Loading | Ready]([Loading(), Loading(), ready]))

    def status() -> Loading | Ready:
        seen.append(gc.get_freeze_count())
        return next(statuses)

    waiting = threading.Thread(target=app.wait, args=(over, status))
    before = gc.get_freeze_count()
    try:
        waiting.start()
        until = time.monotonic() + 60
        while gc.get_freeze_count() == before and time.monotonic() < until:
            time.sleep(0.01)
        assert gc.get_freeze_count() > 1_000
        assert seen == [before] * 3, "not while the model is being loaded"
    finally:
        over.set()
        waiting.join()
        gc.unfreeze()
