"""Counts the processor's cores that may be used, also in a container."""

import os
from pathlib import Path

import psutil
import pytest

from magistral_ui.engines.gguf import cpu_cores
from magistral_ui.engines.gguf.cpu_cores import quota, usable_cores


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "200000 100000\n"}, 2.0),
        ({"cpu.max": "50000 100000\n"}, 0.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "0 100000"}, None),
        ({"cpu.max": "x"}, None),
        ({"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "1", "cpu/cpu.cfs_period_us": "0"}, None),
        ({}, None),
    ],
)
def test_a_container_s_share_is_read(tmp_path: Path, files: dict[str, str], expected: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert quota(tmp_path) == expected


def test_threads_are_cores_that_may_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cpu_cores, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 16 if logical else 8)
    assert usable_cores() == 8
    (tmp_path / "cpu.max").write_text("200000 100000")
    assert usable_cores() == 2
    (tmp_path / "cpu.max").write_text("10000 100000")
    assert usable_cores() == 1
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: None)
    (tmp_path / "cpu.max").unlink()
    assert usable_cores() == 16
