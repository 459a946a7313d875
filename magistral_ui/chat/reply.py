"""A reply: what a model wrote and where it comes from, how it grows from events, and the part of it that another one resumes.

A part of a reply is itself a Reply, with what it had cost, and with the provenance of the reply that it was taken from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from magistral_ui.chat.events import (
    Answer,
    Event,
    Failed,
    Finished,
    FinishReason,
    Notice,
    Prefilling,
    Queued,
    Reasoning,
    Reclassified,
    Usage,
)
from magistral_ui.chat.sampling import SamplingParams

FINAL_FAILURES = frozenset({"remote_filtered", "remote_called_tool"})
"""Failures that would recur: the server does not let the reply continue, or the model waits for a tool."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What it takes, together with a reply's parameters, to reproduce the reply. Every field is a plain value.

    A reply may resume a partial one: a reply that was continued, or answered again from its reasoning. The partial reply's
    text is then the first part of its own.
    """

    model: str = ""
    source: str = ""
    """Repository or folder name."""
    revision: str = ""
    precision: str = ""
    device: str = ""
    engine: str = ""
    """What ran the model, such as `transformers`."""
    instructions: str = ""
    system_prompt: str | None = None
    """The reasoning prompt used instead of the model's own, with literal marks; None: the model's own."""
    keep_reasoning: bool = True
    """Whether earlier reasoning was in the context, unless a message said otherwise."""
    prompt: str = ""
    """Digest of everything the model read; it tells whether the model would read the same again."""
    begun_reasoning: int = 0
    """Characters of reasoning that the reply resumed from."""
    begun_answer: int = 0
    """Characters of answer that it resumed from."""
    begun_closed: bool = False
    """Whether it resumed after the reasoning, with the answer."""
    edited: bool = False
    """Whether a person edited the reasoning that the reply resumed from."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model wrote, how it ended, and what is needed to reproduce it."""

    reasoning: str = ""
    answer: str = ""
    reasoning_closed: bool = True
    """False if the reply ended inside the reasoning."""
    finish_reason: FinishReason | None = None
    """None if it failed; `failure` then says why."""
    failure: str | None = None
    failure_values: Mapping[str, str | int | float] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    usage: Usage = field(default_factory=Usage)
    params: SamplingParams | None = None
    model: str = ""
    provenance: Provenance | None = None
    """None if unknown, as in a conversation from an older version."""


@dataclass(frozen=True, slots=True)
class ReplyOrigin:
    """How a reply came into the conversation: the id of its generation, and the notices about it."""

    generation: str
    notices: tuple[Notice, ...] = ()


@dataclass(slots=True)
class ReplyBuilder:
    """One reply while it grows; `feed` costs the same for the first and the last event. Usage is the generation's."""

    reasoning: list[str] = field(default_factory=list)
    answer: list[str] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    reasoned: bool = False
    closed: bool = False
    """Whether the reasoning is closed: by its mark, or because an answer without reasoning has begun."""
    answering: bool = False
    """Whether the answer has begun, with visible text."""
    queue_position: int | None = None
    retry_seconds: float = 0.0
    """When a busy server is asked again; 0.0 while none is waited for."""
    prefilling: Prefilling | None = None
    last: Finished | Failed | None = None

    def feed(self, event: Event) -> None:
        match event:
            case Reasoning(text):
                self.reasoning.append(text)
                self.reasoned = True
                self._writing()
            case Answer(text):
                self.answer.append(text)
                self.closed = self.closed or self.reasoned or bool(text.strip())
                self.answering = self.answering or bool(text.strip())
                self._writing()
            case Reclassified():
                self._reclassify()
            case Notice():
                self.notices.append(event)
            case Queued(position, seconds):
                self.queue_position, self.retry_seconds = position, seconds
            case Prefilling():
                self.prefilling, self.queue_position, self.retry_seconds = event, None, 0.0
            case Finished() | Failed():
                self.last = event
                self._writing()

    def _reclassify(self) -> None:
        """Turn the answer so far into reasoning, which is closed now."""
        text = "".join(self.answer)
        self.reasoning.append(text if any(self.reasoning) else text.lstrip("\r\n"))
        self.answer, self.answering, self.closed, self.reasoned = [], False, True, True

    def _writing(self) -> None:
        self.queue_position, self.prefilling, self.retry_seconds = None, None, 0.0

    def take_texts(self) -> tuple[str, str]:
        """The reasoning and answer since the last call; neither a later call nor `reply` returns them again."""
        texts = "".join(self.reasoning), "".join(self.answer)
        self.reasoning, self.answer = [], []
        return texts

    def reply(self, params: SamplingParams | None = None, model: str = "", before: Reply | None = None) -> Reply:
        """The reply so far; `before` is the partial reply that it continues."""
        reasoning = (before.reasoning if before else "") + "".join(self.reasoning)
        answer = (before.answer if before else "") + "".join(self.answer)
        failed = self.last if isinstance(self.last, Failed) else None
        usage = self.last.usage if self.last else Usage()
        return Reply(
            reasoning=reasoning,
            answer=answer,
            reasoning_closed=self.closed or not reasoning or bool(before and before.reasoning_closed),
            finish_reason=self.last.why if isinstance(self.last, Finished) else None,
            failure=failed.key if failed else None,
            failure_values=failed.values if failed else {},
            notices=tuple(notice.key for notice in self.notices),
            usage=before.usage.then(usage) if before else usage,
            params=params,
            model=model,
        )


