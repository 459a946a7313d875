"""Fifty visitors on a shared page with room for thirty answers, which fails in all ways that we know: is anything lost?"""

import argparse
import json
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import httpx

from tests.soak.page_client import PageClient

ROOT = Path(__file__).parents[2]
REFUSED = {"overloaded", "too_many_replies", "too_many_requests", "too_many_new_pictures", "queue_full"}
GROWTH = 1.25
"""By how much the process may grow from the first third of a run to its end; a short run only prints it."""
LONG = 600.0
"""Seconds from which on a run is long."""


class Visit:
    """One visitor, who remembers what was acknowledged."""

    def __init__(self, url: str, number: int, counts: Counter[str]) -> None:
        self.url, self.number, self.counts = url, number, counts
        self.chance, self.door = random.Random(number), PageClient(url)
        self.whole: dict[str, list[str]] = {}
        """By conversation, the texts whose answers were there in full."""
        self._turn = 0

    def go(self, until: float) -> None:
        """Say, read, break off, come back, begin again."""
        while time.monotonic() < until:
            self._turn += 1
            text = f"visitor {self.number} turn {self._turn} "
            match self.chance.randrange(12):
                case 0:
                    self.door.act("turns/new_chat")
                case 1 if self.door.place:
                    self._come_back()
            self._say(text)

    def _say(self, text: str) -> None:
        try:
            self.door.say(text)
        except httpx.HTTPStatusError as error:  # the one that nobody foresaw: a sentence, and no more
            answer = error.response
            if answer.status_code not in (429, 500, 503) or "Traceback" in answer.text or text in answer.text:
                raise AssertionError(answer.text) from error
            self.counts["sentences"] += 1
            return
        alert = self.door.shown.get("alert")
        if alert:
            self._refused(str(alert["key"]))
            return
        if self.chance.random() < 0.2:
            self._drop()
        heard = self.door.follow()
        self._check(text, heard)

    def _refused(self, key: str) -> None:
        self.counts[key] += 1
        if key == "conversation_full":
            self.door.act("turns/new_chat")
        elif key not in REFUSED and key != "already_answering" and not key.startswith("history_"):
            raise AssertionError(f"refused with {key}")
        time.sleep(self.chance.random())

    def _drop(self) -> None:
        """Begin to read, and be gone without a word."""
        target = httpx.URL(self.url)
        line = socket.create_connection((target.host, target.port or 80), timeout=10)
        named = {"Host": "127.0.0.1", **self.door.reading_headers()}
        head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
        line.sendall(f"GET /magistral/live HTTP/1.1\r\n{head}\r\n".encode())
        time.sleep(self.chance.random())
        line.close()
        self.counts["dropped lines"] += 1

    def _check(self, text: str, heard: str) -> None:
        turns = self.door.shown["turns"]
        told = json.dumps(turns) + heard
        assert told.count("visitor ") == told.count(f"visitor {self.number} "), "another's words"
        assert turns, "the conversation is gone"
        last = turns[-1]
        if last.get("answer") == f"[{text}] " * 20:
            self.whole.setdefault(self.door.place["conversation"], []).append(text)
            self.counts["answers"] += 1
        else:
            self.counts["broken answers"] += 1
            assert (last.get("answer") or "") in f"[{text}] " * 20 or last.get("answer") is None, (
                "words that nobody wrote"
            )

    def _come_back(self) -> None:
        """From another browser, which has only the place."""
        place, before = self.door.place, self.door
        self.door = PageClient(self.url)
        before.close()
        self.door.place = place
        self.door.act("history/open", {"id": place["conversation"]})

    def look_again(self) -> None:
        """All that was there is there."""
        for conversation, texts in self.whole.items():
            self.door.act("history/open", {"id": conversation})
            told = json.dumps(self.door.shown)
            shown = [text for text in texts if f"[{text}] " in told]
            # A long conversation shows its end first.
            assert texts[-1] in shown, f"lost: {texts[-1]}"
            self.counts["found again"] += len(shown)


def torment(url: str, until: float, chance: random.Random) -> None:
    """Whoever means ill: half a request, a body that never comes, what is no JSON, an address that does not exist."""
    target = httpx.URL(url)
    lines: list[socket.socket] = []
    while time.monotonic() < until:
        try:
            line = socket.create_connection((target.host, target.port or 80), timeout=5)
            line.sendall(
                chance.choice(
                    (
                        b"GET /magis",
                        b"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999\r\n\r\nx",
                        b"POST /magistral/act/composer/say HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\n{{{{{",
                        b"GET /gradio_api/file=/etc/passwd HTTP/1.1\r\nHost: evil.example\r\n\r\n",
                        b"\x16\x03\x01\x02\x00" + bytes(200),
                    )
                )
            )
            lines.append(line)
        except OSError:
            pass
        while len(lines) > 40:
            lines.pop(0).close()
        time.sleep(0.05)
    for line in lines:
        line.close()


def number_of(url: str, name: str) -> float:
    """One of the page's own metrics."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", httpx.get(url + "metrics", trust_env=False, timeout=30).text, re.M)
    assert found, name
    return float(found[1])


def run(folder: Path, visitors: int, seconds: float) -> Counter[str]:
    """So many visitors for so long; what they met. AssertionError where anything was lost, mixed up, or grew."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.soak.failing_page", str(folder)]
    server = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert server.stdin
    assert server.stdout
    counts, failures, sizes = Counter[str](), list[str](), list[float]()
    try:
        url = server.stdout.readline().strip()
        drain = threading.Thread(
            target=lambda: [counts.update(["lines of log"]) for _ in server.stderr or ()], daemon=True
        )
        drain.start()
        until = time.monotonic() + seconds

        def visit(number: int) -> None:
            one = Visit(url, number, counts)
            try:
                one.go(until)
                one.look_again()
            except (AssertionError, httpx.HTTPError, LookupError, ValueError) as error:
                failures.append(f"visitor {number}, turn {one._turn}: {type(error).__name__} {error}")
            finally:
                one.door.close()

        crowd = [threading.Thread(target=visit, args=(number,)) for number in range(visitors)]
        crowd.append(threading.Thread(target=torment, args=(url, until, random.Random(0))))
        for each in crowd:
            each.start()
        while time.monotonic() < until:
            time.sleep(max(1.0, seconds / 60))
            sizes.append(number_of(url, "process_resident_memory_bytes") / 10**6)
        for each in crowd:
            each.join()
        assert not failures, "\n".join(failures)
        assert number_of(url, "magistral_ui_replies_written") == 0, "an answer runs for ever"
        assert httpx.get(url + "healthz", trust_env=False).json() == {"status": "ready"}
    finally:
        server.stdin.close()
        server.wait(60)
    first, last = max(sizes[: max(1, len(sizes) // 3)]), sizes[-1]
    counts["MB at a third"], counts["MB at the end"] = round(first), round(last)
    assert seconds < LONG or last < GROWTH * first, f"grew from {first:.0f} to {last:.0f} MB"
    return counts


def main() -> None:
    """`python -m tests.soak.load [--visitors N] [--minutes N]`"""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visitors", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=30.0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = run(Path(folder) / "data", chosen.visitors, 60 * chosen.minutes)
    for name, count in sorted(counts.items()):
        print(f"{count:8} {name}")


if __name__ == "__main__":
    main()
