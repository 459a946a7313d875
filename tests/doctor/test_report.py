"""Rows on any terminal and in its language; the block for an issue tells nothing of a person."""

import io
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from magistral_ui.doctor.checks import Finding, fault, run_all
from magistral_ui.doctor.command import ALL
from magistral_ui.doctor.commands import ROOT, Commands
from magistral_ui.doctor.facts import Wanted
from magistral_ui.doctor.privacy import without_names
from magistral_ui.doctor.report import END, HEAD, block, exit_code, rows, summary
from magistral_ui.doctor.terminal import CLOSING, PLAIN_SIGNS, SIGNS, Terminal, columns, language_of
from magistral_ui.errors import Message
from magistral_ui.i18n.languages import LANGUAGES
from magistral_ui.i18n.texts import text_in
from tests.doctor.machines import USUAL, with_engine, with_storage

NARROW = Terminal(40, False, SIGNS)


def test_rows_fit_a_narrow_terminal() -> None:
    findings = run_all(ALL, with_storage(cache_free=10**9))
    lines = list(rows(findings, "en", NARROW, 16))
    assert any("Doesn’t occur" in line for line in lines)
    assert all(columns(line) <= 40 or "/" in line or "_" in line for line in lines), (
        "only what is to be copied is longer"
    )


@pytest.mark.parametrize("language", ["ja", "zh", "de", "hi", "ar"])
def test_wide_letters_count_twice(language: str) -> None:
    findings = {"forward": fault("doctor_forward_differs", difference="1.2", limit=0.01)}
    lines = list(rows(findings, language, NARROW, 16))
    assert len(lines) > 3
    assert all(columns(line) <= 44 for line in lines)


def test_no_line_of_japanese_begins_with_a_full_stop() -> None:
    for width in range(40, 60):
        lines = Terminal(width, False, SIGNS).wrapped(text_in("ja", "doctor_clock", host="x", date="2026-01-01"), 4)
        assert not [line for line in lines if line.startswith(tuple(CLOSING))]


COMMAND = "pip install torch==2.13.0+cu126 --index-url https://download.pytorch.org/whl/cu126"


@pytest.mark.parametrize("language", LANGUAGES)
def test_commands_are_whole_and_for_this_python(language: str) -> None:
    values = {"card": "RTX", "driver": "1", "needed": 580, "command": COMMAND}
    findings = {
        "torch-build": fault("gpu_driver_old_or_torch", **values),
        "torch": fault("doctor_slow_nf4"),
        "packages": fault("doctor_no_pip", command="python -m ensurepip --upgrade"),
    }
    lines = "\n".join(rows(findings, language, NARROW, 12, Commands("./py", "app/")))
    assert f"./py -m {COMMAND}" in lines
    assert "./py -m pip install -r app/requirements-gguf.txt" in lines
    assert "./py -m ensurepip --upgrade" in lines


def test_commands_are_typed_as_the_shell_takes_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "my venv" / "bin"
    folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setattr(sys, "prefix", str(folder.parent))
    assert Commands.here().python == "~/my\\ venv/bin/python"
    monkeypatch.chdir(folder)
    assert Commands.here().python == "./python"
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    (tmp_path / "EXTERNALLY-MANAGED").touch()
    monkeypatch.chdir(ROOT)
    assert Commands.here().python.endswith("/python -m venv .venv && .venv/bin/python")
    assert (
        Commands.here()
        .fitted("pip install x==1")
        .endswith(
            "&&\N{NO-BREAK SPACE}.venv/bin/python\N{NO-BREAK SPACE}"
            "-m\N{NO-BREAK SPACE}pip\N{NO-BREAK SPACE}install\N{NO-BREAK SPACE}x==1"
        )
    )


def test_equal_findings_share_a_row() -> None:
    findings = run_all(ALL, USUAL)
    text = "\n".join(rows(findings, "en", Terminal(100, False, SIGNS), 16))
    assert text.count("Doesn’t occur on this machine.") == 1
    assert "cudnn-attention" in text


class Screen(io.StringIO):
    """A terminal."""

    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_that_want_them() -> None:
    assert "\x1b" in Terminal.of(Screen(), {"WT_SESSION": "1"}).sign("fault")
    for stream, environment in ((Screen(), {"NO_COLOR": "1"}), (Screen(), {"TERM": "dumb"}), (io.StringIO(), {})):
        assert "\x1b" not in Terminal.of(stream, environment).sign("fault")
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert Terminal.of(ascii_only, {}).signs == PLAIN_SIGNS
    assert "aren’t · –".translate(Terminal.of(ascii_only, {}).plain) == "aren't | -"
    assert not Terminal.of(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), {}).plain