def may_continue(reply: Reply) -> bool:
    """Whether `reply` was cut or failed partway, and has text to resume from."""
    if reply.failure in FINAL_FAILURES:
        return False
    unfinished = reply.failure is not None or reply.finish_reason in ("length", "cancelled")
    return unfinished and bool(reply.reasoning or reply.answer.strip(" "))


def may_replay(reply: Reply) -> bool:
    """Whether everything that `reply` was written with is known."""
    return reply.params is not None and reply.params.seed is not None and reply.provenance is not None


def as_read(reply: Reply, *, textual_marks: bool) -> Reply:
    """A partial reply as the model reads it: mistral-common strips trailing spaces if it ends with plain text."""
    if reply.reasoning and not textual_marks:
        return reply
    if reply.answer or reply.reasoning_closed:
        return replace(reply, answer=reply.answer.rstrip(" "))
    return replace(reply, reasoning=reply.reasoning.rstrip(" "))


def reasoning_of(reply: Reply) -> Reply:
    """A reply up to the end of its reasoning."""
    usage = _usage(reply, reply.usage.reasoning_tokens, 0)
    return Reply(reasoning=reply.reasoning, usage=usage, provenance=reply.provenance)


def with_reasoning(reply: Reply, reasoning: str, *, closed: bool) -> Reply:
    """A partial reply with `reasoning` instead of its own; if `closed`, the answer follows."""
    known = reply.provenance or Provenance()
    known = replace(known, edited=known.edited or reasoning != reply.reasoning)
    return Reply(reasoning=reasoning, reasoning_closed=closed, provenance=known)


def resumed_part(reply: Reply) -> Reply | None:
    """The partial reply that `reply` itself resumed; None if it resumed none."""
    source = reply.provenance
    if source is None or not (source.begun_reasoning or source.begun_answer):
        return None
    return Reply(
        reasoning=reply.reasoning[: source.begun_reasoning],
        answer=reply.answer[: source.begun_answer],
        reasoning_closed=source.begun_closed,
        provenance=source,
    )


def with_usage_share(partial: Reply, reply: Reply, tokens: int) -> Reply:
    """`partial` with the share of `reply`'s usage that its `tokens` account for."""
    reasoning_tokens = min(reply.usage.reasoning_tokens, tokens) if partial.answer else tokens
    return replace(partial, usage=_usage(reply, reasoning_tokens, tokens - reasoning_tokens))


def _usage(reply: Reply, reasoning_tokens: int, answer_tokens: int) -> Usage:
    """The usage of that many tokens of `reply`; times are proportional."""
    usage = reply.usage
    reasoning_seconds = usage.reasoning_seconds * _share(reasoning_tokens, usage.reasoning_tokens)
    answer_seconds = max(0.0, usage.total_seconds - usage.first_token_seconds - usage.reasoning_seconds)
    answer_seconds *= _share(answer_tokens, usage.answer_tokens)
    return Usage(
        reasoning_tokens=reasoning_tokens,
        answer_tokens=answer_tokens,
        first_token_seconds=usage.first_token_seconds,
        reasoning_seconds=reasoning_seconds,
        total_seconds=usage.first_token_seconds + reasoning_seconds + answer_seconds,
    )


def _share(part: int, whole: int) -> float:
    return min(1.0, part / whole) if whole else 0.0


def same_model(one: Provenance, other: Provenance) -> bool:
    """Whether equal requests give equal replies: the same weights, in the same precision, on the same kind of device."""
    facts = [(p.model, p.source, p.revision, p.precision, p.device, p.engine) for p in (one, other)]
    return facts[0] == facts[1]


def replay_notice(old: Reply, new: Reply) -> Notice | None:
    """The notice about `new`, which was to reproduce `old`; None if the visitor caused the difference by pressing a button."""
    if (new.reasoning, new.answer) == (old.reasoning, old.answer):
        return Notice("replay_same")
    by_hand = "cancelled" in (old.finish_reason, new.finish_reason) or "answered_now" in old.notices + new.notices
    if by_hand or new.failure or not (old.provenance and new.provenance):
        return None
    if not same_model(old.provenance, new.provenance):
        return Notice("replay_elsewhere")
    return Notice("replay_changed" if old.provenance.prompt != new.provenance.prompt else "replay_differs")
