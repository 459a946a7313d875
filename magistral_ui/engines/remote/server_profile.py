"""What is known of a server once it was asked, and what its refusals add to that; it sends nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from magistral_ui.chat.events import Notice, Usage
from magistral_ui.chat.prompt import Resume
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import ModelInfo
from magistral_ui.engines.remote.dialects import Dialect
from magistral_ui.engines.remote.error_body import REPLY_FIELDS, ServerRefusal
from magistral_ui.engines.remote.reasoning_stream import ReplyReader
from magistral_ui.models.cards import ModelCard

FULL_CONTEXT_MARGIN = 64
"""Tokens by which a context is called full: usages are estimates in part."""


@dataclass(frozen=True, slots=True)
class ServerProfile:
    """One server with the one model that is asked for."""

    dialect: Dialect
    card: ModelCard
    model: str
    """The name that requests bear."""
    info: ModelInfo
    context_known: bool = False
    """Whether the server has said how long its context is; otherwise it is the card's guess."""
    most_tokens: int | None = None
    """How much the server writes at most, however short the prompt; None where it has not said."""
    cuts_short: bool = False
    """Whether its replies end early where it is not told how long they may be."""
    loaded: bool = True
    """Whether the model is in the server's memory; before, a router knows little of it."""
    shaped: bool = True
    """Whether it is known what its template does."""
    facts_path: str = ""
    """Where the server tells more of its models than their names."""
    seen: str = ""
    """A digest of what it said of itself."""

    @property
    def marks(self) -> tuple[tuple[str, str], ...]:
        """The pairs of marks that may tell the reasoning in its text, the card's own first."""
        return self.card.textual_marks


def reader_for(profile: ServerProfile, resume: Resume | None, *, by_tokens: bool = False) -> ReplyReader:
    """A reader that goes on where `resume` ends; from tokens, open reasoning goes on as text."""
    echo = (resume.reasoning or "", resume.answer) if resume and profile.dialect.resume == "prefix" else ("", "")
    closed = (
        resume is not None and (resume.closed or resume.reasoning is None) and bool(resume.reasoning or resume.answer)
    )
    return ReplyReader(
        profile.marks,
        one_token_a_chunk=profile.dialect.one_token_a_chunk,
        channel="reasoning" if by_tokens else "answer" if closed else "before",
        fresh=resume is None or (closed and not resume.answer),
        echo=echo,
    )


@dataclass(frozen=True, slots=True)
class ProfileUpdate:
    """What one refusal taught: `profile` is the server as it is known now."""

    profile: ServerProfile
    notices: tuple[Notice, ...] = ()
    """What there is to tell of a request that goes out again otherwise than it was asked for."""
    most: int | None = None
    """Tokens that this one reply may have; None where the server has named no number."""


def chosen_fields(params: SamplingParams, profile: ServerProfile) -> frozenset[str]:
    """The fields of a request whose values a person chose: all others are only this program's own, and may be left out.

    A seed is drawn for every reply, so it counts as nobody's.
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
    """Whether somebody chose how long a reply may be: the page bounds the model's own value by what fits."""
    return params.max_tokens not in (own.max_tokens, min(own.max_tokens, room))


def updated_profile(
    profile: ServerProfile, refusal: ServerRefusal, sent: Mapping[str, Any], chosen: frozenset[str]
) -> ProfileUpdate | None:
    """The profile after a refusal, where the request can go out again without what was refused; None where it cannot."""
    if refusal.too_long:
        return None
    if refusal.reply_bounded:
        return _bounded(profile, refusal, sent, chosen)
    if not refusal.fields:
        return None
    if refusal.instead and len(refusal.fields) == 1:
        return _renamed(profile, refusal.fields[0], refusal.instead)
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
    """What one reply was taught, for the engine's own profile, which another reply may have changed meanwhile."""
    lesson = updated_profile(known, refusal, sent, chosen)
    return lesson.profile if lesson else known


def lengthened(known: ServerProfile, sent: Mapping[str, Any], usage: Usage) -> ServerProfile:
    """`known`, but that the server is told how long a reply may be: without, it has just ended one early."""
    told = any(name in sent for name in REPLY_FIELDS)
    return known if told or _is_full(known, usage) else replace(known, cuts_short=True)


def why_lowered(known: ServerProfile, sent: Mapping[str, Any], usage: Usage) -> str:
    """The notice for a reply that ended before its own limit: for want of room, or by a limit of the server's own."""
    told = next((n for name in REPLY_FIELDS if isinstance(n := sent.get(name), int)), None)
    by_server = told == known.most_tokens if told is not None else not _is_full(known, usage)
    return "remote_max_tokens_lowered" if by_server else "max_tokens_lowered"


def _is_full(known: ServerProfile, usage: Usage) -> bool:
    return (
        known.context_known
        and usage.prompt_tokens + usage.completion_tokens + FULL_CONTEXT_MARGIN >= known.info.context_length
    )


def with_context(profile: ServerProfile, limit: int) -> ServerProfile:
    """`profile` with the context that a refusal named, where that is less than was known."""
    if not 0 < limit < profile.info.context_length:
        return profile
    card, info = replace(profile.card, context_length=limit), replace(profile.info, context_length=limit)
    return replace(profile, card=card, info=info, context_known=True)


def without(dialect: Dialect, fields: list[str]) -> Dialect:
    """`dialect` without some fields of the request."""
    return replace(
        dialect,
        fields={name: field for name, field in dialect.fields.items() if field not in fields},
        always={name: value for name, value in dialect.always.items() if name not in fields},
        stream_options={} if "stream_options" in fields else dialect.stream_options,
    )


def refused_choice(profile: ServerProfile, refusal: ServerRefusal, chosen: frozenset[str]) -> str:
    """Our name of the parameter that a person chose and that the server does not know; empty where it is not that."""
    if not refusal.unknown:
        return ""
    return next(
        (name for name, field in profile.dialect.fields.items() if field in chosen and field in refusal.fields), ""
    )


def _bounded(
    profile: ServerProfile, refusal: ServerRefusal, sent: Mapping[str, Any], chosen: frozenset[str]
) -> ProfileUpdate | None:
    """With fewer tokens, as many as the server has said; or else with no number at all, where nobody chose one."""
    field = next((name for name in REPLY_FIELDS if name in sent), "")
    if not field:
        return None
    known = with_context(profile, refusal.limit)
    if refusal.most > 0:
        lowered = (Notice("remote_max_tokens_lowered", {"limit": refusal.most}),) if field in chosen else ()
        # Behind another prompt there is other room, but never more than a server writes at all.
        known = known if refusal.tokens else replace(known, most_tokens=refusal.most)
        return ProfileUpdate(known, lowered, refusal.most)
    if field in chosen:
        return None
    dialect = replace(known.dialect, bounds_replies=False, must_fit=False)
    return ProfileUpdate(replace(known, dialect=dialect, cuts_short=False))


def _renamed(profile: ServerProfile, field: str, instead: str) -> ProfileUpdate | None:
    """The field under the name that the server wants."""
    dialect = profile.dialect
    names = [name for name, known in dialect.fields.items() if known == field]
    if not names or instead == field:
        return None
    return ProfileUpdate(replace(profile, dialect=replace(dialect, fields={**dialect.fields, names[0]: instead})))


def _with_dialect(profile: ServerProfile, dialect: Dialect) -> ServerProfile:
    return replace(profile, dialect=dialect, info=replace(profile.info, missing=dialect.missing()))
