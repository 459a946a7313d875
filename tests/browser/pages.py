"""Serves pages to the tests, one after another on one port; one that would be built the same as the last is not built again.

What a test can change is that test's own: its engine, its sessions and its history. Gradio's app stays, which keeps nothing of
a visitor that the next one, with another cookie, could see.
"""

import contextlib
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from magistral_ui.sessions.history.database import History
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui import page as page_module
from magistral_ui.ui.launch import close, launch
from magistral_ui.ui.page import build_page
from tests.loopback import free_port
from tests.scripted_engine import ScriptedEngine

SERVER_END_TIMEOUT = 60.0
"""Seconds that a closed server may take to end on a busy machine."""

Serve = Callable[..., str]


class Current:
    """Stands for an object that can be replaced by another while a page is served over it."""

    def __init__(self) -> None:
        self.target: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)

    def __len__(self) -> int:
        return len(self.target)


class Page:
    """A page that is served, over the engine and the visitors that it was given last."""

    def __init__(self, engine: Any, visitors: Visitors, port: int, models: Any = None) -> None:
        """`models`: the owner's actions on them; a page that has some is another test's only with the same ones."""
        self.recipe = recipe(engine, visitors, models)
        self._engine, self._visitors = Current(), Current()
        over: tuple[Any, Any] = self._engine, self._visitors
        self.give(engine, visitors)
        self.demo = build_page(*over)
        self.url = launch(self.demo, over[1], port=port, models=models)
        self.in_use = True

    def give(self, engine: Any, visitors: Visitors) -> None:
        """Let it answer with this engine and these visitors from now on."""
        self._engine.target, self._visitors.target = engine, visitors
        self._visitors.engine = self._engine  # an attribute of its own, since the page asks for it only once

    def close(self) -> None:
        """End its server, whose port the next one takes: a connection to this one must not answer there."""
        close(self.demo)
        self.demo.server.thread.join(SERVER_END_TIMEOUT)


def recipe(engine: Any, visitors: Visitors, models: Any) -> tuple[Any, ...]:
    """All that a page is built from: where it is equal, so is the page."""
    return engine.card, engine.status(), visitors.limits, page_module.offered(), models


class Pages:
    """The last page that was served is kept, always on the same port: the browser's cache holds files by address."""

    def __init__(self) -> None:
        self._port = free_port()
        self._kept: Page | None = None

    @contextmanager
    def page(self, engine: Any, visitors: Visitors, models: Any = None) -> Iterator[str]:
        """The address of a page over `engine` meanwhile."""
        if self._kept is not None and self._kept.in_use:
            with contextlib.closing(Page(engine, visitors, free_port(), models)) as second:
                yield second.url
            return
        kept = self._kept = self._take(engine, visitors, models)
        try:
            yield kept.url
        finally:
            kept.in_use = False

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()

    def _take(self, engine: Any, visitors: Visitors, models: Any) -> Page:
        kept = self._kept
        wanted = recipe(engine, visitors, models)
        if kept is not None and kept.demo.server.thread.is_alive() and kept.recipe == wanted:
            kept.give(engine, visitors)
            kept.in_use = True
            return kept
        self._kept = None
        if kept is not None:
            kept.close()
        return Page(engine, visitors, self._free_port(), models)

    def _free_port(self) -> int:
        """The same port each time, or another one where somebody else has it."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self._port))
            except OSError:
                return free_port()
        return self._port


@contextmanager
def serving(folder: Path, pages: Pages) -> Iterator[Serve]:
    """A function that serves a page over an engine, or over a script, and returns its address."""
    with contextlib.ExitStack() as closing:

        def start(
            source: Any,
            limits: Limits | None = None,
            history: Path | None = None,
            visitors: type[Visitors] = Visitors,
            models: Any = None,
            **options: Any,
        ) -> str:
            engine = source if hasattr(source, "submit") else ScriptedEngine(source, **options)
            known = visitors(engine, limits, History(history or folder / "data"))
            closing.callback(known.close)
            url = closing.enter_context(pages.page(engine, known, models))
            if isinstance(engine, ScriptedEngine):
                closing.callback(engine.close)
            return url

        yield start
