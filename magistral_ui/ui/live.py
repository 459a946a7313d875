"""Watches one generation for one browser: what is new, ten times a second; it owns nothing, so it may leave at any time."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from magistral_ui.chat.conversation import Reply
from magistral_ui.chat.events import Prefilling, Reasoning
from magistral_ui.chat.folding import Draft
from magistral_ui.engines.generation import Generation

INTERVAL = 0.1
"""Seconds between two updates: fast enough to read along, and the same cost however fast the tokens come."""
HEARTBEAT = 2.0
"""Seconds after which an update is sent even without news: only then does Gradio notice that the browser has left."""
WINDOW = 48_000
"""Characters of reasoning that an update holds, and what is new. Gradio compares a value with the one before, on both sides, so a
value must not grow with the reasoning; the browser has the older text already."""

NOTHING = Reply(reasoning_closed=False)
"""The beginning of a reply that goes on from none."""


@dataclass(slots=True)
class LiveView:
    """One reply as a browser is to see it now."""

    generation: Generation
    window: int | None = WINDOW
    """Characters of reasoning that are held; None holds all."""
    before: Reply = NOTHING
    """The beginning that the reply goes on from, shown as if it had been written now."""
    draft: Draft = field(default_factory=Draft)
    seen: int = 0
    at: int = 0
    """How many characters of the reasoning are no longer in `reasoning`."""
    reasoning: str = ""
    answer: str = ""
    first_reasoning: float | None = None
    last_reasoning: float = 0.0
    begun: bool = False

    def advance(self) -> bool:
        """Take in what is new; whether there was anything."""
        fresh = self.generation.take(self.seen)
        for stamped in fresh:
            self.draft.feed(stamped.event)
            if isinstance(stamped.event, Reasoning):
                self._time(stamped.seconds)
        self.seen += len(fresh)
        if self.window is not None and len(self.reasoning) > self.window:
            # All of this was sent before. A part stays, for a tab that lags behind.
            kept = self.window // 3
            self.at += len(self.reasoning) - kept
            self.reasoning = self.reasoning[-kept:]
        if not self.begun:
            self.begun, self.reasoning, self.answer = True, self.before.reasoning, self.before.answer
        # The draft's lists are emptied as they are read: no update may cost more because much was said before.
        self.reasoning += "".join(self.draft.reasoning)
        self.answer += "".join(self.draft.answer)
        self.draft.reasoning.clear()
        self.draft.answer.clear()
        return bool(fresh)

    def _time(self, seconds: float) -> None:
        if self.first_reasoning is None:
            self.first_reasoning = seconds
        self.last_reasoning = seconds

    @property
    def state(self) -> str:
        """`starting`, `queued`, `reading`, `thinking`, `answering` or `ended`."""
        draft = self.draft
        if draft.last is not None:
            return "ended"
        if draft.answering or self.before.reasoning_closed:
            return "answering"
        if draft.reasoning_tokens or self.before.reasoning:
            return "thinking"
        if draft.prefilling is not None:
            return "reading"
        return "queued" if draft.queue_position else "starting"

    @property
    def reasoning_seconds(self) -> float:
        """From the first token of reasoning to its last, or to now while it goes on."""
        spent = self.before.usage.reasoning_seconds
        if self.first_reasoning is None:
            return spent
        until = self.generation.elapsed if self.state == "thinking" else self.last_reasoning
        return spent + until - self.first_reasoning

    def value(self) -> dict[str, Any]:
        """What the browser gets."""
        draft = self.draft
        prefilling = draft.prefilling or Prefilling(0, 0)
        return {
            "generation": self.generation.id,
            "state": self.state,
            "position": draft.queue_position or 0,
            "done": prefilling.done,
            "total": prefilling.total,
            "reasoning": {"at": self.at, "text": self.reasoning},
            "answer": {"at": 0, "text": self.answer},
            "seconds": round(self.reasoning_seconds, 2),
            "reasoning_tokens": self.before.usage.reasoning_tokens + draft.reasoning_tokens,
            "answer_tokens": self.before.usage.answer_tokens + draft.answer_tokens,
            "answer_now": self.generation.answer_now_asked,
        }


async def watch(
    generation: Generation, window: int | None = WINDOW, interval: float = INTERVAL, before: Reply | None = None
) -> AsyncIterator[LiveView]:
    """The generation as it grows, until it has ended; the last view has everything."""
    view, sent = LiveView(generation, window, before or NOTHING), 0.0
    while True:
        if view.advance() or time.monotonic() - sent > HEARTBEAT:
            sent = time.monotonic()
            yield view
        if view.draft.last is not None:
            return
        await asyncio.sleep(interval)
