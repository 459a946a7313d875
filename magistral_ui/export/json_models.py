"""The format of an exported file as pydantic models, which check each value; docs/export.schema.json is generated from them."""

import json
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import Annotated, Any, Literal, Union, get_args, get_type_hints

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    SkipValidation,
    ValidationInfo,
    WithJsonSchema,
    create_model,
)
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema, PydanticCustomError
from pydantic_core.core_schema import no_info_after_validator_function

from magistral_ui.chat.events import FinishReason, Usage
from magistral_ui.chat.images import BROWSER_TYPES, MAX_BYTES, MAX_PIXELS
from magistral_ui.chat.reply import Provenance, Reply
from magistral_ui.chat.sampling import PARAMETERS, SamplingParams
from magistral_ui.errors import BadInput

FORMAT_VERSION = 1
"""Incremented when a reader of the previous version would misunderstand a file, but not for a new field that can be ignored."""
MAX_ID = 10**9
"""New messages get ids above the file's last one, so the maximum leaves some unused."""
MAX_JSON_INTEGER = 2**53 - 1
"""The largest integer that JSON in a browser represents exactly."""
MAX_NOTICES = 50
"""Of one reply."""
DIGEST = "^[0-9a-f]{64}$"


@dataclass(frozen=True, slots=True)
class ImportLimits:
    """How much one file may contain; a shared page allows less."""

    bytes: int = 256 * 2**20
    conversations: int = 1_000
    messages: int = 50_000
    """Messages in all conversations together."""
    text_length: int = 500_000
    """Characters of one user message or of instructions."""
    reply_length: int = 2_000_000
    """Characters of one reasoning or answer: the longest reply has 131,072 tokens."""
    name_length: int = 1_000
    """Characters of a title, or of the name of a file or model."""
    images: int = 100
    """Images in one message."""
    picture_bytes: int = MAX_BYTES
    picture_pixels: int = MAX_PIXELS
    all_pixels: int = 6 * 10**9
    """Pixels of all images together; decoding takes about 10 ns a pixel."""


@dataclass(slots=True)
class ImportTotals:
    """How much of the limits the conversations read so far have used."""

    limits: ImportLimits
    messages: int = 0
    pixels: int = 0


def _check_length(value: Any, most: int) -> Any:
    if isinstance(value, str):
        value.encode("utf-8")  # raises ValueError for a lone surrogate, which JSON can express
    if isinstance(value, str | list) and len(value) > most:
        raise PydanticCustomError("too_much", "too long", {"count": len(value), "limit": most})
    return value


def _at_most(limit: str | int) -> BeforeValidator:
    """Bounds a string or list by a number, or by one of the ImportLimits, before its items are read."""
    if isinstance(limit, int):
        return BeforeValidator(lambda value: _check_length(value, limit))
    return BeforeValidator(lambda value, info: _check_length(value, getattr(info.context.limits, limit)))


def _count_messages(value: Any, info: ValidationInfo) -> Any:
    totals: ImportTotals = info.context  # type: ignore[assignment]  # given by import_json
    _check_length(value, totals.limits.messages - totals.messages)
    totals.messages += len(value) if isinstance(value, list) else 0
    return value


def _read_time(value: Any) -> datetime:
    time = datetime.fromisoformat(value.replace("Z", "+00:00")) if isinstance(value, str) else None
    if time is None or time.tzinfo is None:
        raise ValueError("not a time with its zone")
    try:
        return time.astimezone(timezone.utc)
    except OverflowError as error:
        raise ValueError("not a time in UTC") from error


def _check_exact(value: Any) -> Any:
    if isinstance(value, int) and abs(value) > MAX_JSON_INTEGER:
        raise ValueError("not kept exactly")
    return value


Id = Annotated[int, Field(ge=1, le=MAX_ID)]
Key = Annotated[str, Field(pattern="^[a-z][a-z0-9_]{0,59}$")]
Digest = Annotated[str, Field(pattern=DIGEST)]
Name = Annotated[str, _at_most("name_length")]
Text = Annotated[str, _at_most("text_length")]
ReplyText = Annotated[str, _at_most("reply_length")]
Time = Annotated[datetime, BeforeValidator(_read_time)]
SentenceValue = Annotated[str | int | float, BeforeValidator(_check_exact), _at_most("text_length")]
PLAIN_TYPES: dict[Any, Any] = {
    int: Annotated[int, Field(ge=0, le=MAX_JSON_INTEGER)],
    float: Annotated[float, Field(ge=0, le=MAX_JSON_INTEGER)],
    str: Text,
}


