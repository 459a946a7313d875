"""The other checks: libraries, folders, the Hub, the port, and what the engines did; and a check that breaks itself."""

from dataclasses import replace
from typing import Any

import pytest

from magistral_ui.doctor.checks import Check, Finding, run_all
from magistral_ui.doctor.command import ALL
from magistral_ui.doctor.facts import Facts, HubFacts, LlamaReplyFacts, PackageFacts, TorchFacts, Wanted
from magistral_ui.doctor.report import exit_code
from magistral_ui.errors import Message
from tests.doctor.machines import LLAMA_CARD, PACKAGES, TOO_OLD, USUAL, on_card, with_engine, with_storage

CRASH = Message("doctor_reason_crashed", {"how": "SIGSEGV", "stage": "torch"})
GGUF_ONLY = tuple(each for each in PACKAGES if each.name not in ("torch", "transformers"))


def packages(*changed: PackageFacts) -> Facts:
    known = {each.name: each for each in (*PACKAGES, *changed)}
    return replace(USUAL, packages=tuple(known.values()))


def hub(**changes: Any) -> Facts:
    return replace(USUAL, hub=HubFacts(**changes))


def system(**changes: Any) -> Facts:
    assert USUAL.system is not None
    return replace(USUAL, system=replace(USUAL.system, **changes))


CASES: list[tuple[str, Facts, str, str | None]] = [
    ("python", USUAL, "ok", None),
    ("python", system(bits=32), "fault", "doctor_python_32"),
    ("processor", USUAL, "ok", None),
    ("processor", system(limit=8 * 2**30), "note", "doctor_memory_limit"),
    ("environment", replace(USUAL, variables=("HF_HOME",)), "ok", None),
    ("packages", packages(PackageFacts("gradio", "1", "==1", also="1, 2")), "fault", "doctor_package_twice"),
    ("packages", packages(PackageFacts("torch", "1", "==1", lacks="triton==2")), "note", "doctor_package_lacks"),
    ("packages", replace(system(pip=False), packages=PACKAGES), "ok", None),
    ("torch", replace(system(has_torch=False), torch=None), "note", "doctor_torch_nowhere"),
    ("hub", hub(problem=Message("doctor_clock", {})), "fault", "doctor_clock"),
    ("hub", hub(problem=Message("doctor_endpoint", {})), "fault", "doctor_endpoint"),
    ("python", replace(USUAL, system=replace(USUAL.system, python="CPython 3.9.1")), "fault", "doctor_python_old"),  # type: ignore[type-var]
    ("environment", replace(USUAL, environment=(Message("app_no_certificates", {}),)), "fault", "app_no_certificates"),
    ("packages", USUAL, "ok", None),
    ("packages", replace(USUAL, packages=GGUF_ONLY), "ok", None),
    ("packages", packages(PackageFacts("transformers", "", "==5.23.*")), "fault", "doctor_package_missing"),
    ("packages", packages(PackageFacts("gradio", "", "==6.31.*")), "fault", "doctor_package_missing"),
    ("packages", packages(PackageFacts("torch", "2.1.0", "==2.13.0", False)), "fault", "doctor_package_version"),
    (
        "packages",
        packages(PackageFacts("torch", "2.13.0", "==2.13.0", True, "OSError: libcudart")),
        "fault",
        "doctor_package_broken",
    ),
    (
        "packages",
        packages(*(PackageFacts(f"library-{n}", "", "==1") for n in range(5))),
        "fault",
        "doctor_packages_missing",
    ),
    ("torch", replace(USUAL, torch=None), "note", "doctor_no_torch"),
    ("torch", replace(USUAL, torch=None, failures={"torch": CRASH}), "fault", CRASH.key),
    ("llama-cpp", replace(USUAL, llama=None), "note", "doctor_no_llama"),
    ("llama-cpp", replace(USUAL, llama=None, torch=None), "fault", "doctor_no_llama"),
    ("llama-cpp", replace(USUAL, llama=replace(LLAMA_CARD, hindrance=TOO_OLD)), "fault", TOO_OLD.key),
    ("llama-cpp", replace(on_card(), llama=replace(LLAMA_CARD, hindrance=TOO_OLD)), "note", TOO_OLD.key),
    ("disk", USUAL, "ok", None),
    ("disk", with_storage(cache_free=10**9), "note", "doctor_disk_low"),
    ("disk", with_storage(cache_problem="Read-only file system"), "fault", "doctor_folder_unusable"),
    ("disk", with_storage(data_problem="No space left on device"), "fault", "doctor_folder_unusable"),
    ("disk", with_storage(data_free=10**6), "fault", "doctor_disk_low"),
    ("disk", with_storage(temporary="/tmp/gradio", temporary_free=10**6), "fault", "doctor_disk_low"),
    ("disk", with_storage(temporary="/tmp/gradio", temporary_free=10**9), "ok", None),
    ("models", with_storage(partial=2, partial_bytes=10**9), "note", "doctor_partial"),
    ("models", with_storage(damaged=(Message("model_files_broken", {}),)), "fault", "model_files_broken"),
    ("hub", USUAL, "ok", None),
    ("hub", hub(offline=True), "note", "doctor_hub_offline"),
    ("hub", hub(problem=Message("doctor_hub_unreachable", {})), "note", "doctor_hub_unreachable"),
    ("hub", hub(problem=Message("token_refused", {}), token="refused"), "fault", "token_refused"),
    ("hub", hub(problem=Message("proxy_unusable", {})), "fault", "proxy_unusable"),
    ("port", replace(USUAL, port=Message("port_in_use", {"port": 7860})), "note", "doctor_port_in_use"),
    ("port", replace(USUAL, port=Message("address_not_here", {})), "fault", "address_not_here"),
    ("model", with_engine(missing=Message("doctor_model_missing")), "note", "doctor_model_missing"),
    ("forward", USUAL, "ok", None),
    ("forward", with_engine(differences={"decode": 0.5}), "fault", "doctor_forward_differs"),
    ("forward", with_engine(differences={"decode": float("inf")}), "fault", "doctor_forward_differs"),
    ("forward", with_engine(precision="nf4", differences={"decode": 0.1}), "ok", None),
    ("forward", replace(USUAL, engine=None, failures={"engine": CRASH}), "fault", CRASH.key),
    ("reply", with_engine(failure="generation_failed"), "fault", "doctor_reply_failed"),
    ("llama-reply", USUAL, "ok", None),
    ("llama-reply", replace(USUAL, llama_reply=LlamaReplyFacts(right=False)), "fault", "doctor_llama_wrong"),
    ("llama-reply", replace(USUAL, llama_reply=None, failures={"llama_reply": CRASH}), "fault", CRASH.key),
]


