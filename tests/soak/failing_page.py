"""Serves a shared page whose engine fails now and then and whose disk is full now and then, until its input ends."""

import random
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from magistral_ui.chat.events import Answer, Failed, Reasoning
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.generation import Generation
from magistral_ui.sessions.history.database import History
from magistral_ui.sessions.limits import SHARED
from magistral_ui.sessions.public_engine import PublicEngine
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.launch import launch
from magistral_ui.ui.page import build_page
from magistral_ui.web.exposure import Exposure
from tests.loopback import free_port
from tests.scripted_engine import Pause, Script, ScriptedEngine

LIMITS = replace(
    SHARED,
    replies_in_all=30,
    replies_per_address=1_000,
    messages=40,
    messages_per_minute=600,
    messages_per_minute_per_address=60_000,
    requests_per_minute_per_address=600_000,
    visitors_per_minute_per_address=6_000,
    visitors=100,
)
"""Those of a shared page, but for visitors who all have one address, and with room for 30 replies."""
FULL, FREE = 5.0, 15.0
"""Seconds for which the disk is full, and then free again."""


class Failing(ScriptedEngine):
    """Fails where nobody foresaw it, too."""

    def submit(self, request: GenerationRequest) -> Generation:
        """One in fifty breaks."""
        if random.random() < 0.02:
            raise RuntimeError(getattr(request.prompt.turns[-1], "text", ""))
        return super().submit(request)


def script(request: GenerationRequest) -> Script:
    """A reply that repeats whose it is; one in twenty fails in the middle."""
    said = getattr(request.prompt.turns[-1], "text", "")
    steps: list[Any] = [
        step for _ in range(20) for step in (Reasoning(f"[{said}] "), Answer(f"[{said}] "), Pause(0.05))
    ]
    return [*steps[:30], Failed("out_of_memory")] if random.random() < 0.05 else steps


def fill_and_free(history: History, over: threading.Event) -> None:
    """The disk is full, and free again, and so on."""

    def room(pages: int) -> None:
        history.writer.wait(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchone(), None)

    while not over.wait(FREE):
        room(1)  # SQLite takes it as the size that the file has
        over.wait(FULL)
        room(10_000_000)


def main() -> None:
    """`python -m tests.soak.failing_page FOLDER`: prints the address; ends when stdin does."""
    over = threading.Event()
    history = History(Path(sys.argv[1]))
    visitors = Visitors(PublicEngine(Failing(script), LIMITS), LIMITS, history)
    print(
        launch(build_page(visitors.engine, visitors), visitors, port=free_port(), exposure=Exposure("network")),
        flush=True,
    )
    disk = threading.Thread(target=fill_and_free, args=(history, over))
    disk.start()
    sys.stdin.read()
    over.set()
    disk.join()
    visitors.close()


if __name__ == "__main__":
    main()