class PlainFields:
    """Reads a dataclass of plain values; a field missing in the file keeps its default."""

    @classmethod
    def __get_pydantic_core_schema__(cls, kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        types = {}
        for name, hint in get_type_hints(kind).items():
            own = [PLAIN_TYPES.get(each, each) for each in get_args(hint) or (hint,)]
            if kind is SamplingParams:  # it checks its bounds itself
                own[0] = Annotated[own[0], WithJsonSchema(PARAMETERS[name].json_schema())]
            types[name] = Union[tuple(own)]  # noqa: UP007
        stored: dict[str, Any] = {each.name: (types[each.name], each.default) for each in fields(kind)}
        model = create_model(kind.__name__, __base__=Entry, **stored)

        def build(values: BaseModel) -> object:
            try:
                return kind(**dict(values))
            except BadInput as error:
                raise ValueError(str(error)) from error

        return no_info_after_validator_function(build, handler.generate_schema(model))


class Entry(BaseModel):
    """A part of the file. No value is converted to another type, and unknown fields are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True)


class ReplyEntry(Entry):
    """What a model wrote, how it ended, and what it takes to reproduce it."""

    reasoning: ReplyText | None = None
    reasoning_closed: bool | None = Field(None, description="False if the reply ended in the middle of the reasoning.")
    answer: ReplyText | None = None
    finish_reason: FinishReason | None = Field(None, description="Null if the reply failed.")
    failure: Key | None = None
    failure_values: Annotated[dict[Text, SentenceValue], Field(fail_fast=True)] | None = None
    notices: Annotated[list[Key], Field(fail_fast=True), _at_most(MAX_NOTICES)] | None = None
    usage: Annotated[Usage, PlainFields] | None = None
    params: Annotated[SamplingParams, PlainFields] | None = None
    model: Name | None = None
    provenance: Annotated[Provenance, PlainFields] | None = Field(
        None, description="What it takes, with params, to reproduce the reply."
    )

    def reply(self) -> Reply:
        """The reply; what is null keeps its default."""
        given = {name: value for name, value in self if value is not None}
        return Reply(**{**given, "notices": tuple(self.notices or ())})


class ImageReference(Entry):
    """An image of a message, by the digest of its bytes."""

    digest: Digest
    name: Name | None = None


class UserEntry(Entry):
    """What a person said."""

    id: Id
    parent: Id | None
    role: Literal["user"]
    text: Text
    images: Annotated[list[ImageReference], Field(fail_fast=True), _at_most("images")] | None = Field(
        None, alias="pictures"
    )


class AssistantEntry(Entry):
    """A reply in its place in the tree."""

    id: Id
    parent: Id
    role: Literal["assistant"]
    keep_reasoning: bool | None = Field(
        None, description="Whether its reasoning stays in the context; null follows the conversation's setting."
    )
    reply: ReplyEntry


MessageEntry = Annotated[UserEntry | AssistantEntry, Field(discriminator="role")]


class ConversationEntry(Entry):
    """A conversation with all its branches."""

    title: Name | None = None
    created: Time | None = None
    updated: Time | None = None
    last_id: int = Field(
        ge=0, le=MAX_ID, description="The largest id ever given: the id of a deleted message is not given again."
    )
    messages: Annotated[list[MessageEntry], Field(fail_fast=True), BeforeValidator(_count_messages)] = Field(
        description="In the order of their ids, so a parent comes before its children."
    )
    chosen: Annotated[list[Id], Field(fail_fast=True), _at_most("messages")] = Field(
        description="Ids of the messages that are shown; at most one for each parent."
    )


class ImageEntry(Entry):
    """An image's bytes as they were sent."""

    media_type: str = Field(json_schema_extra={"enum": [*sorted(BROWSER_TYPES), "image/heif"]})
    data: str = Field(json_schema_extra={"contentEncoding": "base64"})


class ExportFile(Entry):
    """The whole file. Each image is checked when the first message refers to it."""

    model_config = ConfigDict(title=f"Conversations of Magistral UI, version {FORMAT_VERSION}")

    format: Literal["magistral-ui/conversation"]
    version: int = Field(ge=FORMAT_VERSION, le=FORMAT_VERSION)
    conversations: Annotated[list[ConversationEntry], Field(fail_fast=True), _at_most("conversations")]
    images: dict[SkipValidation[str], SkipValidation[ImageEntry]] = Field(
        {},
        alias="pictures",
        description="Every image once, by the hexadecimal SHA-256 of its bytes.",
        json_schema_extra={"propertyNames": {"pattern": DIGEST}},
    )


def schema() -> bytes:
    """docs/export.schema.json."""
    found = {"$schema": GenerateJsonSchema.schema_dialect, **ExportFile.model_json_schema()}
    return json.dumps(found, indent=2).encode() + b"\n"


if __name__ == "__main__":
    print(schema().decode(), end="")
