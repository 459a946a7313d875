"""Reads and draws all pairs of marks, 20,000 times each, on the page and for a file, and tells those that take more than 100 ms.

    python -m tests.fuzz [--every N] [--minutes N]

A text takes the least of some tries, in the time of the processor, because the machine may do other things meanwhile. What is
left when the minutes are over is told, and is no failure.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from magistral_ui.export.answer_html import AnswerRenderer
from magistral_ui.export.markdown import contained
from magistral_ui.i18n.texts import text
from tests.browser.install_chromium import find
from tests.fuzz.marks import texts

MOST = 100.0
"""Milliseconds."""
TRIES = 4
ASSETS = Path(__file__).parents[2] / "magistral_ui" / "ui" / "assets"
DRAW = """async (text) => {
  const { parse, render } = await import("/markdown.js");
  render(parse(text, false), "a1");
}"""


class NoFormulas:
    """Formulas of a file are turned in a process of their own, which is bounded by itself."""

    def begin_answer(self) -> None:
        """Nothing is numbered."""

    def html(self, latex: str, display: bool) -> str:
        """A place for it."""
        return "<code></code>"


def serve(route: Any) -> None:
    """The page's scripts, with no server."""
    path = route.request.url.split("/", 3)[3].split("?")[0]
    if not path:
        route.fulfill(body='<!doctype html><html data-texts="texts.js">', content_type="text/html")
    elif path == "texts.js":
        words = json.loads((ASSETS.parent / "locales" / "en.json").read_text(encoding="utf-8"))
        body = f'export const language = "en"; export const texts = {json.dumps(words)};'
        route.fulfill(body=body, content_type="text/javascript")
    else:
        route.fulfill(body=(ASSETS / path).read_bytes(), content_type="text/javascript")


def milliseconds(work: Callable[[], object]) -> float:
    """What `work` takes of this thread's processor time."""
    least = float("inf")
    for _ in range(TRIES):
        began = time.thread_time()
        work()
        least = min(least, 1000 * (time.thread_time() - began))
        if least <= MOST:
            break
    return least


class Page:
    """A browser with the page's scripts."""

    def __init__(self, browser: Any) -> None:
        self.page = browser.new_page()
        self.page.route("**/*", serve)
        self.page.goto("http://fuzz.invalid/")
        self._tool = self.page.context.new_cdp_session(self.page)
        self._tool.send("Performance.enable", {"timeDomain": "threadTicks"})

    def _spent(self) -> float:
        """Milliseconds that the processor had for the page until now."""
        metrics = self._tool.send("Performance.getMetrics")["metrics"]
        return 1000 * float(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))

    def milliseconds(self, each: str) -> float:
        """What drawing takes of the processor's time."""
        least = float("inf")
        for _ in range(TRIES):
            began = self._spent()
            self.page.evaluate(DRAW, each)
            least = min(least, self._spent() - began)
            if least <= MOST:
                break
        return least


def in_file(answers: AnswerRenderer, each: str) -> float:
    """The slower of both files."""
    return max(milliseconds(lambda: answers.html(each)), milliseconds(lambda: contained(each)))


def measured(chosen: Iterator[str], page: Page, until: float) -> Iterator[tuple[str, str, float]]:
    """Where, what and how long."""
    answers = AnswerRenderer(text, None, NoFormulas())
    for each in chosen:
        yield "page", each, page.milliseconds(each)
        yield "file", each, in_file(answers, each)
        if time.monotonic() > until:
            print("the time is over; not all were tried")
            return


def main(arguments: Sequence[str]) -> int:
    """Print what is over, and how many were tried."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--every", type=int, default=1, help="try each so many-th only")
    parser.add_argument("--minutes", type=float, default=90.0)
    chosen = parser.parse_args(arguments)
    over, tried = [], 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(find()), args=["--no-sandbox", "--disable-gpu"])
        picked = islice(texts(), 0, None, chosen.every)
        for where, each, spent in measured(picked, Page(browser), time.monotonic() + 60 * chosen.minutes):
            tried += 1
            if spent > MOST:
                over.append((spent, where, each[:40]))
        browser.close()
    for spent, where, each in sorted(over, reverse=True):
        print(f"{where} {spent:6.0f} ms  {each!r}")
    print(f"{tried} tried, {len(over)} above {MOST:.0f} ms")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
