"""Counts the cores of the processor that this process may use; it does not know what for."""

import math
import os
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """The physical cores that this process may use: a container or a Space has a share of a larger machine.

    llama.cpp's threads wait for each other at every step of a computation. With more threads than cores, each wait lasts until
    the system runs the last of them.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(allowed, psutil.cpu_count(logical=False) or allowed)
    return max(1, min(cores, math.ceil(quota(CGROUP) or cores)))


def quota(folder: Path) -> float | None:
    """How many processors' time the control group may use; None: no limit."""
    limit, _, period = _read(folder / "cpu.max").partition(" ")
    if not limit:  # version 1
        limit, period = _read(folder / "cpu/cpu.cfs_quota_us"), _read(folder / "cpu/cpu.cfs_period_us")
    if not (limit.isdecimal() and period.isdecimal() and int(period)):
        return None
    return int(limit) / int(period) or None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
