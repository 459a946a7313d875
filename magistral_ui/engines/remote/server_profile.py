"""What is known about a server after detection, and what its refusals add to that; it sends nothing."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from magistral_ui.chat.events import Notice, Usage
from magistral_ui.chat.prompt import Resume
from magistral_ui.chat.sampling import Effort, SamplingParams
from magistral_ui.engines.base import ModelInfo
from magistral_ui.engines.remote.dialects import Dialect
from magistral_ui.engines.remote.error_body import REPLY_FIELDS, ServerRefusal
from magistral_ui.engines.remote.reasoning_stream import ReplyReader
from magistral_ui.models.cards import ModelCard

FULL_CONTEXT_MARGIN = 64
"""Tokens short of the limit at which a context counts as full: usage is partly estimated."""


@dataclass(frozen=True, slots=True)
class ServerProfile:
    """One server with the one model that is requested from it."""

    dialect: Dialect
    card: ModelCard
    model: str
    """The name used in requests."""
    info: ModelInfo
    context_known: bool = False
    """Whether the server has reported its context length; otherwise it is the model card's."""
    most_tokens: int | None = None
    """How many tokens the server writes at most, however short the prompt; None where it has not said."""
    cuts_short: bool = False
    """Whether its replies end early unless a request says how long they may be."""
    loaded: bool = True
    """Whether the model is loaded; until then, a router knows little about it."""
    shaped: bool = True
    """Whether its chat template has been examined."""
    facts_path: str = ""
    """Path where the server describes its models."""
    seen: str = ""
    """A digest of what the server says about itself."""


def reader_for(profile: ServerProfile, resume: Resume | None, *, by_tokens: bool = False) -> ReplyReader:
    """A reader that continues where `resume` ends; `by_tokens`, open reasoning continues as text."""
    echo = (resume.reasoning or "", resume.answer) if resume and profile.dialect.resume == "prefix" else ("", "")
    closed = (
        resume is not None and (resume.closed or resume.reasoning is None) and bool(resume.reasoning or resume.answer)
    )
    return ReplyReader(
        profile.card.textual_marks,
        one_token_a_chunk=profile.dialect.one_token_a_chunk,
        channel="reasoning" if by_tokens else "answer" if closed else "before",
        fresh=resume is None or (closed and not resume.answer),
        echo=echo,
    )


@dataclass(frozen=True, slots=True)
class ProfileUpdate:
    """What one refusal revealed: `profile` is the server as it is now known."""

    profile: ServerProfile
    notices: tuple[Notice, ...] = ()
    """What to tell about a request that is repeated with changes."""
    max_tokens: int | None = None
    """Tokens that this one reply may have; None where the server named no number."""


def chosen_fields(params: SamplingParams, profile: ServerProfile) -> frozenset[str]:
    """The fields of a request whose values a person chose; all others are defaults, and may be left out.

    A seed is drawn for every reply, so it does not count as chosen.
    """
    own, room = profile.card.sampling, profile.info.context_length
    chosen = {
        field
        for name, field in profile.dialect.fields.items()
        if name not in ("seed", "max_tokens") and getattr(params, name) != getattr(own, name)
    }
    if chose_length(params, own, room):
        chosen.add(profile.dialect.fields.get("max_tokens", ""))
    return frozenset(chosen)


def chose_length(params: SamplingParams, own: SamplingParams, room: int) -> bool:
    """Whether a person chose the length of the reply: the page limits the model's default to what fits."""
    return params.max_tokens not in (own.max_tokens, min(own.max_tokens, room))


def updated_profile(
    profile: ServerProfile, refusal: ServerRefusal, sent: Mapping[str, Any], chosen: frozenset[str]
) -> ProfileUpdate | None:
    """The profile after a refusal, where the request can be repeated without what was refused; None where it cannot."""
    if refusal.too_long:
        return None
    if refusal.reply_bounded:
        return _bounded(profile, refusal, sent, chosen)
    if not refusal.fields:
        return None
    if refusal.instead and len(refusal.fields) == 1:
        return _renamed(profile, refusal.fields[0], refusal.instead)
    if refusal.fields == (profile.dialect.effort,) and (efforts := _other_efforts(profile.dialect, refusal, sent)):
        return ProfileUpdate(replace(profile, dialect=replace(profile.dialect, efforts=efforts)))
    doomed = [name for name in refusal.fields if name not in chosen]
    if refusal.either:
        doomed = doomed[-1:]
    elif len(doomed) < len(refusal.fields):
        return None
    dialect = without(profile.dialect, doomed)
    if dialect == profile.dialect:
        return None
    names = ", ".join(doomed)
    return ProfileUpdate(_with_dialect(profile, dialect), (Notice("remote_left_out", {"names": names}),))


