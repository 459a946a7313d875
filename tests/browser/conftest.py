"""One Chromium for all browser tests, a fresh profile for each, and pages over scripted or real engines."""

import importlib.util
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from magistral_ui.engines.base import Broken, Engine, Ready
from magistral_ui.sessions.history.database import History
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.visitors import Visitors
from tests.loopback import free_port
from tests.scripted_engine import ScriptedEngine

sync_api = pytest.importorskip("playwright.sync_api")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
STEP_TIMEOUT_MS = 20_000
"""Milliseconds that a browser step may take on a busy machine before it counts as failed."""

Serve = Callable[..., str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder drive a browser."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of an installed Chromium; `make test` installs one where there is none."""
    file = Path(__file__).parent / "install_chromium.py"
    spec = importlib.util.spec_from_file_location("install_chromium", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.find()
    if found is None:
        pytest.skip("no Chromium: run tests/browser/install_chromium.py, or set CHROMIUM")
    return str(found)


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Any]:
    """The browser."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def visitor(browser: Any) -> Iterator[Any]:
    """A profile of its own, in which an error in a script and a request to elsewhere are failures."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(STEP_TIMEOUT_MS)
    problems: list[str] = []
    context.on("weberror", lambda error: problems.append(f"script error: {error.error}"))

    def look(request: Any) -> None:
        if "//127.0.0.1" not in request.url and not request.url.startswith(("data:", "blob:", "file:")):
            problems.append(f"request to {request.url}")

    # The browser finds no other machine; that it only looks for one is a failure already. Nothing is intercepted: that
    # would turn the browser's cache off, and make every page slow.
    context.on("request", look)
    try:
        yield context
    finally:
        context.close()
    assert problems == []


@contextmanager
def serving(folder: Path) -> Iterator[Serve]:
    """A function that serves a page over an engine, or over a script, and returns its address."""
    from magistral_ui.ui.page import build_page, close, launch

    closers: list[Callable[[], None]] = []

    def start(source: Any, limits: Limits | None = None, history: Path | None = None, **options: Any) -> str:
        engine = source if hasattr(source, "submit") else ScriptedEngine(source, **options)
        visitors = Visitors(engine, limits, History(history or folder / "data"))
        demo = build_page(engine, visitors)
        url = launch(demo, visitors, port=free_port())
        closers.append(visitors.close)
        closers.append(lambda: close(demo))
        if isinstance(engine, ScriptedEngine):
            closers.append(engine.close)
        return url

    try:
        yield start
    finally:
        for each in reversed(closers):
            each()


@pytest.fixture
def context(browser: Any, serve: Serve) -> Iterator[Any]:
    """A visitor, who leaves before the pages close: a server waits for the answers that it owes."""
    with visitor(browser) as context:
        yield context


@pytest.fixture
def page(context: Any) -> Any:
    """A tab."""
    return context.new_page()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """A function that serves a page over an engine, or over a script, and returns its address."""
    with serving(tmp_path) as start:
        yield start


@pytest.fixture(scope="session")
def demo_engine() -> Iterator[Engine]:
    """The real engine with the demo model, loaded once for all tests."""
    module = pytest.importorskip("magistral_ui.engines.local.engine")
    engine = module.LocalEngine(model="demo", threads=1)
    engine.start()
    until = time.monotonic() + 120
    while not isinstance(engine.status(), Ready):
        assert not isinstance(engine.status(), Broken), engine.status()
        assert time.monotonic() < until, engine.status()
        threading.Event().wait(0.1)
    yield engine
    engine.close()
