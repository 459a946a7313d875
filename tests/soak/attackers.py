"""The attackers of one group, in a process of the lowest priority that is told when to attack; it judges nothing.

`python -m tests.soak.attackers URL GROUP` reads a word a line: `attack`, `prepare` and `rehearse` (the same, uncounted), `calm`
(as much processor time a second as the rehearsal took, spent on nothing), `rest`; at the end of its input it prints what became
of its attacks.
"""

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain

from tests.soak.attacks import ATTACKS, GROUPS
from tests.soak.attacks.attack import Attack, Stranger

LEAVING = 60.0
"""Seconds in which the last tries have to end."""
TRYING = ("attack", "prepare", "rehearse")
SLICE = 0.05
"""Seconds that a stand-in rests at a time."""


@dataclass
class Attacker:
    """Makes one attack at its rate, in as many threads as it has tries on their way together."""

    attack: Attack
    stranger: Stranger
    phase: str = "rest"
    outcomes: Counter[str] = field(default_factory=Counter)
    over: threading.Event = field(default_factory=threading.Event)

    def work(self, first: float) -> None:
        """One of the threads; `first` says when in its interval it begins, between 0 and 1."""
        interval = 60 * self.attack.at_once / self.attack.per_minute
        due = time.monotonic() + first * interval
        while not self.over.wait(max(0.0, due - time.monotonic())):
            due = max(due + interval, time.monotonic() - interval)  # what was missed is not made up for
            if (phase := self.phase) in TRYING:
                outcome = self.attack.attempt(self.stranger)
                if phase == "attack":
                    self.outcomes[outcome] += 1


def stand_in(share: Callable[[], float]) -> None:
    """Keep this share of a core busy, as it is told from moment to moment; what could not be had is made up for."""
    seen = time.monotonic()
    while True:
        time.sleep(SLICE)
        now = time.monotonic()
        until, seen = time.thread_time() + share() * (now - seen), now
        while time.thread_time() < until:
            pass


def main() -> None:
    """Attack as told."""
    os.nice(19)
    url, group = sys.argv[1:3]
    attackers = [Attacker(each, Stranger(url, ATTACKS.index(each))) for each in GROUPS[group]]
    threads = [
        threading.Thread(target=each.work, args=(number / each.attack.at_once,), daemon=True)
        for each in attackers
        for number in range(each.attack.at_once)
    ]
    for thread in threads:
        thread.start()
    spent, lasted = Counter[str](), Counter[str]()
    busy, now, phase = time.process_time(), time.monotonic(), "rest"

    def share() -> float:
        return spent["rehearse"] / lasted["rehearse"] if phase == "calm" and lasted["rehearse"] else 0.0

    threading.Thread(target=stand_in, args=(share,), daemon=True).start()
    for line in chain(sys.stdin, ["over"]):
        spent[phase] += time.process_time() - busy
        lasted[phase] += time.monotonic() - now
        busy, now, phase = time.process_time(), time.monotonic(), line.strip()
        for each in attackers:
            each.phase = phase
    for each in attackers:
        each.over.set()
    until = time.monotonic() + LEAVING
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    told = {each.attack.name: dict(each.outcomes) for each in attackers}
    print(json.dumps({"spent": spent, "outcomes": told}), flush=True)
    os._exit(0)  # threads that wait for an answer still may wait


if __name__ == "__main__":
    main()
