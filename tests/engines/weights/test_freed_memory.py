"""Freed host memory goes back to the system, also from between what is still in use."""

import subprocess
import sys

import pytest

from magistral_ui.engines.weights import freed_memory

SCRIPT = """
import sys
from magistral_ui.engines.weights.freed_memory import trim_heap
def private():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) // 1024
blocks = [bytearray(b"x" * 100_000) for _ in range(2_000)]
full, kept = private(), blocks[::20]
del blocks
trim_heap()
print(full - private())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.skipif(freed_memory._malloc_trim() is None, reason="only glibc keeps what is freed")
def test_what_is_freed_between_what_is_used_goes_back() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 150, "of 180 MiB, between blocks that are still in use"


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freed_memory, "_malloc_trim", lambda: None)
    freed_memory.trim_heap()
