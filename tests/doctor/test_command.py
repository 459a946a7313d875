"""`app.py doctor` as somebody types it."""

import subprocess
import sys
from pathlib import Path

import pytest

from magistral_ui.doctor import command
from magistral_ui.doctor.command import ALL, DEVICES, run
from magistral_ui.doctor.facts import Facts, Wanted
from magistral_ui.settings import DEVICES as APP_DEVICES
from magistral_ui.settings import FLAGS
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


def test_it_starts_where_no_library_is_installed(tmp_path: Path) -> None:
    """-S leaves out all that pip installed: what is broken there cannot keep the doctor away."""
    command = [sys.executable, "-S", str(APP), "doctor", "--list"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == [check.name for check in ALL]