@pytest.mark.parametrize(
    ("environment", "encoding", "language"),
    [
        ({"LANG": "de_AT.UTF-8"}, "utf-8", "de"),
        ({"LANG": "de"}, "utf-8", "de"),
        ({"LANG": "de_DE.UTF-8", "LC_ALL": "fr_FR.UTF-8"}, "utf-8", "fr"),
        ({"LANG": "de_DE.UTF-8", "LANGUAGE": "xx:sv"}, "utf-8", "sv"),
        ({"LANG": "C.UTF-8", "LANGUAGE": "sv"}, "utf-8", "en"),
        ({"LANG": "ja_JP.UTF-8"}, "ascii", "en"),
        ({"LANG": "pl_PL"}, "cp1252", "en"),
        ({"LANG": "pl_PL"}, "cp1250", "pl"),
        ({"LANG": "de_DE"}, "cp1252", "de"),
        ({"LANG": "nonsense"}, "utf-8", "en"),
        ({}, None, "en"),
    ],
)
def test_the_terminal_s_language(environment: Mapping[str, str], encoding: str | None, language: str) -> None:
    assert language_of(environment, encoding) == language


def test_the_summary_counts_and_the_exit_code_follows() -> None:
    well = run_all(ALL, USUAL)
    assert (exit_code(well), summary(well, "en")) == (0, "Nothing needs to be fixed.")
    ill = run_all(ALL, with_engine(failure="generation_failed"))
    assert exit_code(ill) == 1
    assert "1 Punkt" in summary(ill, "de")
    for language in LANGUAGES:
        assert "✗" not in summary(ill, language, "X")
        assert "✗" in summary(ill, language)


def test_the_block_has_a_line_for_each_check_in_english() -> None:
    lines = block(run_all(ALL, with_engine(failure="generation_failed"))).splitlines()
    assert (lines[0], lines[-1]) == (HEAD, END)
    assert [line.partition(":")[0] for line in lines[2:-1]] == [check.name for check in ALL]
    assert "reply: fault | doctor_reply_failed (reason=generation_failed)" in lines


def test_the_block_tells_nothing_of_a_person(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "ann"
    monkeypatch.setenv("HOME", str(home))
    reason = f"OSError: {home}/x.so, /mnt/ann/a.so, {home}/env/lib/site-packages/torch/lib/b.so, /usr/lib/c.so"
    reason += ", /home/bob/y, C:\\Users\\Ann Lee\\z, http://ann:secret@proxy:80, hf_abcdefghijklmn"
    missing = Message("model_not_found", {"model": f"{home}/my private model"})
    storage = with_storage(cache="/mnt/ann-s-disk", models=("ann/secret-model",), cache_problem="read-only").storage
    wanted = Wanted(host="ann-s-computer", port=8000)
    facts = with_engine(replace(USUAL, storage=storage, wanted=wanted), missing=missing)
    findings = run_all(ALL, facts) | {
        "new": Finding("fault", reason, (Message("doctor_reason_error", {"error": reason}),))
    }
    told = block(findings)
    for secret in ("/mnt", "ann", "bob", "Ann", "Lee", "secret", "hf_abc", "private", str(tmp_path)):
        assert secret not in told.replace("llama", ""), secret
    assert "…/site-packages/torch/lib/b.so" in told
    assert "/usr/lib/c.so" in told
    assert "port: ok | 8000\n" in told


@pytest.mark.parametrize(
    "text",
    [
        "[Errno 2] No such file: '/mnt/My Ann Disk/ann lee/x.so'",
        "open /mnt/My Ann Disk/ann lee/x.so: no such file",
        "FileNotFoundError: 'ann lee/model.safetensors'",
        "C:\\Users\\ANNLEE~1\\AppData\\ann dir\\z.dll not found",
        r"open \\server\share\ann b\x.gguf failed",
        "http://ann:p@ss/w@proxy.ann.example:3128 refused, https://ann.example/hf",
        "the key is ann-with-no-known-form",
        "ghp_annABCDEFGHIJKLMNOP",
    ],
)
def test_nothing_of_a_person_is_left(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGISTRAL_UI_API_KEY", "ann-with-no-known-form")
    told = block({"new": Finding("fault", text, (Message("doctor_reason_error", {"error": text}),))})
    assert "ann" not in told.lower()


def test_the_block_names_files_that_all_models_have() -> None:
    def told(file: str, key: str = "model_files_broken") -> str:
        return block({"forward": fault(key, model="/x", file=file, names="ann.gguf")})

    assert "model_files_broken (file=model-00002-of-00010.safetensors)" in told("model-00002-of-00010.safetensors")
    assert "ann" not in told("ann.safetensors") + told("x", "gguf_several")


def test_other_words_stay() -> None:
    assert (
        without_names("libcudart.so.13: cannot open /usr/lib/x86_64") == "libcudart.so.13: cannot open /usr/lib/x86_64"
    )
