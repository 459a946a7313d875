"""`app.py doctor` as somebody types it."""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from magistral_ui.doctor import command, old_python
from magistral_ui.doctor.command import ALL, DEVICES, run
from magistral_ui.doctor.facts import Facts, Wanted
from magistral_ui.settings import DEVICES as APP_DEVICES
from magistral_ui.settings import FLAGS, _parser
from tests.doctor.machines import USUAL, with_engine

APP = Path(__file__).parents[2] / "app.py"


def told(
    capsys: pytest.CaptureFixture[str], *arguments: str, facts: Facts = USUAL, **environment: str
) -> tuple[int, str]:
    code = run(arguments, environment, lambda *_: facts)
    return code, capsys.readouterr().out


def test_it_tells_what_was_found_and_exits_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = told(capsys)
    assert code == 0
    assert "Nothing needs to be fixed." in text
    assert "\nforward: ok | " in text
    code, text = told(capsys, facts=with_engine(failure="generation_failed"), LANG="de_DE.UTF-8")
    assert code == 1
    assert "muss behoben werden" in text
    assert "reply: fault | doctor_reply_failed" in text


def test_flags_win_over_variables() -> None:
    asked: list[Wanted] = []

    def find(wanted: Wanted, *_: object) -> Facts:
        asked.append(wanted)
        return USUAL

    environment = {"MAGISTRAL_UI_DEVICE": "cpu", "MAGISTRAL_UI_PORT": "8000", "MAGISTRAL_UI_MODEL": "demo"}
    assert run(["--device", "cuda", "--precision", "q4_k_m", "--full"], environment, find) == 0
    assert run([], {"MAGISTRAL_UI_PORT": "many"}, find) == 0
    assert asked == [Wanted("demo", "cuda", "Q4_K_M", full=True, port=8000), Wanted()]


@pytest.mark.parametrize("arguments", [["--nope"], ["--device", "tpu"], ["--precision", "nf5"], ["--quick", "--full"]])
def test_a_wrong_flag_is_refused_in_a_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments, {}, lambda *_: USUAL) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_interrupting_it_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> Facts:
        raise KeyboardInterrupt

    assert run([], {}, interrupted) == 130


def test_its_devices_are_the_app_s() -> None:
    assert DEVICES == APP_DEVICES
    assert set(command.VARIABLES) <= {flag.name for flag in FLAGS}


def test_an_old_python_is_told_in_a_sentence(tmp_path: Path) -> None:
    """What comes before the refusal is also to be understood by a Python that is older."""
    for file in (APP, Path(old_python.__file__)):
        ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 8))
    code = "import runpy, sys; sys.version_info = (3, 9, 1); runpy.run_path(sys.argv[1], run_name='__main__')"
    command = [sys.executable, "-S", "-c", code, str(APP), "doctor"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("Python 3.")
    assert ended.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_it_leaves_no_probe_behind(number: signal.Signals, tmp_path: Path) -> None:
    """The first probe imports a module that waits for ever; only the doctor gets the signal."""
    (tmp_path / "psutil.py").write_text(
        "import os, time\nprint(os.getpid(), file=open('pid', 'w'), flush=True)\ntime.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    doctor = subprocess.Popen(
        [sys.executable, str(APP), "doctor"],
        cwd=tmp_path,
        env=environment,
        # Whatever runs in the background of a shell ignores Ctrl-C, and so does what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    pid = tmp_path / "pid"
    while not (pid.exists() and pid.read_text().endswith("\n")):
        assert doctor.poll() is None
        time.sleep(0.01)
    doctor.send_signal(number)
    assert doctor.wait(60) == 130
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_the_app_s_help_names_it() -> None:
    assert "app.py doctor" in " ".join(_parser().format_help().split())


def test_it_starts_where_no_library_is_installed(tmp_path: Path) -> None:
    """-S leaves out all that pip installed: what is broken there cannot keep the doctor away."""
    command = [sys.executable, "-S", str(APP), "doctor", "--list"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == [check.name for check in ALL]