def relearned(
    known: ServerProfile, refusal: ServerRefusal, sent: Mapping[str, Any], chosen: frozenset[str]
) -> ServerProfile:
    """The same update for the engine's own profile, which another reply may have changed since."""
    lesson = updated_profile(known, refusal, sent, chosen)
    return lesson.profile if lesson else known


def lengthened(known: ServerProfile, sent: Mapping[str, Any], usage: Usage) -> ServerProfile:
    """`known`, with lengths stated from now on, because the server has just ended a reply early without one."""
    told = any(name in sent for name in REPLY_FIELDS)
    return known if told or _is_full(known, usage) else replace(known, cuts_short=True)


def why_lowered(known: ServerProfile, sent: Mapping[str, Any], usage: Usage) -> str:
    """The notice for a reply that ended before its limit: the context is full, or the server has a limit of its own."""
    told = next((n for name in REPLY_FIELDS if isinstance(n := sent.get(name), int)), None)
    by_server = told == known.most_tokens if told is not None else not _is_full(known, usage)
    return "remote_max_tokens_lowered" if by_server else "max_tokens_lowered"


def _is_full(known: ServerProfile, usage: Usage) -> bool:
    return (
        known.context_known
        and usage.prompt_tokens + usage.completion_tokens + FULL_CONTEXT_MARGIN >= known.info.context_length
    )


def with_context(profile: ServerProfile, limit: int) -> ServerProfile:
    """`profile` with the context length that a refusal named, if it is smaller."""
    if not 0 < limit < profile.info.context_length:
        return profile
    card, info = replace(profile.card, context_length=limit), replace(profile.info, context_length=limit)
    return replace(profile, card=card, info=info, context_known=True)


def without(dialect: Dialect, fields: list[str]) -> Dialect:
    return replace(
        dialect,
        fields={name: field for name, field in dialect.fields.items() if field not in fields},
        always={name: value for name, value in dialect.always.items() if name not in fields},
        without_reasoning={name: value for name, value in dialect.without_reasoning.items() if name not in fields},
        effort="" if dialect.effort in fields else dialect.effort,
        stream_options={} if "stream_options" in fields else dialect.stream_options,
    )


def refused_choice(profile: ServerProfile, refusal: ServerRefusal, chosen: frozenset[str]) -> str:
    """The parameter, by our name, that a person chose and the server does not know; empty where there is none."""
    if not refusal.unknown:
        return ""
    return next(
        (name for name, field in profile.dialect.fields.items() if field in chosen and field in refusal.fields), ""
    )


def _bounded(
    profile: ServerProfile, refusal: ServerRefusal, sent: Mapping[str, Any], chosen: frozenset[str]
) -> ProfileUpdate | None:
    """Ask for as many tokens as the server named, or for no number at all, unless a person chose one."""
    field = next((name for name in REPLY_FIELDS if name in sent), "")
    if not field:
        return None
    known = with_context(profile, refusal.limit)
    if refusal.max_tokens > 0:
        lowered = (Notice("remote_max_tokens_lowered", {"limit": refusal.max_tokens}),) if field in chosen else ()
        # After another prompt the room differs, but a server's own limit stays.
        known = known if refusal.tokens else replace(known, most_tokens=refusal.max_tokens)
        return ProfileUpdate(known, lowered, refusal.max_tokens)
    if field in chosen:
        return None
    dialect = replace(known.dialect, bounds_replies=False, must_fit=False)
    return ProfileUpdate(replace(known, dialect=dialect, cuts_short=False))


def _other_efforts(dialect: Dialect, refusal: ServerRefusal, sent: Mapping[str, Any]) -> tuple[Effort, ...]:
    """The efforts that a refusal names in place of the one that was sent: a model may take only some of them."""
    said, tried = refusal.words, sent.get(dialect.effort)
    return tuple(each for each in dialect.efforts if each != tried and re.search(rf"['\"`]{each}['\"`]", said))


def _renamed(profile: ServerProfile, field: str, instead: str) -> ProfileUpdate | None:
    dialect = profile.dialect
    names = [name for name, known in dialect.fields.items() if known == field]
    if not names or instead == field:
        return None
    return ProfileUpdate(replace(profile, dialect=replace(dialect, fields={**dialect.fields, names[0]: instead})))


def _with_dialect(profile: ServerProfile, dialect: Dialect) -> ServerProfile:
    return replace(profile, dialect=dialect, info=replace(profile.info, missing=dialect.missing()))
