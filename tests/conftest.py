"""What holds for every test: no network but loopback, a home of its own, and a clean environment."""

import gc
import os
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Before anything that is tested is imported: libraries read these once.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nor shall a proxy or certificates of the machine that runs the tests decide about them.
for name in [name for name in os.environ if name.startswith("MAGISTRAL_UI_") or name.lower().endswith("_proxy")]:
    del os.environ[name]
for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
    os.environ.pop(name, None)

pytest.register_assert_rewrite("tests.engines.contract")
settings.register_profile("gate", deadline=None, derandomize=True, database=None)
settings.load_profile("gate")

# What is imported stays: to search it for garbage while it grows would take a quarter of the time of collecting the tests.
gc.disable()

LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0", "::ffff:127.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The browser comes last: what is quick tells first, and its driver keeps an event loop running in this thread.

    Its large files come before its small ones, so that the processes that run files side by side end together.
    """
    cases = Counter(item.path for item in items if "browser" in item.path.parts)
    items.sort(key=lambda item: (item.path in cases, -cases[item.path]))


def pytest_collection_finish() -> None:
    """Collect garbage again, among what the tests create: all that was there before them counts as old."""
    gc.freeze()
    gc.unfreeze()
    gc.enable()


class NetworkRefused(RuntimeError):
    """A test tried to leave this machine."""


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """Connections to anything but this machine fail loudly."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def guard(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(LOOPBACK):
            raise NetworkRefused(f"a test may not connect to {address}")

    def guarded_connect(self: socket.socket, address: Any) -> None:
        guard(self, address)
        return connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        guard(self, address)
        return connect_ex(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", guarded_connect)
    patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    yield
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home folder that no person uses; what is written below the real one would be a defect."""
    home = tmp_path_factory.mktemp("home")
    patch = pytest.MonkeyPatch()
    patch.setenv("HOME", str(home))
    patch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    patch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    patch.setenv("XDG_DATA_HOME", str(home / ".local" / "share"))
    patch.setenv("HF_HOME", str(home / ".cache" / "huggingface"))
    patch.setenv("GRADIO_TEMP_DIR", str(home / "gradio"))
    yield home
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def _closing_ends() -> Iterator[None]:
    """Whatever engine a test closes has ended when `close` returns."""
    from tests.engines.closing import check_closing

    patch = pytest.MonkeyPatch()
    check_closing(patch)
    yield
    patch.undo()
