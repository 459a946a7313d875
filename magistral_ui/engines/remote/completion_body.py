"""The body of one request: messages, and the parameters under the names that the server has for them; it sends nothing."""

from typing import Any

from magistral_ui.chat.prompt import Resume
from magistral_ui.chat.sampling import PARAMETERS, SamplingParams
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.remote.dialects import Dialect
from magistral_ui.engines.remote.image_urls import ImageUrls
from magistral_ui.engines.remote.messages import messages_of, resumed_fields
from magistral_ui.engines.remote.profile_updates import chose_length
from magistral_ui.engines.remote.server_profile import ServerProfile
from magistral_ui.errors import ParameterRefused

MAX_SERVER_SEED = 2**32 - 1
"""Seeds of the servers: below 32 bits, of which llama.cpp takes the last one as none."""


def body_of(
    request: GenerationRequest, profile: ServerProfile, urls: ImageUrls, resume: Resume | None, max_tokens: int
) -> dict[str, Any]:
    """The request as it is sent; only fields that the server knows, since some refuse any other."""
    dialect, prompt = profile.dialect, request.prompt
    body: dict[str, Any] = {"model": profile.model, **dialect.always}
    prompt = type(prompt)(prompt.system, prompt.turns, resume)
    body["messages"] = messages_of(prompt, dialect, profile.marks[0], urls)
    if resume is not None:
        body |= resumed_fields(resume, dialect)
    if dialect.stream_options:
        body["stream_options"] = dict(dialect.stream_options)
    for name, field in dialect.fields.items():
        value = getattr(request.params, name)
        if value is not None:
            body[field] = value
    if "max_tokens" in dialect.fields:
        body.pop(dialect.fields["max_tokens"])
        if says_length(request.params, profile):
            body[dialect.fields["max_tokens"]] = max(1, min(max_tokens, profile.most_tokens or max_tokens))
    if (seed := request.params.seed) is not None and "seed" in dialect.fields:
        body[dialect.fields["seed"]] = seed % MAX_SERVER_SEED
    return body


def says_length(params: SamplingParams, profile: ServerProfile) -> bool:
    """Whether the server is told how long the reply may be."""
    chose = chose_length(params, profile.card.sampling, profile.info.context_length)
    return profile.dialect.bounds_replies or profile.cuts_short or chose


def from_tokens(body: dict[str, Any], tokens: list[int]) -> dict[str, Any]:
    """The same request as a completion of `tokens`, whose text has the marks spelled out."""
    chat = ("messages", "continue_final_message", "add_generation_prompt")
    plain = {name: value for name, value in body.items() if name not in chat}
    return {**plain, "prompt": tokens, "skip_special_tokens": False}


def refuse_what_is_missing(params: SamplingParams, dialect: Dialect, server: str) -> None:
    """ParameterRefused for a parameter that was set and that this server would not heed."""
    for name, reason in dialect.missing().items():
        if name not in PARAMETERS or name == "seed":  # a seed is drawn for every reply, whether or not it is heeded
            continue
        if getattr(params, name) != PARAMETERS[name].default:
            raise ParameterRefused("parameter_not_supported", name=name, server=server, reason=reason)
