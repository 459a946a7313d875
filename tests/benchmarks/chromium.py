"""A real Chromium and the pages in it, with what they cost: main-thread CPU, bytes, frames; not what is measured with them."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.browser.conftest import ARGUMENTS

ROOT = Path(__file__).parents[2]
PATIENCE = 120_000
"""Milliseconds that a step may take before the measurement is given up."""


class Server:
    """One of the two pages of page_server.py, in its process."""

    def __init__(self, which: str) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.page_server", which]
        self._process = subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url.startswith("http"), f"the {which} page does not start"

    def ask(self, command: str) -> dict[str, float]:
        """Send a command, and read what it answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        found: dict[str, float] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)


@dataclass(frozen=True, slots=True)
class Costs:
    """What a span of time has cost."""

    seconds: float
    browser: float
    """CPU seconds of the page's main thread."""
    server: float
    """CPU seconds of the server's process, all threads."""
    updates: int
    """What the server has sent in it."""


class Tab:
    """A page of a server in a profile of its own."""

    def __init__(self, page: Any, server: Server) -> None:
        self.page, self.server = page, server
        self.cdp = page.context.new_cdp_session(page)
        self.cdp.send("Performance.enable", {"timeDomain": "threadTicks"})
        self.bytes = 0
        self.cdp.on("Network.dataReceived", self._received)

    def _received(self, event: dict[str, Any]) -> None:
        self.bytes += event["dataLength"]

    def visit(self) -> None:
        """Open the page and wait until one can write."""
        self.page.goto(self.server.url)
        self.page.wait_for_selector("#box textarea:enabled")

    def send(self, **order: Any) -> None:
        """Send an `Order`."""
        self.page.fill("#box textarea", json.dumps(order))
        self.page.press("#box textarea", "Enter")

    def until(self, script: str, every: int = 250, patience: float = PATIENCE) -> None:
        """Wait for `script` to become true, looking seldom: looking costs what is measured."""
        self.page.wait_for_function(script, polling=every, timeout=patience)

    def written(self, length: int) -> None:
        """Wait until about so many characters of a reply are shown."""
        parts = "[...document.querySelectorAll('.reasoning-text, [data-testid=bot]')]"
        self.until(f"{parts}.reduce((sum, part) => sum + part.textContent.length, 0) >= {length} * 0.5")

    def settled(self, replies: int) -> None:
        """Wait until so many replies are drawn, and the page is quiet."""
        self.until(f"document.querySelectorAll('.turn.reply, [data-testid=bot]').length >= {replies}")
        self.page.wait_for_timeout(1000)

    def rest(self) -> Costs:
        """What the page uses when it has nothing to do: the least of several looks."""
        self.page.wait_for_timeout(3000)  # Gradio's last animations
        return min((self.watch(1.5) for _ in range(3)), key=lambda each: each.browser / each.seconds)

    def finish(self, **order: Any) -> None:
        """Send an `Order`, and wait until it is written to its end."""
        self.send(mark=True, **order)
        seconds = order.get("pace", 0.01) * (order.get("count", 0) + order.get("then", 0))
        self.marked(PATIENCE + 2000 * seconds)

    def marked(self, patience: float = PATIENCE) -> None:
        """Wait until the mark that ends an answer is shown."""
        last = "[...document.querySelectorAll('.answer, [data-testid=bot]')].at(-1)"
        ended = f"{last}?.textContent.includes('The very end.') && !document.body.classList.contains('answering')"
        self.until(ended, patience=patience)

    def spent(self, job: Callable[[], object]) -> Costs:
        """What the time of `job` cost."""
        before = self._look()
        job()
        after = self._look()
        return Costs(*(round(b - a, 9) for a, b in zip(before, after, strict=True)))  # type: ignore[arg-type]

    def watch(self, seconds: float) -> Costs:
        """What so many seconds cost."""
        return self.spent(lambda: time.sleep(seconds))

    def received(self, seconds: float) -> tuple[int, int]:
        """Bytes and updates that come in so many seconds. Being told of them costs the page a little, so it is done apart."""
        self.cdp.send("Network.enable")
        bytes_before, updates = self.bytes, self.server.ask("count")["count"]
        self.page.wait_for_timeout(seconds * 1000)
        updates = int(self.server.ask("count")["count"] - updates)
        self.page.evaluate("1")  # so that the events of the last moment have come
        self.cdp.send("Network.disable")
        return self.bytes - bytes_before, updates

    def _look(self) -> tuple[float, float, float, float]:
        counted = self.server.ask("count")
        metrics = {each["name"]: each["value"] for each in self.cdp.send("Performance.getMetrics")["metrics"]}
        return time.monotonic(), metrics["TaskDuration"], counted["cpu"], counted["count"]


class Chromium:
    """The browser."""

    def __init__(self, executable: str) -> None:
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)

    @contextmanager
    def tab(self, server: Server, **options: Any) -> Iterator[Tab]:
        """A tab, open already; `options` are those of a Playwright context."""
        context = self._browser.new_context(viewport={"width": 1280, "height": 800}, **options)
        context.set_default_timeout(PATIENCE)
        try:
            yield Tab(context.new_page(), server)
        finally:
            context.close()

    def close(self) -> None:
        """End it."""
        self._browser.close()
        self._playwright.stop()
