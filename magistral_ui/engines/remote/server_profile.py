"""What is known about a server after detection, and what its refusals reveal; it sends nothing."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from magistral_ui.chat.events import Notice, Usage
from magistral_ui.chat.prompt import Resume
from magistral_ui.chat.sampling import Effort, SamplingParams
from magistral_ui.engines.base import ModelInfo
from magistral_ui.engines.remote.dialects import Dialect
from magistral_ui.engines.remote.error_body import MAX_TOKENS_FIELDS, ServerRefusal
from magistral_ui.engines.remote.reasoning_stream import ReplyReader
from magistral_ui.models.cards import ModelCard
from magistral_ui.models.image_grid import ImageGrid

FULL_CONTEXT_MARGIN = 64
"""Tokens below the limit at which a context counts as full, since usage is partly estimated."""


@dataclass(frozen=True, slots=True)
class ServerProfile:
    """One server and the model that is requested from it."""

    dialect: Dialect
    card: ModelCard
    model: str
    """The name used in requests."""
    info: ModelInfo
    context_known: bool = False
    """Whether the server has reported its context length; otherwise it is the model card's."""
    max_output_tokens: int | None = None
    """The most tokens that the server writes, however short the prompt; None if it has not said."""
    needs_max_tokens: bool = False
    """Whether its replies end early unless a request contains `max_tokens`."""
    loaded: bool = True
    """Whether the model is loaded; until then, a router says little about it."""
    template_known: bool = True
    """Whether its chat template has been examined."""
    image_grid: ImageGrid | None = None
    """To which images are scaled before they are sent; None if it is not known how the model divides them."""
    counts_images: bool = False
    """Whether the server has confirmed what images cost."""
    facts_path: str = ""
    """Path where the server describes its models."""
    fingerprint: str = ""
    """A digest of what the server says about itself; if it changes, the server has changed."""


def reader_for(profile: ServerProfile, resume: Resume | None, *, by_tokens: bool = False) -> ReplyReader:
    """A reader that continues where `resume` ends; with `by_tokens`, open reasoning continues as text."""
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
    """Notices to show about a request that is repeated with changes."""
    max_tokens: int | None = None
    """The most tokens that this reply may have; None if the server named no number."""


def chosen_fields(params: SamplingParams, profile: ServerProfile) -> frozenset[str]:
    """The fields of a request whose values the visitor chose; all others are defaults and may be left out.

    A seed is drawn for every reply, so it does not count as chosen.
    """
    own, room = profile.card.sampling, profile.info.context_length
    chosen = {
        field
        for name, field in profile.dialect.fields.items()
        if name not in ("seed", "max_tokens") and getattr(params, name) != getattr(own, name)
    }
    if chose_max_tokens(params, own, room):
        chosen.add(profile.dialect.fields.get("max_tokens", ""))
    return frozenset(chosen)


def chose_max_tokens(params: SamplingParams, own: SamplingParams, room: int) -> bool:
    """Whether the visitor chose the length of the reply: the page lowers the model's default to what fits."""
    return params.max_tokens not in (own.max_tokens, min(own.max_tokens, room))


def updated_profile(
    profile: ServerProfile, refusal: ServerRefusal, sent: Mapping[str, Any], chosen: frozenset[str]
) -> ProfileUpdate | None:
    """The profile after a refusal; None if the request cannot be repeated without what was refused."""
    if refusal.too_long:
        return None
    if refusal.reply_bounded:
        return _lower_max_tokens(profile, refusal, sent, chosen)
    if not refusal.fields:
        return None
    if refusal.replacement and len(refusal.fields) == 1:
        return _rename_field(profile, refusal.fields[0], refusal.replacement)
    if refusal.fields == (profile.dialect.effort,) and (efforts := _other_efforts(profile.dialect, refusal, sent)):
        return ProfileUpdate(replace(profile, dialect=replace(profile.dialect, efforts=efforts)))
    dropped = [name for name in refusal.fields if name not in chosen]
    if refusal.either:
        dropped = dropped[-1:]
    elif len(dropped) < len(refusal.fields):
        return None
    dialect = without_fields(profile.dialect, dropped)
    if dialect == profile.dialect:
        return None
    names = ", ".join(dropped)
    return ProfileUpdate(_with_dialect(profile, dialect), (Notice("remote_left_out", {"names": names}),))


