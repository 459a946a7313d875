"""Fifty visitors ask for ten minutes while every attack runs beside them: `make soak-attack`; writes docs/security.md.

    python -m tests.soak.attack [--visitors N] [--minutes N]

The real app runs with logins behind a proxy, whose part is played here: so everybody has an address, and the limits of an
address hold. Attackers are processes of the lowest priority with a rate for each attack (attacks). Before they attack, they
spend as much processor time on nothing: that is what the visitors are compared with. A rehearsal finds out how much, behind a
first one that makes what the tries need, and loads what is only loaded when it is needed.
"""

import argparse
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.benchmarks.table import Row, at_least, at_most, measured, write_table
from tests.benchmarks.visitors import App, Turns, app, ask
from tests.soak.attacks import ATTACKS, GROUPS
from tests.soak.attacks.attack import PASSWORD, PUBLIC, Stranger
from tests.soak.attacks.programs import HELLO, mcp
from tests.soak.page_client import PageClient

ROOT = Path(__file__).parents[2]
LONG = 10.0
"""Minutes from which on a run is written into the documentation."""
QUOTA_MB = 200
"""What an address may send in an hour here: a fifth of what it may elsewhere, so that ten minutes are enough to come to it."""
REST = (20.0, 60.0)
"""Seconds in which a visitor reads an answer, and writes the next question: they alone take less than half of the model's time.
Nearer to all of it, the time to the first token would grow many times with whatever else takes a tenth of a core."""
HASTE = 0.4
"""Of that rest, while the caches of conversations and of the model fill: what they take is compared once they are full."""
DISK_MB, DISK_FILES = 3 * QUOTA_MB, 10_000
"""Room for what the attackers who send files may send, in three forms: as uploads, as conversations, and in their index."""
BACK = 1.15
"""Memory a minute later."""
RIGHT = 0.98
"""Of the demo model's answers; it has 99 % of held-out sums right by itself, and the rest is chance."""


@dataclass
class Trial:
    """What is seen from outside, by the phase in which it was begun."""

    phase: str = "rest"
    turns: dict[str, Turns] = field(default_factory=dict)
    healths: dict[str, list[float]] = field(default_factory=dict)
    memory: dict[str, list[float]] = field(default_factory=dict)
    disk: list[tuple[float, int]] = field(default_factory=list)
    """Megabytes and files."""
    failures: Counter[str] = field(default_factory=Counter)
    over: threading.Event = field(default_factory=threading.Event)

    def repeat(self, act: Callable[[], None], seconds: float) -> threading.Thread:
        """Do something every so often until all is over; what fails is a failure of the page."""

        def go() -> None:
            while not self.over.wait(seconds):
                try:
                    act()
                except (httpx.HTTPError, http.client.HTTPException, OSError, AssertionError, LookupError) as error:
                    self.failures[f"{act.__name__}: {type(error).__name__} {error}"[:120]] += 1

        return threading.Thread(target=go, name=act.__name__)


class Visit:
    """One of those who mean no harm: asks, reads, and now and then searches, saves, or signs in again."""

    def __init__(self, url: str, number: int, trial: Trial) -> None:
        self._trial, self._chance = trial, random.Random(number)
        self._name, address = f"visitor {number}", f"93.184.{1 + number // 200}.{1 + number % 200}"
        headers = {"Host": PUBLIC, "X-Forwarded-Proto": "https", "X-Forwarded-For": address}
        self._door = PageClient(url, headers=headers, login=(self._name, PASSWORD))

    def go(self) -> None:
        """Until all is over."""
        rest = HASTE * self._chance.random() * REST[1]
        while not self._trial.over.wait(rest):
            rest = self._chance.uniform(*REST) * (HASTE if self._trial.phase == "fill" else 1)
            try:
                self._turn()
            except (httpx.HTTPError, LookupError, ValueError, AssertionError) as error:
                self._trial.failures[f"a visitor: {type(error).__name__} {error}"[:120]] += 1
        self._door.close()

    def _turn(self) -> None:
        match self._chance.randrange(30):
            case 0:
                self._door.sign_in(self._name, PASSWORD)
            case 1 if self._door.place:
                told = self._door.act("history/refresh", {"query": "What"})["history"]
                assert told["entries"], "a search found nothing"
            case 2 if self._door.place:
                told = self._door.act("history/save", {"format": "json"})["history"]
                saved = self._door.http.get("/magistral/export", headers={"X-Ticket": told["ticket"]["token"]})
                assert b"What is" in saved.raise_for_status().content, "a file without the conversations"
        self._door.act("turns/new_chat")
        ask(self._door, self._trial.turns.setdefault(self._trial.phase, Turns()), self._chance)


