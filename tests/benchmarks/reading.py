"""What a reader waits for: a page to be ready, a key to be seen, a long conversation to open, and to scroll; by the clock."""

import statistics
from collections.abc import Iterator

from tests.benchmarks.chromium import Chromium, Server, Tab
from tests.benchmarks.table import Row, at_most

TURNS, REASONING, ANSWER = 200, 20_000, 1_500
LONG_FRAME = 50
"""Milliseconds from which on a frame is felt."""

# When a reader sees something that `ready` finds: the end of the frame that shows it, in milliseconds since navigation.
SEEN = """(ready) => new Promise((resolve) => {
  const test = new Function("return " + ready);
  const look = () => (test() ? requestAnimationFrame(() => setTimeout(() => resolve(performance.now()))) : setTimeout(look, 10));
  look();
})"""
USABLE = "document.querySelector('#box textarea:enabled')?.getBoundingClientRect().height > 0"
KEYS = """() => {
  window.keys = [];
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (entry.name === "keydown") window.keys.push(entry.duration);
  }).observe({ type: "event", durationThreshold: 16 });
}"""
FRAMES = """() => {
  window.frames_ = [];
  let last = performance.now();
  const next = (now) => { window.frames_.push(now - last); last = now; requestAnimationFrame(next); };
  requestAnimationFrame(next);
}"""
# One turn of the wheel every 50 ms from the end to the beginning, as a hasty reader does.
SCROLL = """() => new Promise((resolve) => {
  const page = document.scrollingElement;
  window.frames_.length = 0;
  let still = 0;
  const step = () => {
    const before = page.scrollTop;
    page.scrollTop -= 600;
    still = page.scrollTop === before ? still + 1 : 0;
    if (still > 10) resolve(window.frames_);
    else setTimeout(step, 50);
  };
  step();
})"""


class Reading:
    """The measurements, on our page only."""

    def __init__(self, browser: Chromium, server: Server, rounds: int) -> None:
        self.browser, self.server, self.rounds = browser, server, rounds

    def rows(self) -> Iterator[Row]:
        """All of them."""
        late = statistics.median(self.key_to_paint() for _ in range(self.rounds))
        yield at_most("typing while 100 tokens/s stream: key to paint, 95th percentile, ms", 50, late)
        ready = [self.ready() for _ in range(2 * self.rounds + 1)]
        yield at_most("page usable after navigation, nothing in the browser's cache, s", 1.5, statistics.median(ready))
        opened, frames = zip(*(self.open_long() for _ in range(self.rounds)), strict=True)
        what = f"opening the page on a conversation of {TURNS} turns with {REASONING:,} characters of reasoning each, s"
        yield at_most(what, 1.0, statistics.median(opened))
        share = statistics.median(sum(f > LONG_FRAME for f in each) / len(each) for each in frames)
        longest = statistics.median(max(each) for each in frames)
        what = f"scrolling through it: share of frames above {LONG_FRAME} ms"
        yield at_most(what, 0.02, share, f"the longest: {longest:.0f} ms")

    def ready(self) -> float:
        """Seconds from navigation until one can write."""
        with self.browser.tab(self.server) as tab:
            tab.page.goto(self.server.url, wait_until="commit")
            return float(tab.page.evaluate(SEEN, USABLE)) / 1000

    def key_to_paint(self, keys: int = 60) -> float:
        """The 95th percentile in milliseconds; what takes less than 16 ms counts as 16."""
        with self.browser.tab(self.server) as tab:
            tab.visit()
            tab.send(reasoning=80_000, settle=1, count=3000, pace=0.01)
            tab.written(80_000)
            tab.page.wait_for_timeout(3000)
            tab.page.click("#box textarea")
            tab.page.evaluate(KEYS)
            for number in range(keys):
                tab.page.keyboard.press("abcdefgh "[number % 9])
                tab.page.wait_for_timeout(110)
            tab.page.wait_for_timeout(500)
            slow = sorted(tab.page.evaluate("window.keys"))
        found = [16.0] * (keys - len(slow)) + slow
        return float(found[int(0.95 * keys)])

    def open_long(self) -> tuple[float, list[float]]:
        """Seconds from navigation until a long conversation is there to read; and the frames of a scroll through it."""
        self.server.ask(f"prepare {TURNS} 100 {REASONING} {ANSWER}")
        try:
            with self.browser.tab(self.server) as tab:
                tab.visit()
                tab.settled(TURNS)  # the conversation is made, which takes seconds
                tab.page.goto(self.server.url, wait_until="commit")
                shown = f"{USABLE} && document.querySelector('.turns > :last-child .answer > *')?.offsetHeight > 0"
                seen = float(tab.page.evaluate(SEEN, shown)) / 1000
                return seen, self._scroll(tab)
        finally:
            self.server.ask("prepare 0 0 0 0")

    def _scroll(self, tab: Tab) -> list[float]:
        tab.settled(TURNS)
        tab.page.evaluate(FRAMES)
        found: list[float] = tab.page.evaluate(SCROLL)
        return found
