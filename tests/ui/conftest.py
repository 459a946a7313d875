"""Serves a page over a given engine on loopback, and closes it; it drives no browser."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from magistral_ui.engines.scripted import Script, ScriptedEngine
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.visitors import Visitors

Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A function that serves a page over a script and returns its address."""
    from magistral_ui.ui.page import build_page, close, launch

    served: list[tuple[Any, ScriptedEngine]] = []

    def start(script: Script | Callable[[Any], Script], limits: Limits | None = None, **options: Any) -> str:
        engine = ScriptedEngine(script, **options)
        page = build_page(engine, Visitors(engine, limits))
        served.append((page, engine))
        return launch(page)

    yield start
    for page, engine in served:
        engine.close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            close(page)
