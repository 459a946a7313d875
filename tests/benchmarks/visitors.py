"""What one process carries of visitors, through all of its doors: fifty on the demo model, five hundred on a server's model.

    python -m tests.benchmarks.visitors [--demo N] [--remote N] [--seconds N]

The real app runs as its users run it. A process of its own speaks for all visitors, as the page's script would
(soak/page_client.py), and reads what they see. All come from one address, so the limits of an address are out of the
way. Writes a table to docs/benchmarks.md.
"""

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.remote import start_upstream
from tests.benchmarks.table import Row, at_least, at_most, measured, write_table
from tests.loopback import free_port
from tests.soak.page_client import PageClient
from tests.space.starting import until_ready

ROOT = Path(__file__).parents[2]
ROOM = {
    "replies_per_address": 10_000,
    "messages_per_minute": 6_000,
    "messages_per_minute_per_address": 600_000,
    "requests_per_minute_per_address": 6_000_000,
    "visitors_per_minute_per_address": 600_000,
    "visitors": 2_000,
}
"""For visitors who all have one address."""
POSITION = re.compile(r'"position":(\d+)')
WRITTEN = re.compile(r'"state":"(?:thinking|answering|ended)"')
"""In an update that has tokens; on a busy machine the first that comes may be the last."""
RATE, SECONDS = 10, 120
"""Tokens a second of each reply of a server's model, and for how long: all visitors have come before the first ends."""
READERS = 64
"""Threads that speak at once where hundreds of visitors do."""


@dataclass
class App:
    """The running app."""

    url: str
    process: psutil.Process
    folder: Path
    """What it writes is in there: conversations in `data`, uploads in `temp`."""

    def memory_mb(self) -> float:
        """What it holds."""
        return float(self.process.memory_info().rss) / 1e6

    def cpu(self) -> float:
        """Seconds that it has used."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def app(*flags: str, log: Path | None = None, room: Mapping[str, int] = ROOM, **limits: int) -> Iterator[App]:
    """The app with these flags, once its model is ready; it may write its log into a file."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as closing:
        file = Path(folder, "limits.json")
        file.write_text(json.dumps({**room, **limits}), encoding="utf-8")
        port = free_port()
        command = [
            "app.py",
            "--port",
            str(port),
            "--data-dir",
            str(Path(folder, "data")),
            "--limits",
            str(file),
            *flags,
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GRADIO_TEMP_DIR": str(Path(folder, "temp"))}
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", *command],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=closing.enter_context(log.open("wb")) if log else None,
        )
        try:
            url = f"http://127.0.0.1:{port}/"
            until_ready(url)
            yield App(url, psutil.Process(process.pid), Path(folder))
        finally:
            process.terminate()
            process.wait(60)


@dataclass
class Turns:
    """What one visitor of the demo model met."""

    whole: int = 0
    broken: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    """Seconds from sending to the first token."""
    seconds: list[float] = field(default_factory=list)
    """Seconds from sending to the last."""
    queue_grew: int = 0
    """How often a place in the queue was said to be further back than before."""


def ask(door: PageClient, turns: Turns, chance: random.Random) -> None:
    """One sum, read to its end."""
    a, b = chance.randrange(100, 500), chance.randrange(100, 500)
    began = time.monotonic()
    door.say(f"What is {a} + {b}?")
    if alert := door.shown.get("alert"):
        turns.refused.append(alert["key"])
        return
    first, place = 0.0, 10**9
    with door.reading() as lines:
        for line in lines.iter_lines():
            if found := POSITION.search(line):
                turns.queue_grew += int(found[1]) > place
                place = int(found[1])
            if not first and WRITTEN.search(line):
                first = time.monotonic() - began
    door.act("turns/ended")
    turns.seconds.append(time.monotonic() - began)
    turns.first.append(first)
    answer = door.shown["turns"][-1].get("answer") or ""
    if str(a + b) in answer:
        turns.whole += 1
    else:
        turns.broken.append(answer)


def crowd(url: str, count: int, seconds: float) -> list[Turns]:
    """So many visitors who ask one question after the other for so long."""
    doors = [PageClient(url) for _ in range(count)]
    found = [Turns() for _ in doors]
    until = time.monotonic() + seconds

    def visit(number: int) -> None:
        chance = random.Random(number)
        while time.monotonic() < until:
            if len(found[number].seconds) % 20 == 19:
                doors[number].act("turns/new_chat")
            ask(doors[number], found[number], chance)

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(count)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for door in doors:
        door.close()
    return found