@pytest.mark.parametrize(("name", "facts", "state", "key"), CASES)
def test_a_check_finds_what_is_wrong(name: str, facts: Facts, state: str, key: str | None) -> None:
    found = run_all(ALL, facts)[name]
    assert (found.state, [message.key for message in found.messages]) == (state, [key] if key else [])


@pytest.mark.parametrize(
    ("package", "command"),
    [
        (PackageFacts("nh3", "0.3.1", ">=0.3", True, "x"), 'pip install --force-reinstall --no-deps "nh3>=0.3"'),
        (PackageFacts("torch", "2.13.0", "==2.13.0", True, "x", lacks="triton==3"), 'pip install "triton==3"'),
        (
            PackageFacts("torch", "2.13.0+cu126", "==2.13.0", True, "x"),
            "pip install --force-reinstall --no-deps torch==2.13.0+cu126 "
            "--index-url https://download.pytorch.org/whl/cu126",
        ),
        (
            PackageFacts("nh3", "0.3.1", ">=0.3", also="0.3.1, 0.3.0"),
            'pip uninstall -y nh3; pip uninstall -y nh3; pip install "nh3>=0.3"',
        ),
    ],
)
def test_a_library_is_mended_without_changing_the_others(package: PackageFacts, command: str) -> None:
    (told,) = run_all(ALL, packages(package))["packages"].messages
    assert told.values["command"] == command


@pytest.mark.parametrize(
    ("installed", "system", "file"),
    [
        ((), {}, "requirements.txt"),
        ((), {"has_torch": False}, "requirements-gguf.txt"),
        (("xllamacpp",), {}, "requirements-gguf.txt"),
        (("torch",), {}, "requirements.txt"),
    ],
)
def test_where_many_are_missing_all_are_installed(
    installed: tuple[str, ...], system: dict[str, bool], file: str
) -> None:
    names = ("torch", "xllamacpp", "a", "b", "c", "d")
    listed = tuple(PackageFacts(name, "1" if name in installed else "", "==1") for name in names)
    assert USUAL.system is not None
    facts = replace(USUAL, packages=listed, system=replace(USUAL.system, pip=False, **system))
    first, second = run_all(ALL, facts)["packages"].messages
    assert (first.key, second.values["command"]) == ("doctor_no_pip", f"pip install -r {file}")


def test_an_ordinary_computer_has_no_fault() -> None:
    found = run_all(ALL, USUAL)
    assert {name for name, finding in found.items() if finding.state not in ("ok", "skipped")} == set()


def test_a_card_is_told_where_torch_crashes() -> None:
    hardware = TorchFacts(present=("RTX 4090",), driver="570.1")
    found = run_all(ALL, replace(USUAL, torch=None, hardware=hardware, failures={"torch": CRASH}))
    assert found["gpu"].value == "RTX 4090 · driver 570.1"


def test_a_computer_without_network_card_or_torch_has_no_fault() -> None:
    facts = replace(hub(problem=Message("doctor_hub_unreachable", {})), torch=None, engine=None, safeguards=None)
    assert exit_code(run_all(ALL, replace(facts, packages=GGUF_ONLY))) == 0


def test_a_check_that_breaks_is_told_without_a_trace() -> None:
    def broken(facts: Facts) -> Finding:
        raise ZeroDivisionError("division by zero")

    found = Check("new", broken).run(Facts(Wanted()))
    assert found.state == "unchecked"
    assert found.messages[-1].values == {"error": "ZeroDivisionError: division by zero"}


def test_names_are_short_and_none_is_there_twice() -> None:
    names = [check.name for check in ALL]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 16 and name.islower() for name in names)
