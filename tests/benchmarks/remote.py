"""What one process carries of a remote engine: `make bench-remote` streams to 50, 200 and 500 followers and writes a table.

Three processes: the server that streams (upstream.py), the engine with its followers (followers.py), and this one.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil

from tests.loopback import free_port

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "docs" / "scaling-numbers.md"
RATE = 30
SECONDS = 20
COUNTS = (50, 200, 500)
COLUMNS = (
    "followers",
    "incomplete",
    "tokens",
    "cores",
    "microseconds_per_token",
    "lag_median_ms",
    "lag_p99_ms",
    "memory_mb",
)


def start_upstream(port: int, rate: int = RATE, seconds: int = SECONDS) -> subprocess.Popen[bytes]:
    """The server, once it listens."""
    command = [sys.executable, "-m", "tests.benchmarks.upstream", str(port), str(rate), str(seconds)]
    process = subprocess.Popen(command, cwd=ROOT)
    for _ in range(200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return process
    raise AssertionError("the server did not start")


def measure(port: int, count: int) -> dict[str, object]:
    """One row of the table."""
    before = psutil.cpu_times()
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.benchmarks.followers",
        f"http://127.0.0.1:{port}/v1",
        str(count),
    ]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    row: dict[str, object] = json.loads(ended.stdout.splitlines()[-1])
    after = psutil.cpu_times()
    busy = 1 - (after.idle - before.idle) / max(1e-9, sum(after) - sum(before))
    return {**row, "busy": f"{busy:.0%}"}


def main() -> None:
    """Measure, and write the report."""
    port = free_port()
    upstream = start_upstream(port)
    try:
        rows = [measure(port, count) for count in map(int, sys.argv[1:] or COUNTS)]
    finally:
        upstream.kill()
        upstream.wait()
    columns = [*COLUMNS, "busy"]
    lines = [
        "# One process with a model server: measurements",
        "",
        f"Measured by `make bench-remote` on {os.cpu_count()} cores: a server streams {RATE} tokens per second to each follower",
        f"for {SECONDS} seconds; the engine and all followers share one process. `incomplete` counts replies with a missing",
        "or repeated token. `cores` is the CPU use of that process, `busy` that of the whole machine, other programs",
        "included: near 100 %, the lags are those of the machine and not of the engine.",
        "",
        "| " + " | ".join(name.replace("_", " ") for name in columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(str(row[name]) for name in columns) + " |" for row in rows),
    ]
    REPORT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines[7:]))


if __name__ == "__main__":
    main()
