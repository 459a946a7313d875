"""A probe's process may crash, hang or leave: what it found before is kept, and how it ended is told."""

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from magistral_ui.doctor.facts import PackageFacts, Wanted
from magistral_ui.doctor.probing import Probed, probe
from magistral_ui.doctor.survey import survey
from magistral_ui.errors import Message

TIMEOUT = 60.0


def test_what_is_found_comes_back_and_prints_do_not() -> None:
    probed = probe("tests.doctor.probes:found", TIMEOUT, value=5)
    assert probed.found == {"value": 5, "more": 2}
    assert probed.failure is None
    assert probed.stage == "second"


@pytest.mark.parametrize(
    ("name", "key", "values"),
    [
        ("crash", "doctor_reason_crashed", {"how": "SIGSEGV", "stage": "libcuda"}),
        ("leave", "doctor_reason_crashed", {"how": "exit code 1", "stage": "bitsandbytes"}),
        ("leave_politely", "doctor_reason_error", {"error": "SystemExit: 3"}),
        ("fail", "doctor_reason_error", {"error": "KeyError: 'a name'"}),
        ("refuse", "model_not_found", {"model": "x"}),
        ("lack", "doctor_reason_library", {"name": "no_such_library"}),
        ("missing", "doctor_reason_error", None),
    ],
)
def test_how_it_ended_is_told(name: str, key: str, values: dict[str, str] | None) -> None:
    probed = probe(f"tests.doctor.probes:{name}", TIMEOUT)
    assert probed.failure is not None
    assert probed.failure.key == key
    assert values is None or probed.failure.values == values


def test_one_that_hangs_is_ended_and_what_it_found_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(subprocess.Popen[bytes]):
        """Its time is over as soon as it hangs."""

        def wait(self, timeout: float | None = None) -> int:
            if timeout == TIMEOUT:
                while not (tmp_path / "hangs").exists():
                    time.sleep(0.01)
                raise subprocess.TimeoutExpired("child", timeout)
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", Hanging)
    probed = probe("tests.doctor.probes:hang", TIMEOUT, file=str(tmp_path / "hangs"))
    assert probed.failure == Message("doctor_reason_timeout", {"seconds": 60, "stage": "driver"})
    assert probed.found == {"value": 1}


LISTED = {name: {"name": name, "version": "1", "wanted": "==1", "fits": True} for name in ("gradio", "torch", "nh3")}


def test_a_library_that_ends_the_process_is_named_and_the_others_are_tried() -> None:
    skipped: list[list[str]] = []

    def ask(target: str, seconds: float, *_: Any, **values: Any) -> Probed:
        if not target.endswith("package_facts"):
            return Probed(failure=Message("doctor_reason_error", {"error": "not asked"}))
        skipped.append(values["skipped"])
        if values["skipped"]:
            return Probed({"packages": LISTED, "nh3": {"error": ""}})
        crash = Message("doctor_reason_crashed", {"how": "SIGSEGV", "stage": "torch"})
        return Probed({"packages": LISTED, "gradio": {"error": ""}}, crash, "torch")

    facts = survey(Wanted(), {}, ask)
    assert skipped == [[], ["gradio", "torch"]]
    assert facts.packages == (
        PackageFacts("gradio", "1", "==1"),
        PackageFacts("torch", "1", "==1", error="SIGSEGV"),
        PackageFacts("nh3", "1", "==1"),
    )
    assert set(facts.failures) == {"system", "storage", "hub"}


def test_variables_are_named_and_their_values_are_not() -> None:
    environment = {
        "HF_TOKEN": "hf_secret",
        "https_proxy": "http://ann:secret@proxy",
        "MAGISTRAL_UI_AUTH": "ann:secret",
        "CUDA_VISIBLE_DEVICES": "0",
        "PYTHONPATH": "",
        "HFX": "x",
        "USER": "ann",
    }
    facts = survey(Wanted(), environment, lambda *_, **__: Probed())
    assert facts.variables == ("CUDA_VISIBLE_DEVICES", "HF_TOKEN", "MAGISTRAL_UI_AUTH", "https_proxy")


def test_what_the_system_knows_of_cards_is_kept_where_torch_crashes() -> None:
    def ask(target: str, *_: Any, **__: Any) -> Probed:
        if target.endswith("package_facts"):
            return Probed({"packages": {name: {"name": name, "version": "1"} for name in ("torch", "transformers")}})
        if target.endswith("torch_facts"):
            crash = Message("doctor_reason_crashed", {"how": "SIGSEGV", "stage": "torch"})
            return Probed({"present": ["RTX 4090"], "driver": "570.1"}, crash, "torch")
        return Probed()

    facts = survey(Wanted(), {}, ask)
    assert facts.torch is None
    assert facts.hardware is not None
    assert (facts.hardware.present, facts.hardware.driver) == (("RTX 4090",), "570.1")
    assert {"torch", "engine", "safeguards"} == set(facts.failures)