def looking(served: App, trial: Trial) -> list[threading.Thread]:
    """Threads that look at the page from time to time: how it is, what it holds, and whether a program comes in."""
    port, program = httpx.URL(served.url).port or 80, Stranger(served.url, len(ATTACKS))

    def health() -> None:
        phase, began = trial.phase, time.monotonic()
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        line.request("GET", "/healthz")
        assert line.getresponse().read() == b'{"status":"ready"}', "not ready"
        line.close()
        trial.healths.setdefault(phase, []).append(time.monotonic() - began)

    def memory() -> None:
        trial.memory.setdefault(trial.phase, []).append(sum(map(held_mb, everything(served.process))))

    def disk() -> None:
        trial.disk.append(on_disk(served.folder))

    def a_program() -> None:
        answer = mcp(program, "initialize", HELLO).raise_for_status()
        session = answer.headers.get("mcp-session-id", "")
        mcp(program, "tools/list", {}, session).raise_for_status()

    return [trial.repeat(*each) for each in ((health, 0.2), (memory, 1.0), (disk, 5.0), (a_program, 10.0))]


def everything(process: psutil.Process) -> list[psutil.Process]:
    """A process and what it has started."""
    return [process, *process.children(recursive=True)]


def held_mb(process: psutil.Process) -> float:
    """What it holds, nothing where it has just ended."""
    try:
        return float(process.memory_info().rss) / 1e6
    except psutil.NoSuchProcess:
        return 0.0


def on_disk(folder: Path) -> tuple[float, int]:
    """Megabytes and files in a folder that is being written to."""
    size = count = 0
    for path, folders, files in os.walk(folder):
        count += len(folders) + len(files)
        for each in files:
            try:
                size += os.lstat(os.path.join(path, each)).st_size
            except FileNotFoundError:  # it was deleted meanwhile
                continue
    return size / 1e6, count


@contextmanager
def attackers(url: str) -> Iterator[dict[str, "subprocess.Popen[str]"]]:
    """A process for each group, which waits for its words."""
    begun = {
        group: subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.soak.attackers", url, group],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for group in GROUPS
    }
    try:
        yield begun
    finally:
        for each in begun.values():
            each.kill()
            each.communicate()


def run(served: App, visitors: int, minutes: float) -> tuple[Trial, dict[str, Counter[str]], Counter[str]]:
    """All phases, one after the other; what was seen, what became of each attack, and the attackers' processor time by phase."""
    trial = Trial()
    seconds = 60 * minutes
    rehearsal = max(10.0, 0.05 * seconds)
    plan = {
        "prepare": rehearsal,
        "rehearse": rehearsal,
        "fill": max(20.0, 0.4 * seconds),
        "calm": 0.35 * seconds,
        "attack": seconds,
        "after": 60.0,
    }
    visits = [Visit(served.url, number, trial) for number in range(visitors)]
    threads = [*looking(served, trial), *(threading.Thread(target=each.go) for each in visits)]
    with attackers(served.url) as groups:
        for phase, length in plan.items():
            trial.phase = phase
            print(f"{phase}: {length:.0f} s", flush=True)
            for each in groups.values():
                print("rest" if phase in ("fill", "after") else phase, file=each.stdin, flush=True)
            if phase == "fill":
                for thread in threads:
                    thread.start()
            time.sleep(length)
        trial.over.set()
        told: list[dict[str, Any]] = [json.loads(each.communicate()[0]) for each in groups.values()]
    for thread in threads:
        thread.join()
    outcomes = {name: Counter(found) for each in told for name, found in each["outcomes"].items()}
    return trial, outcomes, sum((Counter(each["spent"]) for each in told), Counter())


