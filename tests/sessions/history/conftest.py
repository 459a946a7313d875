"""Histories in folders of their own, closed at the end."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from magistral_ui.sessions.history.database import History
from magistral_ui.sessions.visitors import Visitors
from tests.scripted_engine import ScriptedEngine

OpenHistory = Callable[..., History]
OpenVisitors = Callable[..., Visitors]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[OpenHistory]:
    """A function that opens the history of this test's folder."""
    all_of_them: list[History] = []

    def open_history(folder: Path | None = tmp_path / "data", **options: Any) -> History:
        all_of_them.append(History(folder, **options))
        return all_of_them[-1]

    yield open_history
    for each in all_of_them:
        if each.open:
            each.close()


@pytest.fixture
def visiting(opened: OpenHistory) -> Iterator[OpenVisitors]:
    """A function that makes visitors over a script, with the history of this test's folder."""
    closers: list[Callable[[], None]] = []

    def visit(script: Any, history: History | None = None, **options: Any) -> Visitors:
        engine = ScriptedEngine(script)
        visitors = Visitors(engine, history=history or opened(), **options)
        closers.extend([engine.close, visitors.close])
        return visitors

    yield visit
    for each in reversed(closers):
        each()