def learn_refusal(
    known: ServerProfile, refusal: ServerRefusal, sent: Mapping[str, Any], chosen: frozenset[str]
) -> ServerProfile:
    """`known` after the same refusal: the engine's own profile, which another reply may have changed since."""
    update = updated_profile(known, refusal, sent, chosen)
    return update.profile if update else known


def learn_early_end(known: ServerProfile, sent: Mapping[str, Any], usage: Usage) -> ServerProfile:
    """`known` after a reply that ended at a length: from now on, `max_tokens` is sent if this was because it was missing."""
    was_sent = any(name in sent for name in MAX_TOKENS_FIELDS)
    return known if was_sent or _is_full(known, usage) else replace(known, needs_max_tokens=True)


def early_end_notice(known: ServerProfile, sent: Mapping[str, Any], usage: Usage) -> str:
    """The key of the notice for a reply that ended early: the context is full, or the server has a limit of its own."""
    requested = next((n for name in MAX_TOKENS_FIELDS if isinstance(n := sent.get(name), int)), None)
    by_server = requested == known.max_output_tokens if requested is not None else not _is_full(known, usage)
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


def without_fields(dialect: Dialect, fields: list[str]) -> Dialect:
    return replace(
        dialect,
        fields={name: field for name, field in dialect.fields.items() if field not in fields},
        always={name: value for name, value in dialect.always.items() if name not in fields},
        without_reasoning={name: value for name, value in dialect.without_reasoning.items() if name not in fields},
        effort="" if dialect.effort in fields else dialect.effort,
        stream_options={} if "stream_options" in fields else dialect.stream_options,
    )


def refused_choice(profile: ServerProfile, refusal: ServerRefusal, chosen: frozenset[str]) -> str:
    """The name of a parameter that the visitor chose and the server does not know; empty if there is none."""
    if not refusal.unknown:
        return ""
    return next(
        (name for name, field in profile.dialect.fields.items() if field in chosen and field in refusal.fields), ""
    )


def _lower_max_tokens(
    profile: ServerProfile, refusal: ServerRefusal, sent: Mapping[str, Any], chosen: frozenset[str]
) -> ProfileUpdate | None:
    """Request as many tokens as the server named, or no number at all, unless the visitor chose one."""
    field = next((name for name in MAX_TOKENS_FIELDS if name in sent), "")
    if not field:
        return None
    known = with_context(profile, refusal.limit)
    if refusal.max_tokens > 0:
        lowered = (Notice("remote_max_tokens_lowered", {"limit": refusal.max_tokens}),) if field in chosen else ()
        # What is left of the context depends on the prompt, but a limit of the server's own does not.
        known = known if refusal.tokens else replace(known, max_output_tokens=refusal.max_tokens)
        return ProfileUpdate(known, lowered, refusal.max_tokens)
    if field in chosen:
        return None
    dialect = replace(known.dialect, sends_default_max_tokens=False, must_fit=False)
    return ProfileUpdate(replace(known, dialect=dialect, needs_max_tokens=False))


def _other_efforts(dialect: Dialect, refusal: ServerRefusal, sent: Mapping[str, Any]) -> tuple[Effort, ...]:
    """The efforts that a refusal names in place of the one that was sent: a model may take only some of them."""
    detail, tried = refusal.detail, sent.get(dialect.effort)
    return tuple(each for each in dialect.efforts if each != tried and re.search(rf"['\"`]{each}['\"`]", detail))


def _rename_field(profile: ServerProfile, field: str, replacement: str) -> ProfileUpdate | None:
    dialect = profile.dialect
    names = [name for name, known in dialect.fields.items() if known == field]
    if not names or replacement == field:
        return None
    return ProfileUpdate(replace(profile, dialect=replace(dialect, fields={**dialect.fields, names[0]: replacement})))


def _with_dialect(profile: ServerProfile, dialect: Dialect) -> ServerProfile:
    return replace(profile, dialect=dialect, info=replace(profile.info, missing=dialect.missing()))
