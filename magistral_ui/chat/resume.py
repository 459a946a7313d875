"""The partial reply that another one resumes: a reply that was cut, its reasoning alone, or edited reasoning; no engine yet.

A partial reply is itself a Reply, with what it had cost, and with the provenance of the reply that it was taken from.
"""

from dataclasses import replace

from magistral_ui.chat.conversation import Provenance, Reply
from magistral_ui.chat.events import Usage
from magistral_ui.chat.prompt import Resume

FINAL_FAILURES = frozenset({"remote_filtered", "remote_called_tool"})
"""Failures that would recur: the server does not let the reply continue, or the model waits for a tool."""


def may_continue(reply: Reply) -> bool:
    """Whether `reply` was cut or failed partway, and has text to resume from."""
    if reply.failure in FINAL_FAILURES:
        return False
    unfinished = reply.failure is not None or reply.finish_reason in ("length", "cancelled")
    return unfinished and bool(reply.reasoning or reply.answer.strip(" "))


def may_replay(reply: Reply) -> bool:
    """Whether everything that `reply` was written with is known."""
    return reply.params is not None and reply.params.seed is not None and reply.provenance is not None


def resume_of(partial: Reply | None) -> Resume | None:
    """What the model reads of a partial reply."""
    if partial is None:
        return None
    return Resume(partial.reasoning or None, partial.reasoning_closed, partial.answer)


def as_read(reply: Reply, *, textual_marks: bool) -> Reply:
    """A partial reply as the model reads it: mistral-common strips trailing spaces where it ends with plain text."""
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
    """The partial reply that `reply` itself resumed; None where it resumed none."""
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