def percentile(values: list[float], share: float) -> float:
    """The value below which that share of them is."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def rows(trial: Trial, outcomes: dict[str, Counter[str]], log: str) -> Iterator[Row]:
    """What must hold."""
    calm, attacked = trial.turns["calm"], trial.turns["attack"]
    asked = attacked.whole + len(attacked.broken)
    note = f"{attacked.whole} of {asked}; without attacks {calm.whole} of {calm.whole + len(calm.broken)}"
    yield at_least("visitors' answers: share that is right", RIGHT, attacked.whole / asked, note)
    refused = Counter(attacked.refused) + trial.failures
    yield at_most("… what was refused them, or failed", 0, refused.total(), told(refused))
    first, alone = percentile(attacked.first, 0.95), percentile(calm.first, 0.95)
    yield at_most(
        "… first token, 95th percentile ÷ without attacks", 2, first / alone, f"{first:.2f} s and {alone:.2f} s"
    )
    slow, before = percentile(trial.healths["attack"], 0.99), percentile(trial.healths["calm"], 0.99)
    yield at_most("`/healthz`, 99th percentile, seconds", 0.5, slow, f"without attacks {before:.3f} s")
    most, held = max(trial.memory["attack"]), max(trial.memory["calm"])
    yield at_most("memory, the most ÷ without attacks", 1.25, most / held, f"{most:.0f} MB and {held:.0f} MB")
    yield at_most("… a minute later ÷ without attacks", BACK, trial.memory["after"][-1] / held)
    yield at_most("disk, MB", DISK_MB, max(size for size, _ in trial.disk))
    yield at_most("… files and folders", DISK_FILES, max(count for _, count in trial.disk))
    yield at_most("traces in the log", 0, log.count("Traceback"), f"{len(log) / 1e6:.1f} MB of log")
    wrong = Counter(
        {
            f"{each.name}: {outcome}": count
            for each in ATTACKS
            for outcome, count in outcomes[each.name].items()
            if outcome not in each.reaches | each.may | {"silence"}  # whether the page is slow is asked above
        }
    )
    tried = sum(each.total() for each in outcomes.values())
    yield at_most("attacks that came further than they are meant to", 0, wrong.total(), told(wrong) or f"{tried} tries")
    lost = [each.name for each in ATTACKS if not outcomes[each.name].keys() & each.reaches]
    yield at_most("attacks that did not come as far", 0, len(lost), ", ".join(lost))


def told(counts: Counter[str]) -> str:
    """The most frequent ones, in a line."""
    return "; ".join(f"{count} × {what}" for what, count in counts.most_common(6)).replace("|", "/")


def attack_table(outcomes: dict[str, Counter[str]]) -> str:
    """Each attack, how often it was tried, and what became of it; 401 and the like are the answers' statuses."""
    lines = ["| Attack | a minute | tries | what became of them |", "|---|--:|--:|---|"]
    for each in ATTACKS:
        seen = outcomes[each.name]
        found = ", ".join(f"{outcome} {count}" for outcome, count in seen.most_common())
        lines.append(f"| {each.name} | {each.per_minute:g} | {seen.total()} | {found} |")
    return "\n".join(lines)


def people(visitors: int) -> str:
    """All who may come in, as `--auth` takes them."""
    names = [f"visitor {number}" for number in range(max(50, visitors))]
    names += [f"stranger {number}{too}" for number in range(len(ATTACKS) + 1) for too in ("", " too")]
    return "".join(f"{name}:{PASSWORD}\n" for name in names)


def main() -> None:
    """Measure, print, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=LONG, help="for how long the attackers attack")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        auth, log = Path(folder, "people.txt"), Path(folder, "log.txt")
        auth.write_text(people(chosen.visitors), encoding="utf-8")
        auth.chmod(0o600)
        flags = ("--model", "demo", "--share", f"https://{PUBLIC}", "--auth", str(auth))
        with app(*flags, log=log, room={}, upload_mb_per_hour_per_address=QUOTA_MB) as served:
            trial, outcomes, spent = run(served, chosen.visitors, chosen.minutes)
        lines = measured(rows(trial, outcomes, log.read_text(encoding="utf-8", errors="replace")))
    table = attack_table(outcomes)
    print(table, *trial.turns["attack"].broken[:20], sep="\n")
    busy = f"{spent['attack'] / chosen.minutes:.0f} s of processor time a minute, their stand-ins before them "
    busy += f"{spent['calm'] / (0.35 * chosen.minutes):.0f} s."
    print(busy)
    if chosen.minutes >= LONG and chosen.visitors == 50:
        foot = f"Measured on {os.cpu_count()} cores, which the app shares with its visitors and attackers. These took {busy}"
        write_table("attacks", lines, f"{foot}\n\n{table}", "security.md")
    sys.exit(not all(row.met for row in lines))


if __name__ == "__main__":
    main()
