"""Each known fault is found where it is, and only there; where the app keeps it away, that is said."""

from dataclasses import replace

import pytest

from magistral_ui.doctor.checks import ABSENT, MENDED, run_all
from magistral_ui.doctor.checks_known import CHECKS
from magistral_ui.doctor.facts import CardFacts, Facts, Wanted
from magistral_ui.errors import Message
from tests.doctor.machines import (
    GIB,
    LLAMA_CARD,
    TOO_OLD,
    USUAL,
    on_apple,
    on_card,
    with_engine,
    with_safeguards,
    with_storage,
    with_torch,
)

OLD_DRIVER = Message("gpu_driver_old", {"card": "RTX 5090", "driver": "570.1", "needed": 580})
NO_CUDA = Message("gpu_torch_without_cuda", {"card": "RTX 4090", "command": "pip install …"})
NF4, INT8 = Wanted(precision="nf4"), Wanted(precision="int8")
ZERO = {granted: replace(USUAL, system=replace(USUAL.system, zerogpu_granted=granted)) for granted in (30, 60, 0)}  # type: ignore[type-var]

MIXED = tuple(CardFacts("card", 20 * GIB, 24 * GIB, step) for step in ((8, 9), (9, 0), (7, 5)))

CASES: list[tuple[str, Facts, str, str]] = [
    ("apple-float64", USUAL, "ok", ABSENT.key),
    ("apple-float64", on_apple(), "ok", MENDED.key),
    ("apple-float64", with_engine(on_apple(), failure="generation_failed"), "fault", "doctor_reply_failed"),
    ("cudnn-attention", on_card((8, 9), engine={"cudnn": True}), "ok", ABSENT.key),
    ("cudnn-attention", on_card((9, 0)), "ok", MENDED.key),
    ("cudnn-attention", on_card((10, 0), engine={"cudnn": True}), "fault", "doctor_cudnn"),
    ("cudnn-attention", on_card((12, 0), engine={"cudnn": True}), "ok", ABSENT.key),
    ("cudnn-attention", with_torch(on_card(engine={"cudnn": True}), cards=MIXED), "fault", "doctor_cudnn"),
    ("torch-build", USUAL, "ok", ABSENT.key),
    ("torch-build", with_torch(hindrance=NO_CUDA), "fault", NO_CUDA.key),
    ("torch-build", with_torch(hindrance=OLD_DRIVER), "fault", OLD_DRIVER.key),
    ("torch-build", with_torch(hindrance=TOO_OLD), "ok", ABSENT.key),
    ("torch-build", with_torch(hindrance=Message("gpu_not_nvidia", {"card": "AMD"})), "note", "gpu_not_nvidia"),
    ("torch-build", with_torch(hindrance=Message("gpu_hidden", {"card": "RTX"})), "note", "gpu_hidden"),
    ("graph-memory", USUAL, "ok", ABSENT.key),
    ("graph-memory", on_card(), "ok", MENDED.key),
    ("graph-memory", on_card(engine={"overhead": 3 * GIB}), "fault", "doctor_graph_memory"),
    ("out-of-memory", USUAL, "ok", MENDED.key),
    ("out-of-memory", with_safeguards(out_of_memory_named=False), "fault", "doctor_out_of_memory"),
    ("old-card", on_card((7, 5)), "ok", ABSENT.key),
    ("old-card", with_torch(hindrance=TOO_OLD), "fault", TOO_OLD.key),
    ("old-card", replace(with_torch(hindrance=TOO_OLD), llama=LLAMA_CARD), "note", TOO_OLD.key),
    ("model-type", USUAL, "ok", MENDED.key),
    ("model-type", with_safeguards(types_refused=False), "fault", "doctor_model_type"),
    ("model-type", with_safeguards(position_scale=0.9), "fault", "doctor_position_scale"),
    ("model-type", with_safeguards(position_scale=float("nan")), "fault", "doctor_position_scale"),
    ("apple-memory", USUAL, "ok", ABSENT.key),
    ("apple-memory", on_apple(), "ok", MENDED.key),
    ("apple-memory", replace(on_apple(), llama=None), "fault", "doctor_apple_memory"),
    ("apple-memory", replace(on_apple(), wanted=NF4), "fault", "doctor_apple_memory"),
    ("int8-on-cuda", replace(USUAL, wanted=INT8), "ok", ABSENT.key),
    ("int8-on-cuda", on_card(), "ok", MENDED.key),
    ("int8-on-cuda", replace(on_card(), wanted=INT8), "fault", "doctor_int8"),
    ("int8-on-cuda", on_card(precisions=("bfloat16", "int8", "nf4")), "fault", "doctor_int8"),
    ("graph-stream", on_card(), "ok", ABSENT.key),
    ("graph-stream", with_safeguards(split_difference=1e-4), "ok", MENDED.key),
    ("graph-stream", with_safeguards(split_difference=1.2), "fault", "doctor_graph_stream"),
    (
        "graph-stream",
        with_safeguards(split_difference=0.0, split_warnings=("decode steps are not recorded as graphs: x",)),
        "fault",
        "doctor_graph_stream",
    ),
    ("before-ampere", USUAL, "ok", ABSENT.key),
    ("before-ampere", on_card((8, 0)), "ok", ABSENT.key),
    ("before-ampere", on_card((7, 5)), "note", "doctor_before_ampere"),
    ("before-ampere", with_torch(on_card(), cards=MIXED), "note", "doctor_before_ampere"),
    ("before-ampere", with_torch(on_card((7, 5)), fused=True), "fault", "doctor_before_ampere_unplanned"),
    ("disk-twice", USUAL, "ok", ABSENT.key),
    ("disk-twice", with_storage(symlinks=False), "note", "doctor_no_symlinks"),
    ("disk-twice", with_storage(symlinks=False, twice_bytes=10**9), "fault", "doctor_disk_twice"),
    ("slow-nf4", USUAL, "ok", ABSENT.key),
    ("slow-nf4", with_torch(on_card(), fast_nf4=False), "ok", ABSENT.key),
    ("slow-nf4", with_torch(fast_nf4=False), "ok", MENDED.key),
    ("slow-nf4", replace(with_torch(fast_nf4=False), wanted=NF4), "fault", "doctor_slow_nf4"),
    ("slow-nf4", replace(with_torch(fast_nf4=False), llama=None), "fault", "doctor_slow_nf4"),
    ("plan-order", USUAL, "ok", ABSENT.key),
    ("plan-order", on_card(), "ok", MENDED.key),
    ("plan-order", on_card(engine={"kv_possible": 10 * GIB}), "fault", "doctor_plan_order"),
    ("plan-order", on_card(engine={"kv_possible": 0}), "ok", MENDED.key),
    ("zerogpu-seconds", USUAL, "ok", ABSENT.key),
    ("zerogpu-seconds", ZERO[30], "ok", MENDED.key),
    ("zerogpu-seconds", ZERO[60], "fault", "doctor_zerogpu"),
    ("zerogpu-seconds", ZERO[0], "fault", "doctor_zerogpu"),
]


@pytest.mark.parametrize(("name", "facts", "state", "key"), CASES)
def test_a_known_fault_is_told_where_it_is(name: str, facts: Facts, state: str, key: str) -> None:
    found = run_all(CHECKS, facts)[name]
    assert (found.state, [message.key for message in found.messages]) == (state, [key])


def test_every_known_fault_has_a_case_both_ways() -> None:
    for check in CHECKS:
        states = {state for name, _, state, _ in CASES if name == check.name}
        assert {"ok"} < states, check.name


def test_without_torch_nothing_of_torch_s_is_there() -> None:
    found = run_all(CHECKS, replace(USUAL, torch=None, engine=None, safeguards=None))
    assert {finding.state for finding in found.values()} == {"ok"}


def test_what_a_crash_hides_is_told_as_unchecked() -> None:
    crash = Message("doctor_reason_crashed", {"how": "SIGSEGV", "stage": "forward"})
    found = run_all(CHECKS, replace(on_card((9, 0)), engine=None, failures={"engine": crash}))
    assert {name for name, finding in found.items() if finding.state == "unchecked"} == {
        "cudnn-attention",
        "graph-memory",
        "plan-order",
    }
    assert found["cudnn-attention"].messages[-1] == crash
