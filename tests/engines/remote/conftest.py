"""A real server for the remote engine: llama.cpp's, with the demo model, started once for all of these tests."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from magistral_ui.engines.base import Loading
from magistral_ui.engines.remote import server_monitor
from magistral_ui.engines.remote.engine import RemoteEngine
from magistral_ui.engines.remote.server_address import ServerAddress
from tests.loopback import free_port
from tests.servers.fake_gateway import FakeGateway
from tests.servers.gguf_files import write_gguf
from tests.servers.processes import ServerProcess

LLAMA_CPP = Path(__file__).parents[2] / "servers" / "llama_cpp.py"


def connected(base_url: str, key: str = "", **wishes: str) -> RemoteEngine:
    """An engine on the server there, which has found out what it is."""
    engine = RemoteEngine(ServerAddress(base_url, key), **wishes)  # type: ignore[arg-type]
    engine.start()
    deadline = time.monotonic() + 30
    while isinstance(engine.status(), Loading) and time.monotonic() < deadline:
        time.sleep(0.01)
    return engine


@pytest.fixture(scope="session")
def gguf_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    write_gguf(folder)
    return folder


def start_llama_cpp(folder: Path, port: int | None = None, slots: int = 4, **settings: object) -> ServerProcess:
    """llama.cpp's server, ready to answer."""
    port = port or free_port()
    command = [sys.executable, str(LLAMA_CPP), str(folder), str(port), str(slots), json.dumps(settings)]
    server = ServerProcess(command, port, folder / "server.log")
    server.wait_until_up("/health")
    return server


@pytest.fixture(scope="session")
def llama_cpp(gguf_folder: Path) -> Iterator[ServerProcess]:
    server = start_llama_cpp(gguf_folder)
    yield server
    server.close()


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    fake = FakeGateway()
    yield fake
    fake.close()


@pytest.fixture
def mortal(gguf_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    """A server to be killed."""
    monkeypatch.setattr(server_monitor, "CHECK_INTERVAL_READY", 0.05)
    monkeypatch.setattr(server_monitor, "CHECK_INTERVAL_WAITING", 0.05)
    server = start_llama_cpp(gguf_folder)
    yield server
    server.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., RemoteEngine]]:
    """Makes engines, and closes them."""
    made: list[RemoteEngine] = []

    def make(base_url: str, key: str = "", **wishes: str) -> RemoteEngine:
        made.append(connected(base_url, key, **wishes))
        return made[-1]

    yield make
    for engine in made:
        engine.close()
