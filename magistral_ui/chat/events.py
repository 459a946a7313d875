"""The events of a reply while it is written, and their JSON; it does not know who writes or reads them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from magistral_ui.errors import MagistralUIError, Message

Json = dict[str, Any]
FinishReason = Literal["stop", "length", "cancelled"]
"""`stop`: the model ended the reply; `length`: a token limit did; `cancelled`: the visitor or a time limit did."""

MIN_TIMED_SECONDS = 0.02
"""Seconds of writing from which a speed may be told. What takes less has arrived in one piece: it was written before."""
MAX_TIMED_RATE = 10_000.0
"""Tokens per second that a model may write; more only arrive if they were written before."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage of one reply: token counts, and times in seconds since it was submitted.

    Only a `Generation` counts it, by one rule for all engines. A token that completes no character counts as the first one,
    but it does not prolong the reasoning: a server's own total arrives as such a piece, after the last word of reasoning.
    """

    prompt_tokens: int = 0
    reused_tokens: int = 0
    """Prompt tokens whose keys and values were still cached."""
    reasoning_tokens: int = 0
    answer_tokens: int = 0
    first_token_seconds: float = 0.0
    """Until the model chose its first token, whether or not that showed any text."""
    reasoning_seconds: float = 0.0
    """From the first piece of reasoning to the last one that has text."""
    total_seconds: float = 0.0
    prompt_estimated: bool = False
    """Whether the prompt's tokens were estimated from its length, because the server was stopped before it reported them."""

    @property
    def completion_tokens(self) -> int:
        return self.reasoning_tokens + self.answer_tokens

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed after the first token; 0.0 where it is unknown: of fewer than two tokens, or of a burst of them."""
        tokens, seconds = self.completion_tokens - 1, self.total_seconds - self.first_token_seconds
        if tokens < 1 or seconds < max(MIN_TIMED_SECONDS, tokens / MAX_TIMED_RATE):
            return 0.0
        return tokens / seconds

    def then(self, more: "Usage") -> "Usage":
        """The usage of this reply continued by `more`: the latest prompt, and the time without the pause between the two."""
        writing = max(0.0, more.total_seconds - more.first_token_seconds)
        return Usage(
            prompt_tokens=more.prompt_tokens,
            prompt_estimated=more.prompt_estimated,
            reused_tokens=more.reused_tokens,
            reasoning_tokens=self.reasoning_tokens + more.reasoning_tokens,
            answer_tokens=self.answer_tokens + more.answer_tokens,
            first_token_seconds=self.first_token_seconds,
            reasoning_seconds=self.reasoning_seconds + more.reasoning_seconds,
            total_seconds=self.total_seconds + writing,
        )


@dataclass(frozen=True, slots=True)
class Queued:
    """Waiting to start; `position` 1 is next, 0 is unknown. `retry_seconds`: when a busy server is asked again, or 0.0."""

    position: int
    retry_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Prefilling:
    """The prompt is being processed: `done` of `total` tokens, of which `reused` came from the cache."""

    done: int
    total: int
    reused: int = 0


@dataclass(frozen=True, slots=True)
class Reasoning:
    """More reasoning; `text` is empty if a token completes no character."""

    text: str
    tokens: int = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """More of the answer; `text` is empty if a token completes no character."""

    text: str
    tokens: int = 1


@dataclass(frozen=True, slots=True)
class Reclassified:
    """A mark closed reasoning that no mark had opened: the whole answer so far was reasoning.

    A generation changes its earlier events accordingly, so this event is for readers that have already seen them.
    """


@dataclass(frozen=True, slots=True)
class Notice(Message):
    """A notice about the reply; its text has the key `notice_` + `key`, as in notice_budget_spent."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a reply that ended normally. The generation, not the engine, fills in `usage`."""

    why: FinishReason
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class Failed(Message):
    """The last event of a reply that failed, with the reason and remedy. The generation, not the engine, fills in `usage`."""

    usage: Usage = field(default_factory=Usage)


Event = Queued | Prefilling | Reasoning | Answer | Reclassified | Notice | Finished | Failed
LAST = (Finished, Failed)
"""The classes of the last event; every reply has exactly one."""


def as_reasoning(events: Iterable[Event]) -> Iterator[Event]:
    """`events` with their answer as reasoning, without the reply's leading line breaks, which belong to its marks."""
    begun = False
    for event in events:
        if isinstance(event, Answer):
            event = Reasoning(event.text if begun else event.text.lstrip("\r\n"), event.tokens)
        begun = begun or (isinstance(event, Reasoning) and bool(event.text))
        yield event


def usage_value(usage: Usage) -> Json:
    """Counts and seconds, including the derived ones."""
    derived = {"completion_tokens": usage.completion_tokens, "tokens_per_second": usage.tokens_per_second}
    return {**asdict(usage), **derived}


def notices_value(notices: Sequence[Notice]) -> list[Json]:
    return [{"key": notice.key, "values": notice.values} for notice in notices]


def failure_value(key: str, values: Mapping[str, str | int | float]) -> Json:
    """A failure, whose text the browser shows in its own language."""
    return {"key": key, "values": dict(values)}


def alert_value(error: MagistralUIError) -> Json:
    return failure_value(error.message.key, error.message.values)
