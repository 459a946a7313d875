"""Starts a gathered folder as a Space starts its app: in that folder, with a Space's variables; which Python runs it is given."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.loopback import free_port

PATIENCE = 300.0
"""Seconds that a start may take on a busy machine before it counts as failed."""


def space_variables(home: Path, port: int) -> dict[str, str]:
    """What the Hub sets for a Gradio Space; the names of the page are this machine's, so that it can be asked."""
    return {
        "SYSTEM": "spaces",
        "SPACE_ID": "someone/magistral",
        "SPACE_HOST": "127.0.0.1",
        "SPACE_AUTHOR_NAME": "someone",
        "SPACE_REPO_NAME": "magistral",
        "SPACE_TITLE": "Magistral UI",
        "SPACE_CREATOR_USER_ID": "0" * 24,
        "GRADIO_SERVER_NAME": "0.0.0.0",
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_ALLOW_FLAGGING": "never",
        "GRADIO_NUM_PORTS": "1",
        "GRADIO_THEME": "huggingface",
        "OAUTH_CLIENT_ID": "id",
        "OAUTH_CLIENT_SECRET": "secret",
        "OAUTH_SCOPES": "openid profile",
        "OPENID_PROVIDER_URL": "https://huggingface.co",
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",  # this test's own: nothing of a Space's start may need the network
        "GRADIO_ANALYTICS_ENABLED": "False",
    }


@contextmanager
def started(
    folder: Path, home: Path, python: str = sys.executable, command: tuple[str, ...] = ("app.py",), **more: str
) -> Iterator[tuple[str, int]]:
    """The address at which the app in `folder` is served meanwhile, and the number of its process."""
    port = free_port()
    home.mkdir(exist_ok=True)
    log = home / "log.txt"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [python, *command], cwd=folder, env={**space_variables(home, port), **more}, stdout=out, stderr=out
        )
    try:
        url = f"http://127.0.0.1:{port}/"
        until = time.monotonic() + PATIENCE
        while not _answers(url):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < until, log.read_text(encoding="utf-8")
            time.sleep(0.2)
        yield url, process.pid
        told = log.read_text(encoding="utf-8")
        assert not re.search("Traceback|Warning", told), told
    finally:
        process.terminate()
        process.wait(30)


def until_ready(url: str) -> None:
    """Wait until the app there listens and its model is ready; AssertionError where that takes too long."""
    until = time.monotonic() + PATIENCE
    while _health(url) != "ready":
        assert time.monotonic() < until, "the app did not become ready"
        time.sleep(0.2)


def _health(url: str) -> str:
    try:
        with urllib.request.urlopen(url + "healthz", timeout=5) as answer:
            return str(json.load(answer)["status"])
    except OSError:
        return ""


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as page:
            return bool(page.status == 200)
    except OSError:
        return False
