"""The attackers of one group, in a process of the lowest priority that is told when to attack; it judges nothing.

`python -m tests.soak.attackers URL GROUP` reads a word a line: `attack`, `rehearse` (the same, uncounted), `calm` (as much
processor time as the attacks took, spent on nothing), `rest`; at the end of its input it prints what became of its attacks.
"""

import json
import os
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain

from tests.soak.attacks import ATTACKS, GROUPS
from tests.soak.attacks.attack import Attack, Stranger

LEAVING = 60.0
"""Seconds in which the last tries have to end."""


@dataclass
class Attacker:
    """Makes one attack at its rate, in as many threads as it has tries on their way together."""

    attack: Attack
    stranger: Stranger
    phase: str = "rest"
    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    tries: int = 0
    """Processor time that so many tries took, those of a rehearsal too."""
    begun: bool = False
    over: threading.Event = field(default_factory=threading.Event)

    def work(self, first: float) -> None:
        """One of the threads; `first` says when in its interval it begins, between 0 and 1."""
        interval = 60 * self.attack.at_once / self.attack.per_minute
        due = time.monotonic() + first * interval
        while not self.over.wait(max(0.0, due - time.monotonic())):
            due = max(due + interval, time.monotonic() - interval)  # what was missed is not made up for
            if self.phase in ("attack", "rehearse"):
                self._try(counted=self.phase == "attack")
            elif self.phase == "calm" and self.tries:
                spend(self.seconds / self.tries)

    def _try(self, counted: bool) -> None:
        before = time.thread_time()
        outcome = self.attack.attempt(self.stranger)
        if self.begun:  # the first one prepares what the others need
            self.seconds, self.tries = self.seconds + time.thread_time() - before, self.tries + 1
        self.begun = True
        if counted:
            self.outcomes[outcome] += 1


def spend(seconds: float) -> None:
    """Keep the processor busy for so long."""
    until = time.thread_time() + seconds
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
    spent, before, phase = Counter[str](), time.process_time(), "rest"
    for line in chain(sys.stdin, ["over"]):
        spent[phase] += time.process_time() - before
        before, phase = time.process_time(), line.strip()
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
