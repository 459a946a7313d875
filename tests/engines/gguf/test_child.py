"""The child process of llama.cpp: who may ask it, what it reveals, and that it never outlives the page."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from magistral_ui.engines.gguf.child_process import CHILD, child_environment, printable
from magistral_ui.engines.gguf.completion import CompletionFailed, CompletionStream
from magistral_ui.engines.gguf.supervisor import LlamaServer
from tests.engines.gguf.children import ask, endless_file, files, model, runs, serving
from tests.waiting import until

ROOT = Path(__file__).parents[3]
PAGE = """
import os, signal, sys, threading, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored, also by all that it starts
from pathlib import Path
from magistral_ui.engines.gguf.supervisor import ServerSettings, Supervisor
told = ServerSettings.told
ServerSettings.told = lambda self, key: {**told(self, key), "watcher": sys.argv[2] == "watcher"}
settings = ServerSettings(Path(sys.argv[1]), threads=1, context=8192, slots=1, warm_up=False)
server = Supervisor(settings, lambda said: None, threading.Event()).start()
print(server.port, server.key, flush=True)
time.sleep(600)
"""
HOLDERS = ["kernel", "watcher"]
"""What ends the child with the page: Linux does that, elsewhere a small process."""
ENDPOINTS = ["/props", "/models", "/v1/models", "/slots", "/metrics", "/lora-adapters", "/v1/streams"]
POSTS = [
    "/completion",
    "/completions",
    "/v1/completions",
    "/chat/completions",
    "/v1/chat/completions",
    "/v1/messages",
    "/v1/responses",
    "/infill",
    "/embedding",
    "/embeddings",
    "/v1/embeddings",
    "/rerank",
    "/tokenize",
    "/detokenize",
    "/apply-template",
    "/props",
    "/slots/0?action=erase",
    "/lora-adapters",
]
SECRET = "zebra-in-the-cellar"


@pytest.fixture(scope="module")
def server() -> Iterator[LlamaServer]:
    with serving(mmproj=files() / "mmproj.gguf") as found:
        yield found


@contextmanager
def page(model: Path, holder: str = "kernel") -> Iterator[subprocess.Popen[str]]:
    """A process that starts a child, as the app does, in a session of its own."""
    command = [sys.executable, "-c", PAGE, str(model), holder]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def children_of(process: subprocess.Popen[str]) -> list[int]:
    """The child that runs llama.cpp, and its watcher if it has one."""
    return [each.pid for each in psutil.Process(process.pid).children(recursive=True)]


def begin_reply(port: int, key: str) -> http.client.HTTPConnection:
    """A reply that is being written and lasts far longer than a test."""
    body = json.dumps({"prompt": [1, 3, 100, 4], "n_predict": 8_000, "ignore_eos": True, "stream": True})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", "/completion", body, {"Authorization": f"Bearer {key}"})
    assert connection.getresponse().readline().startswith(b"data:")
    return connection


@pytest.mark.parametrize("path", ENDPOINTS)
def test_nothing_is_told_without_the_key(server: LlamaServer, path: str) -> None:
    assert ask(server, path, key="")[0] == 401
    assert ask(server, path, key="wrong")[0] == 401


@pytest.mark.parametrize("path", POSTS)
def test_nothing_is_done_without_the_key(server: LlamaServer, path: str) -> None:
    assert ask(server, path, {"prompt": [1, 3, 4], "n_predict": 1}, key="")[0] == 401


def test_only_whether_it_is_well_is_public(server: LlamaServer) -> None:
    assert ask(server, "/health", key="") == (200, b'{"status":"ok"}')
    assert ask(server, "/", key="")[0] == 404


def test_it_has_no_more_endpoints_than_are_used(server: LlamaServer) -> None:
    assert ask(server, "/slots")[0] == ask(server, "/metrics")[0] == 501
    assert ask(server, "/cors-proxy?url=http://127.0.0.1")[0] in (403, 404)
    assert ask(server, "/tools")[0] in (403, 404)


def test_it_listens_on_loopback_only(server: LlamaServer) -> None:
    found = psutil.Process(server.pid).net_connections(kind="inet")
    listens = [each.laddr for each in found if each.status == psutil.CONN_LISTEN]
    assert [(each.ip, each.port) for each in listens] == [("127.0.0.1", server.port)]


def test_the_key_is_in_no_argument_and_no_variable(server: LlamaServer) -> None:
    process = psutil.Process(server.pid)
    assert server.key not in " ".join(process.cmdline())
    assert server.key not in " ".join(process.environ().values())
    assert len(server.key) >= 32


def test_no_text_of_people_reaches_the_log(server: LlamaServer) -> None:
    """Of the requests that the app makes, or could make by a mistake; a grammar would be quoted, but it sends none."""
    for body in (
        {"prompt": SECRET, "n_predict": 2},
        {"prompt": [1, 3, 100, 4] * 5_000, "n_predict": 2},
        {"prompt": SECRET * 5_000},
        {"prompt": {"prompt_string": f"{SECRET}<__media__>", "multimodal_data": [SECRET]}},
        {"prompt": [SECRET, -1, 2**40, 999_999]},
        f'{{"prompt": "{SECRET}'.encode(),
        b'{"prompt": "\xff\xfe' + SECRET.encode() + b'"}',
        {"messages": [{"role": "user", "content": SECRET}]},
    ):
        ask(server, "/completion", body)
    assert server.alive
    assert SECRET not in server.stderr_tail()


def test_no_text_of_people_is_in_an_error(server: LlamaServer) -> None:
    """llama.cpp quotes a request that it cannot parse, and what fails is logged."""
    stream, errors = CompletionStream(server, {"prompt": f"{SECRET}\ud800", "stream": True}), []

    def failed() -> bool:
        try:
            stream.send() if stream.sending else stream.read()
        except CompletionFailed as error:
            errors.append(str(error))
        return bool(errors)

    until(failed)
    stream.close()
    assert "parse error" in errors[0]
    assert SECRET not in errors[0]


def test_the_environment_is_without_what_would_change_llama_cpp() -> None:
    given = {"PATH": "/bin", "LLAMA_ARG_HOST": "0.0.0.0", "GGML_SCHED_DEBUG": "2", "GGML_VK_VISIBLE_DEVICES": "1"}
    found = child_environment({**given, "LLAMA_API_KEY": "x", "MTMD_DEBUG": "1", "llama_log_file": "x"})
    assert found.keys() == {"PATH", "GGML_VK_VISIBLE_DEVICES", "LLAMA_SERVER_ROUTER_PORT", "GGML_NO_BACKTRACE"}


def test_it_starts_whatever_python_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise SystemExit(7)")
    for name, value in {
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": str(tmp_path),
        "PYTHONWARNINGS": "error",
        "PYTHONINSPECT": "1",
        "LLAMA_ARG_PORT": "1",
        "LLAMA_ARG_CTX_SIZE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    with serving() as found:
        assert found.props["default_generation_settings"]["n_ctx"] == 2_048


@pytest.mark.parametrize("holder", HOLDERS)
def test_it_ends_with_a_page_that_is_killed_while_it_loads(tmp_path: Path, holder: str) -> None:
    with endless_file(tmp_path) as (file, wait_until_loads), page(file, holder) as process:
        until(lambda: len(children_of(process)) == (2 if holder == "watcher" else 1), "the child does not start")
        wait_until_loads()
        found = children_of(process)
        process.kill()
        until(lambda: not any(map(runs, found)), "a process has outlived the page")


@pytest.mark.parametrize(("holder", "stopped"), [*((each, False) for each in HOLDERS), (HOLDERS[0], True)])
def test_it_ends_with_a_page_that_is_killed_during_a_reply(holder: str, *, stopped: bool) -> None:
    with page(model(), holder) as process:
        assert process.stdout is not None
        port, key = process.stdout.readline().split()
        connection = begin_reply(int(port), key)
        found = children_of(process)
        if stopped:
            os.kill(found[0], signal.SIGSTOP)
        process.kill()
        until(lambda: not any(map(runs, found)), "a process has outlived the page")
        connection.close()


@pytest.mark.parametrize("loads", [True, False], ids=["loading", "serving"])
def test_it_ends_with_the_terminal(tmp_path: Path, loads: bool) -> None:
    with endless_file(tmp_path) as (endless, wait_until_loads), page(endless if loads else model()) as process:
        assert process.stdout is not None
        if loads:
            wait_until_loads()
        else:
            process.stdout.readline()
        found = children_of(process)
        os.killpg(process.pid, signal.SIGHUP)
        until(lambda: not any(map(runs, found)), "a process has outlived the terminal")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_leaves_its_end_to_the_page(server: LlamaServer, number: signal.Signals) -> None:
    os.kill(server.pid, number)
    time.sleep(0.05)  # for the signal to arrive; a child that ended would not answer either way
    assert ask(server, "/completion", {"prompt": [1, 3, 100, 4], "n_predict": 2})[0] == 200
    assert os.getsid(server.pid) != os.getsid(0), "a terminal's Ctrl-C would reach it"


def test_it_ends_when_it_is_told_nothing() -> None:
    ended = subprocess.run([sys.executable, "-I", str(CHILD)], input=b"", capture_output=True, timeout=120, check=False)
    assert ended.returncode != 0


def test_a_crash_writes_no_core(server: LlamaServer) -> None:
    assert psutil.Process(server.pid).rlimit(psutil.RLIMIT_CORE) == (0, 0)


def test_a_log_line_is_printable() -> None:
    assert printable("a\x1b[31m\tb\x00\r\n") == "a [31m b"
