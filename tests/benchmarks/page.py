"""Measures the page in a real Chromium against a naive Gradio chat in the same run; writes a table to docs/benchmarks.md.

    python -m tests.benchmarks.page [--quick] [--only NAME]

CPU is what the page's main thread, or the server's process, has used, less what it uses at rest; so a busy machine changes
little. Seconds that a reader waits are of the clock: they are only as good as the machine is idle.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from tests.benchmarks.chromium import Chromium, Costs, Server
from tests.benchmarks.readers import READERS, server_cost
from tests.benchmarks.reading import Reading
from tests.benchmarks.table import Row, at_most, measured, write_table
from tests.browser.install_chromium import find

LENGTHS = (1_000, 80_000, 400_000)
NAIVE_PACE = {80_000: 0.4, 400_000: 2.0}
"""Seconds between the naive page's updates: so slow that it gets through with each before the next."""
TRACE = (16_000, 2_000)
"""Tokens of reasoning and of answer in a whole trace."""
SAMPLES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Where in the reasoning of a whole trace the naive page is looked at; between them its cost is taken to grow evenly."""


@dataclass(frozen=True, slots=True)
class Update:
    """What one update costs: milliseconds of CPU in the browser, and bytes on the line."""

    browser: float
    bytes: float


class Bench:
    """Both pages and a browser; every number is the median of several rounds, in which both take turns."""

    def __init__(self, executable: str, rounds: int, seconds: float) -> None:
        self.rounds, self.seconds = rounds, seconds
        self.browser = Chromium(executable)
        self.ours, self.naive = Server("ours"), Server("naive")

    def close(self) -> None:
        """End all of it."""
        self.ours.close()
        self.naive.close()
        self.browser.close()

    def update(self, server: Server, length: int, pace: float = 0.1, seconds: float | None = None) -> Update:
        """An update at `length` characters of reasoning."""
        seconds = seconds or self.seconds
        with self.browser.tab(server) as tab:
            tab.visit()
            rest = tab.rest()
            # The text that is there at once is drawn, and the page quiet again, before the counting begins.
            tab.send(reasoning=length, settle=3, count=int((3 * seconds + 30) / pace), pace=pace, group=10)
            tab.written(length)
            tab.page.wait_for_timeout(2000)
            spent = less(tab.watch(seconds), rest)
            received, updates = tab.received(max(2.0, 3 * pace))
        per = 1000 / max(1, spent.updates)
        return Update(spent.browser * per, received / max(1, updates))

    def updates(self) -> tuple[dict[int, Update], dict[int, Update]]:
        """Ours at all lengths, and the naive page's at those that are compared."""
        jobs: dict[tuple[str, int], Callable[[], Update]] = {}
        for length in LENGTHS:
            jobs["ours", length] = lambda length=length: self.update(self.ours, length)  # type: ignore[misc]
        for length, pace in NAIVE_PACE.items():
            seconds = max(self.seconds, 3 * pace)
            jobs["naive", length] = lambda length=length, pace=pace, seconds=seconds: self.update(  # type: ignore[misc]
                self.naive, length, pace, seconds
            )
        found: dict[tuple[str, int], list[Update]] = {each: [] for each in jobs}
        for _ in range(self.rounds):
            for each, job in jobs.items():
                found[each].append(job())
        middle = {each: median(values) for each, values in found.items()}
        return tuple({at: each for (who, at), each in middle.items() if who == name} for name in ("ours", "naive"))  # type: ignore[return-value]

    def served(self) -> tuple[float, float]:
        """What an update costs the server at the least and at the greatest length."""
        rounds = [
            [server_cost(self.ours, length, self.seconds) for length in (LENGTHS[0], LENGTHS[-1])]
            for _ in range(self.rounds)
        ]
        first, last = (statistics.median(each) for each in zip(*rounds, strict=True))
        return first, last

    def turn(self, server: Server, earlier: int, tokens: int = 230) -> float:
        """Milliseconds of CPU per update of a 1 kB answer, from sending to its end, behind `earlier` messages of 3 kB."""
        server.ask(f"prepare {earlier // 2} 3000 0 3000")
        try:
            with self.browser.tab(server) as tab:
                tab.visit()
                tab.settled(earlier // 2)
                rest = tab.rest()
                spent = less(tab.spent(lambda: tab.finish(count=tokens // 10, group=10, pace=0.1, part="answer")), rest)
        finally:
            server.ask("prepare 0 0 0 0")
        return 1000 * spent.browser / max(1, spent.updates)

    def after_many(self) -> tuple[float, float, float, float]:
        """A turn behind 100 messages and in an empty chat: ours and the naive one."""
        rounds = [
            [self.turn(server, earlier) for server in (self.ours, self.naive) for earlier in (100, 0)]
            for _ in range(self.rounds)
        ]
        return tuple(statistics.median(each) for each in zip(*rounds, strict=True))  # type: ignore[return-value]

    def trace(self, tokens: tuple[int, int]) -> float:
        """Milliseconds of CPU per token of a whole trace of ours at 100 tokens/s."""
        with self.browser.tab(self.ours) as tab:
            tab.visit()
            tab.settled(0)
            rest = tab.rest()
            spent = less(tab.spent(lambda: tab.finish(count=tokens[0], pace=0.01, then=tokens[1])), rest)
        return 1000 * spent.browser / sum(tokens)

    def naive_trace(self, tokens: tuple[int, int], seconds: float = 3.0) -> float:
        """The same of the naive page, from samples of so many seconds, until all of their tokens are shown."""
        length = int(4.4 * tokens[0])
        thinking = [self.naive_sample(int(length * at) + 500, 0, seconds) for at in SAMPLES]
        answering = [self.naive_sample(length, int(4.4 * tokens[1] * at) + 50, seconds) for at in (0, 1)]
        between = [(a + b) / 2 for a, b in pairwise(thinking)]
        return (statistics.mean(between) * tokens[0] + statistics.mean(answering) * tokens[1]) / sum(tokens)

    def naive_sample(self, reasoning: int, answer: int, seconds: float) -> float:
        """Milliseconds of CPU per token at that point, at 100 tokens/s."""
        count = int(100 * seconds)
        with self.browser.tab(self.naive) as tab:
            tab.visit()
            rest = tab.rest()
            part = "answer" if answer else "reasoning"
            tab.send(reasoning=reasoning, answer=answer, settle=6, part=part, count=count, pace=0.01, mark=True)
            tab.written(answer or reasoning)  # the naive page folds the reasoning when the answer begins
            tab.page.wait_for_timeout(3000)
            spent = less(tab.spent(tab.marked), rest)
        return 1000 * spent.browser / count


def less(spent: Costs, rest: Costs) -> Costs:
    """What was spent, without what a page at rest would have used in that time."""
    share = spent.seconds / rest.seconds
    return Costs(spent.seconds, spent.browser - share * rest.browser, spent.server - share * rest.server, spent.updates)


def median(values: list[Update]) -> Update:
    """The middle of each number."""
    return Update(*(statistics.median(getattr(each, name) for each in values) for name in Update.__slots__))


def rows(bench: Bench, reading: Reading, quick: bool, only: str) -> Iterator[Row]:
    """All measurements, one after the other."""
    if only in ("", "updates"):
        yield from update_rows(*bench.updates())
        first_served, last_served = bench.served()
        note = f"{last_served:.2f} and {first_served:.2f} ms, with {READERS} readers at once"
        yield at_most("server CPU per update, 400,000 ÷ 1,000 characters", 1.3, last_served / first_served, note)
    if only in ("", "turns"):
        ours, ours_empty, naive, naive_empty = bench.after_many()
        note = f"{ours:.1f} and {ours_empty:.1f} ms; naive: {naive / naive_empty:.1f}"
        yield at_most("a 1 kB answer behind 100 messages of 3 kB ÷ in an empty chat", 1.5, ours / ours_empty, note)
    if only in ("", "trace"):
        tokens = (900, 100) if quick else TRACE
        ours, naive = bench.trace(tokens), bench.naive_trace(tokens)
        note = f"{ours:.2f} and {naive:.1f} ms per token; the naive one from {len(SAMPLES) + 2} samples"
        what = f"a whole trace of {sum(tokens):,} tokens at 100 tokens/s, ours ÷ naive per token"
        yield at_most(what, 1 / 50, ours / naive, note)
    if only in ("", "reading"):
        yield from reading.rows()


def update_rows(ours: dict[int, Update], naive: dict[int, Update]) -> Iterator[Row]:
    """What an update costs at length 1,000, 80,000 and 400,000."""
    first, middle, last = (ours[length] for length in LENGTHS)
    note = f"{last.browser:.2f} and {first.browser:.2f} ms"
    yield at_most("main-thread CPU per update, 400,000 ÷ 1,000 characters", 1.5, last.browser / first.browser, note)
    for length, goal in ((LENGTHS[1], 1 / 10), (LENGTHS[2], 1 / 40)):
        theirs, us = naive[length].browser, (middle if length == LENGTHS[1] else last).browser
        note = f"{us:.2f} and {theirs:.0f} ms"
        yield at_most(f"the same, ours ÷ naive at {length:,} characters", goal, us / theirs, note)
    note = f"{last.bytes:.0f} and {first.bytes:.0f}"
    yield at_most("bytes per update, 400,000 ÷ 1,000 characters", 1.3, last.bytes / first.bytes, note)


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round of each; writes no table")
    parser.add_argument("--only", default="", help="updates, turns, trace or reading")
    chosen = parser.parse_args()
    executable = find()
    assert executable, "no Chromium: run tests/browser/install_chromium.py"
    began = os.getloadavg()[1]
    bench = Bench(executable, *((1, 3.0) if chosen.quick else (5, 6.0)))
    try:
        lines = measured(rows(bench, Reading(bench.browser, bench.ours, bench.rounds), chosen.quick, chosen.only))
    finally:
        bench.close()
    if not chosen.quick and not chosen.only:
        foot = (
            f"Measured on {os.cpu_count()} cores with a load of {began:.1f} before and {os.getloadavg()[1]:.1f} after."
        )
        write_table("page", lines, foot)
    sys.exit(not all(row.met for row in lines))


if __name__ == "__main__":
    main()
