"""Many visitors at once on one page for some minutes, each looking for another's words in all that is shown to them."""

import argparse
import random
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from magistral_ui.chat.events import Answer, Reasoning
from magistral_ui.sessions.history.database import History
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.launch import close, launch
from magistral_ui.ui.page import build_page
from tests.loopback import free_port
from tests.scripted_engine import Pause, ScriptedEngine
from tests.soak.page_client import PageClient

LEAST = 2
"""Turns of each visitor, however slow the machine is."""


def script(request: Any) -> list[Any]:
    """A reply that repeats whose it is."""
    said = request.prompt.turns[-1].text
    return [step for n in range(30) for step in (Reasoning(f"[{said}] "), Answer(f"[{said}] "), Pause(0.01))]


def look(seen: Any, number: int) -> None:
    """Nobody else's words are in what is shown."""
    told = str(seen)
    assert told.count("visitor ") == told.count(f"visitor {number} "), f"visitor {number} was shown another's words"


def visit(url: str, number: int, until: float, counts: Counter[str], failures: list[str]) -> None:
    """One visitor: says, reads, begins again, goes back, searches, reloads."""
    chance, door, turn = random.Random(number), PageClient(url), 0
    try:
        while turn < LEAST or time.monotonic() < until:
            text = f"visitor {number} turn {turn} "
            before = len(door.shown.get("turns", ()))
            door.say(text)
            heard = door.follow()
            look((door.shown["turns"], heard), number)
            assert len(door.shown["turns"]) == before + 2, "a turn is missing, or twice"
            assert door.shown["turns"][-1]["answer"] == f"[{text}] " * 30
            counts["turns"] += 1
            turn += 1
            shelf = door.act("history/refresh", {"query": chance.choice(["", "visitor", "turn 1"])})["history"]
            look(shelf["entries"], number)
            match chance.randrange(6):
                case 0:
                    door.act("turns/new_chat")
                case 1 if shelf["entries"]:
                    door.act("history/open", {"id": chance.choice(shelf["entries"])["id"]})
                    look(door.shown, number)
                case 2:
                    place, (door_before, door) = door.place, (door, PageClient(url))
                    door_before.close()
                    door.place = place
                    door.act("history/open", {"id": place["conversation"]})
                    look(door.shown, number)
    except (AssertionError, httpx.HTTPError, LookupError, ValueError) as error:
        failures.append(f"visitor {number}, turn {turn}: {type(error).__name__} {error}")
    finally:
        door.close()


def run(folder: Path, visitors: int, seconds: float) -> Counter[str]:
    """So many visitors for so long; how much they did. AssertionError where anything went wrong."""
    engine = ScriptedEngine(script)
    all_of_them = Visitors(engine, history=History(folder))
    page = build_page(engine, all_of_them)
    url = launch(page, all_of_them, port=free_port())
    counts, failures = Counter[str](), list[str]()
    until = time.monotonic() + seconds
    crowd = [threading.Thread(target=visit, args=(url, n, until, counts, failures)) for n in range(visitors)]
    for each in crowd:
        each.start()
    for each in crowd:
        each.join()
    close(page)
    all_of_them.close()
    engine.close()
    assert not failures, "\n".join(failures)
    return counts


def main() -> None:
    """`python -m tests.soak.crowd [--visitors N] [--minutes N]`"""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=10.0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = run(Path(folder) / "data", chosen.visitors, 60 * chosen.minutes)
    print(f"{chosen.visitors} visitors, {chosen.minutes} minutes: {counts['turns']} turns, no mix-up")


if __name__ == "__main__":
    main()
