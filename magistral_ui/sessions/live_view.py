"""Follows one generation for one live stream, ten times a second. It owns nothing, so the stream may end at any time."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from magistral_ui.chat.events import Prefilling, Reclassified, Usage
from magistral_ui.chat.reply import Reply, ReplyBuilder
from magistral_ui.engines.generation import Generation, Stamped

UPDATE_INTERVAL = 0.1
"""Seconds between two updates: fast enough to read along, at the same cost however fast the tokens come."""
KEEPALIVE_INTERVAL = 2.0
"""Seconds after which an update is sent even without news (a heartbeat), so that both sides notice a dead connection."""

NO_REPLY = Reply(reasoning_closed=False)
"""The start of a reply that resumes nothing."""


@dataclass(slots=True)
class LiveView:
    """One reply as its reader should see it now. The cost of an update does not depend on the length of the reply."""

    generation: Generation
    before: Reply = NO_REPLY
    """The partial reply that this one resumes, shown as if it had just been written."""
    draft: ReplyBuilder = field(default_factory=ReplyBuilder)
    start: int = 0
    """Number of the first event in this update; at 0, the texts start over too."""
    seen: int = 0
    reasoning: str = ""
    answer: str = ""
    usage: Usage = field(default_factory=Usage)
    """What the reply has cost so far, without `before`."""

    def skip(self, seen: int) -> None:
        """Read the first `seen` events, which the reader already has."""
        self._take(self.generation.take()[: max(0, seen)])
        self.draft.take_texts()

    def advance(self) -> bool:
        """Read what is new; returns whether there was anything."""
        self.start = self.seen
        new = self.generation.take(self.seen)
        if any(isinstance(each.event, Reclassified) for each in new):  # what was shown as the answer is reasoning
            new, self.start, self.seen, self.draft = self.generation.take(), 0, 0, ReplyBuilder()
        before = self.before if self.start == 0 else NO_REPLY
        self._take(new)
        reasoning, answer = self.draft.take_texts()
        self.reasoning, self.answer = before.reasoning + reasoning, before.answer + answer
        return self.seen > self.start

    def _take(self, events: list[Stamped]) -> None:
        for stamped in events:
            self.draft.feed(stamped.event)
        self.seen += len(events)
        self.usage = self.generation.usage

    @property
    def state(self) -> str:
        """`starting`, `queued`, `waiting`, `reading`, `thinking`, `answering` or `ended`."""
        draft = self.draft
        if draft.last is not None:
            return "ended"
        if draft.retry_seconds:
            return "waiting"
        if draft.answering or self.before.reasoning_closed:
            return "answering"
        if draft.reasoned or self.before.reasoning:
            return "thinking"
        if draft.prefilling is not None:
            return "reading"
        return "queued" if draft.queue_position else "starting"

    @property
    def reasoning_seconds(self) -> float:
        """From the start of the reasoning to its end, or until now while it lasts."""
        spent = self.before.usage.reasoning_seconds
        began = self.generation.reasoning_began
        if began is not None and self.state == "thinking":
            return spent + self.generation.elapsed - began
        return spent + self.usage.reasoning_seconds

    def value(self) -> dict[str, Any]:
        draft = self.draft
        prefilling = draft.prefilling or Prefilling(0, 0)
        return {
            "start": self.start,
            "seen": self.seen,
            "state": self.state,
            "position": draft.queue_position or 0,
            "retry_seconds": draft.retry_seconds,
            "done": prefilling.done,
            "total": prefilling.total,
            "reasoning": self.reasoning,
            "answer": self.answer,
            "seconds": round(self.reasoning_seconds, 2),
            "reasoning_tokens": self.before.usage.reasoning_tokens + self.usage.reasoning_tokens,
            "answer_tokens": self.before.usage.answer_tokens + self.usage.answer_tokens,
            "answer_now": self.generation.answer_now_requested,
        }


async def watch(
    generation: Generation, interval: float = UPDATE_INTERVAL, before: Reply | None = None, seen: int = 0
) -> AsyncIterator[LiveView]:
    """The generation as it grows, from event number `seen` on, until it has ended."""
    view, sent = LiveView(generation, before or NO_REPLY), 0.0
    view.skip(seen)
    while True:
        if view.advance() or time.monotonic() - sent > KEEPALIVE_INTERVAL:
            sent = time.monotonic()
            yield view
        if view.draft.last is not None:
            return
        await asyncio.sleep(interval)
