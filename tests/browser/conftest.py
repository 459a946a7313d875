"""One Chromium for all browser tests, an empty profile for each, and pages over scripted or real engines."""

import importlib.util
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from magistral_ui.engines.base import Broken, Engine, Ready
from tests.browser.pages import Pages, Serve, serving

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
def watched(context: Any) -> Iterator[set[str]]:
    """The addresses that are requested meanwhile; an error in a script and a request to elsewhere are failures."""
    problems: list[str] = []
    asked: set[str] = set()

    def note(error: Any) -> None:
        problems.append(f"script error: {error.error}")

    def look(request: Any) -> None:
        asked.add(request.url)
        if "//127.0.0.1" not in request.url and not request.url.startswith(("data:", "blob:", "file:")):
            problems.append(f"request to {request.url}")

    # The browser finds no other machine; that it only looks for one is a failure already. Nothing is intercepted: that
    # would turn the browser's cache off, and make every page slow.
    context.on("weberror", note)
    context.on("request", look)
    try:
        yield asked
    finally:
        context.remove_listener("weberror", note)
        context.remove_listener("request", look)
    assert problems == []


def new_context(browser: Any, **options: Any) -> Any:
    """A profile in which nobody has been."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
    context.set_default_timeout(STEP_TIMEOUT_MS)
    return context


@contextmanager
def visitor(browser: Any) -> Iterator[Any]:
    """A profile of its own, which is watched."""
    context = new_context(browser)
    with watched(context):
        try:
            yield context
        finally:
            context.close()


class SharedProfile:
    """A profile that one test uses after another: emptied in between, except for its HTTP cache.

    A page whose scripts come from the cache, already compiled, takes two thirds of the processor time.
    """

    def __init__(self, browser: Any, **options: Any) -> None:
        self.context = new_context(browser, **options)
        self._blank = self.context.new_page()
        self._storage = self.context.new_cdp_session(self._blank)
        self._asked: set[str] = set()

    @contextmanager
    def visit(self) -> Iterator[Any]:
        """The profile of a new visitor, which is watched; its tabs are closed afterwards.

        It is emptied now, not after the last visit: by now that one's engine is closed, and its tabs are, too.
        """
        self._empty()
        with watched(self.context) as self._asked:
            try:
                yield self.context
            finally:
                for page in self.context.pages:
                    if page != self._blank:
                        page.close()

    def _empty(self) -> None:
        """Delete cookies and what the last visitor's pages have stored, and undo what its test has set."""
        self.context.set_offline(False)
        self.context.unroute_all()
        self.context.clear_permissions()
        self.context.clear_cookies()
        for origin in {f"{url.scheme}://{url.netloc}" for url in map(urlsplit, self._asked) if url.scheme == "http"}:
            self._storage.send("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "all"})


@pytest.fixture(scope="session")
def shared_profile(browser: Any) -> Iterator[SharedProfile]:
    """The profile of all tests that do not open one of their own."""
    profile = SharedProfile(browser)
    yield profile
    profile.context.close()


@pytest.fixture
def context(shared_profile: SharedProfile, serve: Serve) -> Iterator[Any]:
    """A visitor, who leaves before the pages close: a server waits for the answers that it owes.

    What a test sets here lasts for that test. Scripts are added to a page, since a context keeps them.
    """
    with shared_profile.visit() as context:
        yield context


@pytest.fixture
def page(context: Any) -> Any:
    """A tab."""
    return context.new_page()


@pytest.fixture(scope="session")
def pages() -> Iterator[Pages]:
    """The pages that this process serves, one after another."""
    pages = Pages()
    yield pages
    pages.close()


@pytest.fixture
def serve(tmp_path: Path, pages: Pages) -> Iterator[Serve]:
    """A function that serves a page over an engine, or over a script, and returns its address."""
    with serving(tmp_path, pages) as start:
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
