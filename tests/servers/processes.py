"""Starts a server of another program in a process of its own, waits until it answers, and ends it; it knows no protocol."""

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path


class ServerProcess:
    """One run of a server."""

    def __init__(
        self, command: Sequence[str], port: int, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.port, self.log = port, log
        self.base_url = f"http://127.0.0.1:{port}/v1"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                command, stdout=out, stderr=out, env={**os.environ, **(environment or {})}, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_up(self, path: str = "/v1/models", timeout: float = 60) -> None:
        """Return when `path` is answered without an error; AssertionError with the log's end where it never is."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise AssertionError(f"no server on port {self.port}:\n{self.log.read_text(errors='replace')[-2000:]}")

    def send_signal(self, what: signal.Signals) -> None:
        """Send it, and what it has started, a signal."""
        os.killpg(self._process.pid, what)

    def kill(self) -> None:
        """End it at once, as a power cut does."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """End it in order; at once where it does not."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, how)
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=60)
