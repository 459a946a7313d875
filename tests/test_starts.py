"""The app started in surroundings that its libraries cannot bear: it serves, or says why not in a sentence; never a trace."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from magistral_ui.ui.asset_files import ASSETS_URL
from tests.loopback import Answering, assert_nothing_is_left, free_port, listening

APP = Path(__file__).parents[1] / "app.py"
STARTING = 120.0
"""Seconds in which the app is there on a machine that is busy with other tests."""


class Proxy(Answering):
    """Writes down what it is asked for, and brings nothing."""

    asked: list[str]

    def any(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        self.answer(502, b"", {})

    do_GET = do_HEAD = do_POST = do_CONNECT = any


class Models(Answering):
    """A server with one model, which remembers that it was asked."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.say({"object": "list", "data": [{"id": "m"}]} if self.path == "/v1/models" else {})

    do_POST = do_GET


@dataclass
class Started:
    """A running app."""

    process: "subprocess.Popen[str]"
    port: int

    def get(self, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
        """What it answers, asked directly; waits for it to be there."""
        directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        until = time.monotonic() + STARTING
        while True:
            try:
                with directly.open(f"http://{host}:{self.port}{path}", timeout=120) as answer:
                    return answer.status, answer.read().decode()
            except OSError:
                assert self.process.poll() is None, self.told()
                assert time.monotonic() < until, "it does not serve"
            time.sleep(0.05)

    def told(self) -> str:
        """What it wrote as an error, once it has ended."""
        self.process.kill()
        return self.process.communicate()[1]


def environment(folder: Path, **variables: str) -> dict[str, str]:
    return {**os.environ, "HOME": str(folder), "GRADIO_TEMP_DIR": str(folder / "g"), **variables}


@contextmanager
def started(
    folder: Path, *arguments: str, shell: str = "", python: str = sys.executable, **variables: str
) -> Iterator[Started]:
    """The app on a free port, started from another folder, with what a `shell` does to its streams; SIGTERM ends it all."""
    port = free_port()
    command = [python, str(APP), "--port", str(port), "--data-dir", str(folder / "data"), *arguments]
    process = subprocess.Popen(
        ["/bin/sh", "-c", f'exec "$@" {shell}', "sh", *command],
        cwd=folder,
        env=environment(folder, **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    running, children = Started(process, port), list[psutil.Process]()
    try:
        yield running
        children = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.terminate()
        try:
            _, told = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        assert "Traceback" not in told
        assert process.returncode == 0, told
        assert_nothing_is_left(children, port)


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    with listening(Proxy, asked=asked) as port:
        yield f"http://127.0.0.1:{port}", asked


def test_it_serves_whatever_proxies_certificates_and_gradio_s_variables_say(
    tmp_path: Path, proxy: tuple[str, list[str]]
) -> None:
    url, asked = proxy
    gradios = ("DEBUG", "NUM_PORTS", "SERVER_PORT", "NUM_WORKERS", "ROOT_PATH", "HEARTBEAT_INTERVAL", "WATCH_DIRS")
    with started(
        tmp_path,
        "--model=demo",
        http_proxy=url,
        HTTPS_PROXY="socks4://127.0.0.1:9",
        ALL_PROXY="http://[bad",
        no_proxy="localhost, [::1]:80, fe80::/10",
        SSL_CERT_FILE=str(tmp_path / "gone.pem"),
        REQUESTS_CA_BUNDLE="/gone",
        WEB_CONCURRENCY="many",
        OMP_NUM_THREADS="junk",
        HF_HUB_DOWNLOAD_TIMEOUT="soon",
        **{f"GRADIO_{name}": "1" if name == "DEBUG" else "/x" for name in gradios},
    ) as running:
        status, page = running.get("/")
        assert status == 200
        assert f"{ASSETS_URL}/main.js" in page
        assert running.process.stdout is not None
        assert running.process.stdout.readline().startswith(
            f"Magistral UI is running at http://127.0.0.1:{running.port}/"
        )
        until = time.monotonic() + STARTING
        while (
            "loading" in running.get("/healthz")[1]
        ):  # a start that waits for something here would never load the model
            assert time.monotonic() < until
            time.sleep(0.05)
        assert "ready" in running.get("/healthz")[1]
    assert asked == [], "what the app asks of itself went through a proxy"


def test_a_model_s_server_on_this_machine_is_asked_directly(tmp_path: Path, proxy: tuple[str, list[str]]) -> None:
    url, through = proxy
    asked: list[str] = []
    with (
        listening(Models, asked=asked) as port,
        started(tmp_path, f"--base-url=http://localhost:{port}/v1", http_proxy=url, ALL_PROXY=url) as running,
    ):
        until = time.monotonic() + STARTING
        while "ready" not in running.get("/healthz")[1]:
            assert time.monotonic() < until
            time.sleep(0.05)
    assert "/v1/models" in asked
    assert through == []


@pytest.mark.skipif(sys.platform == "win32", reason="streams are closed by a shell of Unix'")
def test_it_serves_without_a_terminal_a_home_or_more_than_ascii(tmp_path: Path) -> None:
    folder = tmp_path / "with blanks ünd ümlauts"
    folder.mkdir()
    with started(
        folder,
        "--model=demo",
        "--host=127.0.0.1",
        shell="<&- >&-",
        HOME="/no/such/home",
        TMPDIR="/no/such/folder",
        LC_ALL="C",
        PYTHONUTF8="0",
        PYTHONIOENCODING="ascii",
        PYTHONWARNINGS="error",
        TERM="dumb",
    ) as running:
        assert running.get("/")[0] == 200


def refused(folder: Path, *arguments: str, **variables: str) -> str:
    """The sentence with which the app ends."""
    ended = subprocess.run(
        [sys.executable, str(APP), "--model=demo", *arguments],
        cwd=folder,
        env=environment(folder, **variables),
        capture_output=True,
        text=True,
        timeout=STARTING,
    )
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert ended.stdout == ""
    return ended.stderr


def test_a_folder_for_uploads_that_cannot_be_ends_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = refused(tmp_path, GRADIO_TEMP_DIR=str(tmp_path / "file"))
    assert f"The folder {tmp_path / 'file'} cannot be used" in told
    assert "GRADIO_TEMP_DIR" in told


def test_a_proxy_that_is_needed_and_cannot_be_used_ends_it(tmp_path: Path) -> None:
    told = refused(tmp_path, "--base-url", "http://model.example:8000/v1", ALL_PROXY="socks4://127.0.0.1:9")
    assert "ALL_PROXY" in told


def test_an_address_of_another_machine_ends_it_and_consoles_of_ascii_can_show_why(tmp_path: Path) -> None:
    told = refused(tmp_path, "--host", "203.0.113.5", "--port", str(free_port()), PYTHONIOENCODING="ascii")
    assert "203.0.113.5 is not an address of this machine" in told