def demo_rows(count: int, seconds: float) -> Iterator[Row]:
    """Fifty at once on the demo model, then three times as many as it takes, then one alone again."""
    with app(replies_in_all=count + 10) as served:
        crowd(served.url, 2, 3)
        alone = statistics.median(crowd(served.url, 1, 6)[0].seconds)
        sizes, over = [], threading.Event()

        def weigh() -> None:
            while not over.wait(1):
                sizes.append(served.memory_mb())

        weighing = threading.Thread(target=weigh)
        weighing.start()
        found = crowd(served.url, count, seconds)
        over.set()
        weighing.join()
        turns = [len(each.seconds) for each in found]
        first = sorted(value for each in found for value in each.first)
        whole, asked = sum(each.whole for each in found), sum(turns)
        unread = sum(len(each.refused) for each in found)
        note = f"{whole} of {asked} in {seconds:.0f} s; first token after {statistics.median(first):.1f} s, 95th percentile "
        note += f"{first[int(0.95 * len(first))]:.1f} s"
        yield at_least(f"{count} visitors at once on the demo model: share of right answers", 0.97, whole / asked, note)
        yield at_most("… refusals among them", 0, unread)
        yield at_least("… answers of who got fewest ÷ of who got most", 0.5, min(turns) / max(turns))
        yield at_most("… places in the queue that were told to go backwards", 0, sum(each.queue_grew for each in found))
        third = max(sizes[: max(1, len(sizes) // 3)])
        yield at_most("… memory at the end ÷ at a third", 1.25, sizes[-1] / third, f"{sizes[-1]:.0f} MB")

        many = 3 * (count + 10)
        found = crowd(served.url, many, 5)
        keys = {key for each in found for key in each.refused}
        refused, broken = sum(len(each.refused) for each in found), sum(len(each.broken) for each in found)
        answered = sum(len(each.seconds) for each in found)
        note = f"{answered} answered, {refused} refused politely ({', '.join(sorted(keys))})"
        yield at_most(f"{many} at once where {count + 10} may be: answers that broke", 0.03, broken / answered, note)
        again = statistics.median(crowd(served.url, 1, 6)[0].seconds)
        yield at_most(
            "one alone afterwards ÷ before: seconds for an answer", 1.5, again / alone, f"{again:.1f} and {alone:.1f} s"
        )


@dataclass
class Heard:
    """What one follower of a server's model saw."""

    text: str = ""
    lags: list[float] = field(default_factory=list)
    """Milliseconds from the sending of the newest token to its arrival in the browser."""
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every token is there, once and in its order."""
        numbers = [int(token.split(":")[0]) for token in self.text.split()]
        return numbers == list(range(RATE * SECONDS))


async def listen(door: PageClient, port: int) -> Heard:
    """Read a running reply on a bare socket: so that the reading costs little of the machine that is measured."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    head = "".join(f"{name}: {value}\r\n" for name, value in door.reading_headers().items())
    writer.write(f"GET /magistral/live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{head}\r\n".encode())
    heard = Heard()
    while not (await reader.readline()).isspace():
        pass
    while size := int(await reader.readline(), 16):
        chunk = (await reader.readexactly(size + 2))[:-2]
        for line in chunk.splitlines():
            if line.startswith(b"data: "):
                value: dict[str, Any] = json.loads(line[len(b"data: ") :])
                fresh = value["reasoning"] + value["answer"]
                heard.text += fresh
                if fresh:
                    heard.lags.append(time.monotonic() * 1000 - float(fresh.split()[-1].split(":")[1]))
    writer.close()
    heard.ended = time.monotonic()
    return heard


def remote_rows(count: int) -> Iterator[Row]:
    """So many visitors at once, each of whom reads a long reply of a server's model."""
    port = free_port()
    upstream = start_upstream(port, RATE, SECONDS)
    try:
        with app("--base-url", f"http://127.0.0.1:{port}/v1", "--context", "131072") as served:
            with ThreadPoolExecutor(READERS) as speakers:
                doors = list(speakers.map(lambda _: PageClient(served.url), range(count)))
            page = int(served.url.rstrip("/").rpartition(":")[2])
            before, began = served.cpu(), time.monotonic()

            async def all_of_them() -> list[Heard]:
                def say(door: PageClient) -> None:
                    door.say("hi")

                async def one(door: PageClient) -> Heard:
                    await asyncio.get_running_loop().run_in_executor(speakers, say, door)
                    return await listen(door, page)

                with ThreadPoolExecutor(8) as speakers:
                    return await asyncio.gather(*(one(door) for door in doors))

            found = asyncio.run(all_of_them())
            at_once = min(each.ended for each in found) - max(each.began for each in found)
            spent, wall, size = served.cpu() - before, time.monotonic() - began, served.memory_mb()
    finally:
        upstream.kill()
        upstream.wait()
    lags = sorted(lag for each in found for lag in each.lags)
    tokens = sum(len(each.text.split()) for each in found)
    note = f"{tokens:,} tokens in {wall:.0f} s, all visitors at once for {at_once:.0f} s; "
    note += f"{spent / wall:.2f} cores, {1e6 * spent / tokens:.0f} µs per token, {size:.0f} MB"
    what = f"{count} visitors at once on a server's model, {RATE} tokens/s each: replies that lack a token"
    yield at_most(what, 0, sum(not each.complete for each in found), note)
    note = f"99th percentile {lags[int(0.99 * len(lags))]:.0f} ms"
    yield at_most("… from the server's sending to the browser, median, ms", 500, statistics.median(lags), note)


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=int, default=50, help="visitors of the demo model; 0 leaves it out")
    parser.add_argument("--remote", type=int, default=500, help="visitors of a server's model; 0 leaves it out")
    parser.add_argument("--seconds", type=float, default=120.0, help="for how long the demo model's visitors ask")
    chosen = parser.parse_args()

    def rows() -> Iterator[Row]:
        if chosen.demo:
            yield from demo_rows(chosen.demo, chosen.seconds)
        if chosen.remote:
            yield from remote_rows(chosen.remote)

    lines = measured(rows())
    if (chosen.demo, chosen.remote) == (50, 500):
        foot = f"Measured on {os.cpu_count()} cores, which the app shares with its visitors and their server."
        write_table("visitors", lines, foot)
    sys.exit(not all(row.met for row in lines))


if __name__ == "__main__":
    main()
