"""Kills a talking process at random moments, and looks each time whether all that was acknowledged is there, and whose it is."""

import argparse
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from magistral_ui.chat.conversation import AssistantMessage, UserMessage
from magistral_ui.client import hashed
from magistral_ui.sessions.history import catalog, store
from magistral_ui.sessions.history.database import DATABASE_FILE, History

ROOT = Path(__file__).parents[2]


@dataclass
class Acknowledged:
    """What the process said was done, over all its lives."""

    places: dict[str, dict[str, str]] = field(default_factory=dict)
    said: list[tuple[str, str, str]] = field(default_factory=list)
    """Visitor's secret, conversation, text."""
    owners: dict[str, int] = field(default_factory=dict)
    """Visitor's secret → number."""

    def take(self, line: str) -> None:
        """Note one line; one that was cut by the kill was no acknowledgement."""
        if not line.endswith("\n"):
            return
        facts: dict[str, Any] = json.loads(line)
        assert "trouble" not in facts, facts
        place = facts["place"]
        self.places[str(facts["visitor"])] = place
        self.owners[place["visitor"]] = facts["visitor"]
        if "said" in facts:
            self.said.append((place["visitor"], place["conversation"], facts["said"]))


def live_and_die(folder: Path, known: Acknowledged, life: int, seconds: float) -> None:
    """Start the process, and kill it `seconds` after its first words."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.soak.writing_process", str(folder), str(life)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(known.places) + "\n")
    process.stdin.flush()
    known.take(process.stdout.readline())
    killer = threading.Timer(seconds, process.kill)
    killer.start()
    for line in process.stdout:
        known.take(line)
    killer.join()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def check(folder: Path, known: Acknowledged) -> dict[str, int]:
    """Everything that must hold after a kill; how much there was."""
    db = sqlite3.connect(folder / DATABASE_FILE)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    db.close()
    history = History(folder)
    assert history.save_error is None, history.save_error
    texts: dict[tuple[str, str], list[str]] = {}
    cut = 0
    for secret, number in known.owners.items():
        visitor = hashed(secret)
        for entry in history.read([], catalog.listing, visitor):
            kept = history.read(None, store.load, history.images, visitor, entry.id)
            assert kept is not None
            cut += kept.running is not None
            messages = kept.conversation.messages.values()
            texts[secret, entry.id] = [m.text for m in messages if isinstance(m, UserMessage)]
            replies = [m.reply for m in messages if isinstance(m, AssistantMessage)]
            everything = [*texts[secret, entry.id], *(piece for r in replies for piece in (r.reasoning, r.answer))]
            if kept.running is not None:
                everything += [getattr(each.event, "text", "") for each in kept.running.generation.take()]
            for text in everything:
                assert text.count("visitor ") == text.count(f"visitor {number} "), "another visitor's words"
            for id, message in kept.conversation.messages.items():
                assert message.parent is None or message.parent in kept.conversation.messages, f"message {id} is lost"
    history.close()
    for secret, conversation, text in known.said:
        assert text in texts.get((secret, conversation), ()), f"{text} was acknowledged and is not there"
    return {"messages": len(known.said), "conversations": len(texts), "cut": cut}


def run(folder: Path, rounds: int, seed: int, report: Any = None) -> Acknowledged:
    """So many lives and deaths."""
    chance, known = random.Random(seed), Acknowledged()
    for life in range(rounds):
        live_and_die(folder, known, life, chance.uniform(0.0, 1.2))
        facts = check(folder, known)
        if report:
            report(life + 1, facts)
    return known


def main() -> None:
    """`python -m tests.soak.kills [--rounds N] [--seed N]`"""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:

        def report(number: int, facts: dict[str, int]) -> None:
            if number % 10 == 0:
                print(f"{number} kills, {time.monotonic() - began:.0f} s: {facts}", flush=True)

        run(Path(folder) / "data", chosen.rounds, chosen.seed, report)


if __name__ == "__main__":
    main()
