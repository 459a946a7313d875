"""Makes every `close` of an engine in the tests say whether it did close: its threads are gone, and every reply has ended."""

import threading
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import pytest

from magistral_ui.engines.generation import Generation
from magistral_ui.engines.gguf.engine import GGUFEngine
from magistral_ui.engines.local.engine import LocalEngine
from magistral_ui.engines.remote.engine import RemoteEngine
from magistral_ui.engines.switching.switchable import SwitchableEngine
from magistral_ui.engines.zerogpu.engine import ZeroGPUEngine
from tests.scripted_engine import ScriptedEngine

THREADS: dict[type, Callable[[Any], Iterable[threading.Thread | None]]] = {
    GGUFEngine: lambda engine: [engine._thread],
    LocalEngine: lambda engine: [engine._thread],
    RemoteEngine: lambda engine: [engine._thread],
    SwitchableEngine: lambda engine: [engine._thread],
    ScriptedEngine: lambda engine: list(engine._playing.values()),
    ZeroGPUEngine: lambda engine: list(engine._replies.values()),
}
"""Where each engine keeps the threads that it has begun."""


def check_closing(patch: pytest.MonkeyPatch) -> None:
    """Let `close` fail where something goes on behind it; nothing else of the engines changes."""
    written: WeakKeyDictionary[Any, WeakSet[Generation]] = WeakKeyDictionary()
    for kind, threads in THREADS.items():
        patch.setattr(kind, "submit", _remembering(kind, written))
        patch.setattr(kind, "close", _checked(kind, threads, written))


def _remembering(kind: Any, written: "WeakKeyDictionary[Any, WeakSet[Generation]]") -> Callable[..., Generation]:
    submit = kind.submit

    def remembered(self: Any, request: Any, *more: Any) -> Generation:
        generation: Generation = submit(self, request, *more)
        written.setdefault(self, WeakSet()).add(generation)
        return generation

    return remembered


def _checked(
    kind: Any,
    threads: Callable[[Any], Iterable[threading.Thread | None]],
    written: "WeakKeyDictionary[Any, WeakSet[Generation]]",
) -> Callable[[Any], None]:
    close = kind.close

    def closed(self: Any) -> None:
        begun = [thread for thread in threads(self) if thread is not None]
        close(self)
        alive = [thread.name for thread in begun if thread.is_alive()]
        assert not alive, f"{kind.__name__}.close left threads: {alive}"
        left = [generation for generation in written.get(self, ()) if not generation.ended]
        assert not left, f"{kind.__name__}.close left {len(left)} replies without an end"

    return closed
