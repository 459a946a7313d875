"""Finds, in a child process, what computer this is, and whether the page's port is free."""

import os
import platform
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from magistral_ui.doctor.package_probe import python_version
from magistral_ui.errors import ServeError

CPUINFO = Path("/proc/cpuinfo")
INSTRUCTIONS = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX", "asimd": "NEON"}
CGROUP = Path("/sys/fs/cgroup")
OLDEST_GLIBC = (2, 28)
TORCH_MACHINES = {"Linux": ("x86_64", "aarch64"), "Darwin": ("arm64",), "Windows": ("AMD64", "ARM64")}
"""The processors that torch 2.13 has wheels for, as its files on PyPI are named."""
ASKED_SECONDS, LEFT_SECONDS = 60, 61
"""A slice that ZeroGPU would refuse where each second costs two, and what is left of the quota then."""


def system_facts() -> Iterator[dict[str, Any]]:
    yield {"python": python_version(), "system": f"{platform.system()} {platform.release()}"}
    processor, flags = _processor()
    yield {"processor": processor, "instructions": flags, "architecture": platform.machine()}
    yield {
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "pip": find_spec("pip") is not None,
        "environment": _environment(),
    }
    yield {"has_torch": has_torch(platform.system(), platform.machine(), platform.libc_ver())}
    yield {"stage": "psutil"}
    import psutil

    from magistral_ui.engines.gguf.cpu_cores import usable_cores

    memory = psutil.virtual_memory()
    yield {"cores": usable_cores(), "memory": memory.total, "free": memory.available}
    limit = memory_limit(CGROUP)
    yield {"limit": limit if limit is not None and limit < memory.total else None}
    if os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true"):
        yield {"stage": "zerogpu"}
        yield {"zerogpu_granted": zerogpu_granted()}


def _environment() -> str:
    """Where libraries are installed, and whether pip may install any there."""
    if sys.prefix != sys.base_prefix:
        return "venv"
    if (Path(sys.prefix) / "conda-meta").is_dir():
        return "conda"
    return "system"


def has_torch(system: str, machine: str, libc: tuple[str, str]) -> bool:
    """Whether torch's builds run there: none is for Macs with Intel's processors, 32 bits, musl or a glibc before 2.28."""
    if system == "Linux" and libc[0] != "glibc":
        return False
    if system == "Linux" and tuple(int(part) for part in libc[1].split(".")[:2] if part.isdigit()) < OLDEST_GLIBC:
        return False
    return machine in TORCH_MACHINES.get(system, ())


def memory_limit(folder: Path) -> int | None:
    """Bytes that the control group may use; None: no limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            told = (folder / name).read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            continue
        return int(told) if told.isdecimal() else None
    return None


def _processor() -> tuple[str, list[str]]:
    """Its name and the instructions that matter here, as far as the system tells."""
    try:
        told = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor(), []
    fields: dict[str, str] = {}
    for line in told.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    known = set((fields.get("flags") or fields.get("Features") or "").split())
    return fields.get("model name", ""), [shown for flag, shown in INSTRUCTIONS.items() if flag in known]


def zerogpu_granted() -> int:
    """Seconds that the app asks for after a slice on a large GPU, which counts double, was refused."""
    from magistral_ui.engines.zerogpu.engine import GpuRefusal

    return GpuRefusal("gpu_quota_spent", {}, 2 * ASKED_SECONDS, LEFT_SECONDS).granted(ASKED_SECONDS)


def choice_facts(model: str | None, precision: str) -> Iterator[dict[str, Any]]:
    """Whether the model that is named is one for llama.cpp."""
    from magistral_ui.engines.gguf.source import names_gguf

    yield {"gguf": names_gguf(model, precision)}


def port_facts(host: str, port: int) -> Iterator[dict[str, Any]]:
    from magistral_ui.web.server_socket import bind

    try:
        for listener in bind(host, (port,)):
            listener.close()
    except ServeError as error:
        yield {"problem": [error.message.key, dict(error.message.values)]}
