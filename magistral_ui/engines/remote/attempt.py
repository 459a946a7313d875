"""The state of one request of a reply, and the phases that a reply goes through; it sends nothing itself."""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from magistral_ui.chat.reasoning import ReasoningPiece
from magistral_ui.engines.remote.chunks import Chunk
from magistral_ui.engines.remote.reasoning_stream import ReplyReader
from magistral_ui.engines.remote.sse import DONE, PayloadReader, StreamBroken

TOOL_CALLS = frozenset({"tool_calls", "tool_call", "function_call", "tool_use"})
"""Finish reasons that mean that the model waits for a tool."""
LENGTH_REASONS = frozenset({"length", "model_length", "max_length", "max_tokens", "max_output_tokens", "token_limit"})
CUT_REASONS = frozenset(
    {"error", "abort", "aborted", "cancelled", "timeout", "network_error", "insufficient_system_resource"}
)
FILTER_REASONS = frozenset(
    {"content_filter", "content_filtered", "safety", "recitation", "prohibited_content", "blocklist", "sensitive"}
)


class Phase(Enum):
    """The phases of a reply, in order."""

    REASONING = auto()
    """Its reasoning may still have to be closed. Every reply starts here, even one that turns out to have no reasoning."""
    CLOSING = auto()
    """Its reasoning has to end: this stream is abandoned, and another request asks for the answer."""
    ANSWERING = auto()
    """Its answer has begun or was requested: there is nothing left to close."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What determines the next phase."""

    closable: bool = True
    """Whether the server can resume a reply whose reasoning is closed."""
    answering: bool = False
    """Whether the answer has begun, or the model has closed its reasoning."""
    answer_wanted: bool = False
    """Whether the visitor wants the answer now, and there is reasoning to answer from."""
    budget_spent: bool = False
    looping: bool = False


def next_phase(phase: Phase, progress: Progress) -> tuple[Phase, str | None]:
    """The next phase, and if the reasoning has to end, the key of the notice that says why."""
    if phase is not Phase.REASONING or not progress.closable:
        return phase, None
    if progress.answering:
        return Phase.ANSWERING, None
    if progress.answer_wanted:
        return Phase.CLOSING, "answered_now"
    if progress.budget_spent:
        return Phase.CLOSING, "budget_spent"
    if progress.looping:
        return Phase.CLOSING, "loop_broken"
    return phase, None


@dataclass(slots=True)
class Attempt:
    """One request, and what its stream has brought so far."""

    body: dict[str, Any] = field(default_factory=dict)
    """The request as it is sent; empty until it is composed."""
    reader: ReplyReader | None = None
    wrote: bool = False
    """Whether it has contributed text to the reply, so that it must not be sent again."""
    finish: str | None = None
    """`stop` or `length`, once the server has ended the reply."""
    done: bool = False
    """Whether the end mark has arrived."""
    usage: Chunk = field(default_factory=Chunk)
    """The last chunk that reported usage."""
    _payloads: PayloadReader = field(default_factory=PayloadReader)
    _is_completion: bool = False
    """Whether any chunk was part of a chat completion."""
    _foreign: bool = False
    """Whether any chunk was meant for another kind of client."""
    _foreign_message: str = ""
    _called_tool: bool = False
    _ended_for_tool: bool = False

    def payloads(self, received: bytes) -> list[bytes]:
        """The payloads that `received` completes, up to the end mark."""
        return self._before_done(self._payloads.feed(received))

    def last_payloads(self) -> list[bytes]:
        """The payloads that the end of the stream completes."""
        return [] if self.done else self._before_done(self._payloads.finish())

    def _before_done(self, payloads: list[bytes]) -> list[bytes]:
        if DONE not in payloads:
            return payloads
        self.done = True
        return payloads[: payloads.index(DONE)]

    def take(self, chunk: Chunk, pieces: list[ReasoningPiece]) -> None:
        """Add one more chunk's text to `pieces`. Raises StreamBroken afterwards if its finish reason is a failure."""
        assert self.reader is not None
        self._is_completion = self._is_completion or not chunk.silent
        self._foreign = self._foreign or chunk.foreign
        self._foreign_message = self._foreign_message or (chunk.message if chunk.foreign else "")
        self._called_tool = self._called_tool or chunk.calls_tool
        self.usage = chunk if chunk.completion_tokens is not None else self.usage
        pieces += self.reader.feed(chunk)
        if chunk.finish_reason is not None:
            self.finish = finish_of(chunk.finish_reason)
            self._ended_for_tool = chunk.finish_reason in TOOL_CALLS

    def rest(self) -> list[ReasoningPiece]:
        """What was held back, now that the stream has ended. Raises StreamBroken if the reply is incomplete."""
        assert self.reader is not None
        if self.finish is None and self._foreign_message and not self._is_completion:
            raise StreamBroken("remote_error", detail=self._foreign_message)
        malformed = not self._is_completion and (self._payloads.foreign_bytes > 0 or self._foreign)
        if self.finish is None and (malformed or not self.done):
            raise StreamBroken("remote_malformed" if malformed else "remote_cut")
        return [*self.reader.finish(cut=self.finish == "length"), *self.reader.reconcile_usage(self.usage)]

    def end(self, answer: str) -> None:
        """Mark the reply as complete, with `answer`. Raises StreamBroken if the model called a tool instead of answering."""
        # A call that an answer follows is fine: some servers report the tools that they have called themselves.
        calls = self._called_tool + self._ended_for_tool
        if calls == 2 or (calls and not answer.strip()):
            raise StreamBroken("remote_called_tool")
        self.finish = self.finish or "stop"


def finish_of(reason: str) -> str:
    """`stop` or `length`. Raises StreamBroken for a reason that means that the reply is incomplete."""
    reason = reason.lower()
    if reason in LENGTH_REASONS:
        return "length"
    if reason in CUT_REASONS or reason in FILTER_REASONS:
        raise StreamBroken("remote_filtered" if reason in FILTER_REASONS else "remote_cut")
    return "stop"
