"""Rows on any terminal and in its language; the block for an issue tells nothing of a person."""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from magistral_ui.doctor.checks import Finding, fault, run_all
from magistral_ui.doctor.command import ALL
from magistral_ui.doctor.facts import Wanted
from magistral_ui.doctor.privacy import without_names
from magistral_ui.doctor.report import END, HEAD, block, exit_code, rows, summary
from magistral_ui.doctor.terminal import PLAIN_SIGNS, SIGNS, Terminal, columns, language_of
from magistral_ui.errors import Message
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


@pytest.mark.parametrize(
    ("environment", "encoding", "language"),
    [
        ({"LANG": "de_AT.UTF-8"}, "utf-8", "de"),
        ({"LANG": "de"}, "utf-8", "de"),
        ({"LANG": "de_DE.UTF-8", "LC_ALL": "fr_FR.UTF-8"}, "utf-8", "fr"),
        ({"LANG": "de_DE.UTF-8", "LANGUAGE": "xx:sv"}, "utf-8", "sv"),
        ({"LANG": "C.UTF-8", "LANGUAGE": "sv"}, "utf-8", "en"),
        ({"LANG": "ja_JP.UTF-8"}, "ascii", "en"),
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


def test_other_words_stay() -> None:
    assert (
        without_names("libcudart.so.13: cannot open /usr/lib/x86_64") == "libcudart.so.13: cannot open /usr/lib/x86_64"
    )
