"""What programs send and receive, as pydantic models: they check it, and the published schemas are generated from them."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError

from magistral_ui.chat.events import FinishReason
from magistral_ui.chat.sampling import PARAMETERS
from magistral_ui.errors import BadInput
from magistral_ui.i18n.texts import text

SENTENCES = {
    "message": "bad_message",
    "parameters": "bad_parameters",
    "history": "program_history",
    "instructions": "program_text",
    "keep_reasoning": "program_choice",
    "question": "program_text",
    "pictures": "program_pictures",
    "include_reasoning": "program_choice",
}
"""For each argument, the key of the error that says what it must be."""


class UsageValue(BaseModel):
    """What a reply cost."""

    prompt_tokens: int
    prompt_estimated: bool = Field(description="whether prompt_tokens is an estimate from the prompt's length")
    reused_tokens: int
    reasoning_tokens: int
    answer_tokens: int
    completion_tokens: int
    first_token_seconds: float
    reasoning_seconds: float
    total_seconds: float
    tokens_per_second: float


class NoticeValue(BaseModel):
    """Something to tell about a reply."""

    key: str
    values: dict[str, str | int | float]


class GrowingReply(BaseModel):
    """A reply that may still be growing."""

    reasoning: str
    answer: str = Field(description="Markdown, with LaTeX")
    finish_reason: FinishReason | None = Field(description="null while the reply grows")
    usage: UsageValue
    seed: int = Field(description="the same request with this seed gives the same reply")
    notices: list[NoticeValue]
    model: str


class FinishedReply(GrowingReply):
    """A reply that has ended."""

    finish_reason: FinishReason


class SamplingSchema:
    """Describes the sampling parameters; SamplingParams checks them."""

    @classmethod
    def __get_pydantic_json_schema__(cls, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        properties = {
            name: {**each.json_schema(), "description": text(f"parameter_{name}_help")}
            for name, each in PARAMETERS.items()
        }
        return {"type": "object", "properties": properties}


class Sent(BaseModel):
    """Part of a request. Nothing is converted to another type, null counts as left out, and unknown names are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, sent: Any) -> Any:
        if not isinstance(sent, dict):
            return sent
        # pydantic would make an error of every unknown name, and there may be millions.
        unknown = next((name for name in sent if name not in cls.model_fields), None)
        if unknown is not None:
            raise PydanticCustomError("unknown_name", "an unknown name", {"name": unknown})
        return {name: value for name, value in sent.items() if value is not None}


FILE_SCHEMA = {
    "title": "FileData",
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "meta": {"type": "object", "properties": {"_type": {"const": "gradio.FileData"}}},
    },
    "required": ["path"],
}
Files = list[Annotated[Any, WithJsonSchema(FILE_SCHEMA)]]
"""Each file is checked when it is read."""
Parameters = Annotated[dict[str, Any], SamplingSchema]
PARAMETERS_HELP = "Sampling settings; those left out keep the model's defaults"


class TextWithFiles(Sent):
    """A message."""

    text: str = ""
    files: Files = []

    @property
    def content(self) -> str:
        return self.text


class UserMessageIn(TextWithFiles):
    """What was asked before."""

    role: Literal["user"]


class AssistantMessageIn(Sent):
    """What was answered before. A reply may come back as it was returned; only its texts are read."""

    role: Literal["assistant"]
    answer: str = ""
    reasoning: str = ""
    files: ClassVar[Files] = []

    @model_validator(mode="before")
    @classmethod
    def _only_texts(cls, sent: Any) -> Any:
        unread = GrowingReply.model_fields.keys() - cls.model_fields.keys()
        return {name: value for name, value in sent.items() if name not in unread} if isinstance(sent, dict) else sent

    @property
    def content(self) -> str:
        return self.reasoning + self.answer


def _as_text(sent: Any) -> Any:
    return {"text": sent} if isinstance(sent, str) else sent


def _check_turns(turns: list[UserMessageIn | AssistantMessageIn]) -> list[UserMessageIn | AssistantMessageIn]:
    if any(not turn.files and not turn.content.strip() for turn in turns):
        raise PydanticCustomError("program_history_empty", "an empty turn")
    if [turn.role for turn in turns] != ["user", "assistant"] * (len(turns) // 2):
        raise PydanticCustomError("program_history_order", "not by turns")
    return turns


class ChatRequest(Sent):
    """Ask the model; nothing of it is kept afterwards. Streams the reply as it grows, reasoning and answer apart."""

    message: Annotated[TextWithFiles, BeforeValidator(_as_text, json_schema_input_type=str | TextWithFiles)] = Field(
        description="The question: text, or text with images"
    )
    parameters: Parameters = Field({}, description=PARAMETERS_HELP)
    history: Annotated[
        list[Annotated[UserMessageIn | AssistantMessageIn, Field(discriminator="role")]],
        Field(fail_fast=True),
        AfterValidator(_check_turns),
    ] = Field([], description="Earlier turns, oldest first, user and assistant alternating")
    instructions: str = Field("", description="Added to the model's own system prompt, which tells it to think")
    keep_reasoning: bool = Field(True, description="Whether the model reads the reasoning in the history")

    @property
    def image_count(self) -> int:
        return len(self.message.files) + sum(len(turn.files) for turn in self.history)


class ToolRequest(Sent):
    """Ask Magistral, a model that reasons step by step before it answers; it can look at images. It remembers nothing
    between calls and cannot reach the internet, files or tools, so put everything it needs into the question. It thinks for
    seconds to minutes."""

    question: str = Field(description="The whole question, with all that is needed to answer it")
    pictures: list[str] = Field(
        [],
        fail_fast=True,
        description="Images that the question is about, each as a data URL or in base64: "
        "PNG, JPEG, WebP, GIF, AVIF, BMP or HEIC",
    )
    instructions: str = Field("", description="How to answer, such as the language, the length or a role")
    parameters: Parameters = Field({}, description=PARAMETERS_HELP, json_schema_extra={"additionalProperties": False})
    include_reasoning: bool = Field(
        True, description="Whether to return the reasoning too; false keeps the result short"
    )


def description_of(kind: type[Sent]) -> str:
    return " ".join((kind.__doc__ or "").split())


def chat_schema(name: str) -> JsonSchemaValue:
    """One argument of /chat, as Gradio describes it."""
    whole = ChatRequest.model_json_schema()
    for each in whole["$defs"].values():
        del each["additionalProperties"]  # Gradio does not support it
    found = whole["properties"][name]
    # Gradio shows an argument's description under another name than a result's.
    return {**found, "additional_description": found["description"], "$defs": whole["$defs"]}


Request = TypeVar("Request", ChatRequest, ToolRequest)


def read_request(kind: type[Request], sent: Mapping[str, object]) -> Request:
    """The arguments that were sent. Raises BadInput for the first one that cannot be used."""
    try:
        return kind.model_validate(sent)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False)[0], kind) from None


def _refusal(error: ErrorDetails, kind: type[Sent]) -> BadInput:
    fault = error["type"]
    if not error["loc"]:
        return BadInput("program_argument", name=error["ctx"]["name"][:100], known=", ".join(kind.model_fields))
    if fault.startswith("program_"):
        return BadInput(fault)
    if fault.startswith("union_tag"):
        return BadInput("program_history_role", role=str(error["input"].get("role"))[:40])
    name = str(error["loc"][0])
    return BadInput(SENTENCES[name], name=name)
