"""Reads what a program asks into a question for a session, or says what is wrong with it; it does not ask it."""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder, is_in_or_equal

from magistral_ui.chat.conversation import AssistantMessage, ChatMessage, Conversation, Reply, UserMessage
from magistral_ui.chat.images import ImageFile, read_image, read_images
from magistral_ui.chat.prompt import PromptChoices
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import Engine
from magistral_ui.errors import BadInput, TooManyImages
from magistral_ui.sessions.history.reply_state import RunningReply
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.session import Session
from magistral_ui.sessions.upload_cache import check_seen, read_files

MESSAGES_WORTH_OF_IMAGES = 10
"""Times the pictures of one message: how many a request may bring with all its turns."""
USER_FIELDS = {"role", "text", "files"}
ASSISTANT_FIELDS = {"role", "reasoning", "answer", "finish_reason", "usage", "seed", "notices", "model"}
"""All of a reply as it was returned may come back in a history; only reasoning and answer are read."""
TOOL_FIELDS = ("question", "pictures", "instructions", "parameters", "include_reasoning")


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to ask, checked but for what the session checks itself."""

    text: str
    images: Sequence[ImageFile]
    params: SamplingParams
    choices: PromptChoices
    earlier: Conversation = field(default_factory=Conversation)

    def ask(self, session: Session) -> RunningReply:
        """Begin the reply, in a session that nothing was said in yet."""
        if self.earlier.messages:
            session.load(self.earlier, {}, None)
        return session.say(self.text, self.images, self.params, self.choices)


def read_chat(
    engine: Engine,
    limits: Limits,
    message: object,
    parameters: object = None,
    history: object = None,
    instructions: object = None,
    keep_reasoning: object = None,
) -> Question:
    """What was sent to /chat; files are decoded, so not to be called in an event loop. Raises BadInput."""
    params = read_parameters(engine.card.sampling, parameters)
    choices = _choices(instructions, keep_reasoning)
    text, files = _message(message)
    turns = _history(history)
    limits.check_message(text, files)
    limits.check_message(choices.instructions, ())
    _refuse_more(turns, files, limits)
    earlier = _conversation(turns, lambda files: _seen(engine, _uploads(files, limits)))
    return Question(text, _seen(engine, _uploads(files, limits)), params, choices, earlier)


def read_tool(engine: Engine, limits: Limits, arguments: Mapping[str, object]) -> Question:
    """What was sent to the MCP tool; like `read_chat`."""
    for name in arguments:
        if name not in TOOL_FIELDS:
            raise BadInput("program_argument", name=name[:100], known=", ".join(TOOL_FIELDS))
    question, images = arguments.get("question"), arguments.get("pictures") or []
    if not isinstance(question, str):
        raise BadInput("program_text", name="question")
    if not isinstance(arguments.get("include_reasoning", True), bool):
        raise BadInput("program_choice", name="include_reasoning")
    if not isinstance(images, list):
        raise BadInput("program_pictures")
    params = read_parameters(engine.card.sampling, arguments.get("parameters"))
    choices = _choices(arguments.get("instructions"), None)
    limits.check_message(question, images)
    limits.check_message(choices.instructions, ())
    shown = read_images(enumerate(images, 1), lambda sent: _image(sent[1], sent[0], limits))
    return Question(question, _seen(engine, shown), params, choices)


def images_in(message: object, history: object) -> int:
    """How many pictures a call of /chat brings, as far as it is one."""
    turns = [message, *(history if isinstance(history, list) else ())]
    files = [turn.get("files") for turn in turns if isinstance(turn, dict)]
    return sum(len(each) for each in files if isinstance(each, list))


def read_parameters(defaults: SamplingParams, parameters: object) -> SamplingParams:
    """`defaults` with the given parameters laid over them; BadInput for anything but names and numbers."""
    if parameters is None:
        return defaults
    if not isinstance(parameters, dict):
        raise BadInput("bad_parameters")
    return defaults.changed(parameters)


def _choices(instructions: object, keep_reasoning: object) -> PromptChoices:
    if not isinstance(instructions, str | None):
        raise BadInput("program_text", name="instructions")
    if not isinstance(keep_reasoning, bool | None):
        raise BadInput("program_choice", name="keep_reasoning")
    return PromptChoices(instructions=instructions or "", keep_reasoning=keep_reasoning is not False)


def _message(message: object) -> tuple[str, list[Any]]:
    """Text and files of `{"text": …, "files": […]}`, or of a bare text."""
    if isinstance(message, str):
        return message, []
    if not isinstance(message, dict) or not set(message) <= {"text", "files"}:
        raise BadInput("bad_message")
    text, files = message.get("text") or "", message.get("files") or []
    if not isinstance(text, str) or not isinstance(files, list):
        raise BadInput("bad_message")
    return text, files


def _history(history: object) -> list[dict[str, Any]]:
    """Turns of known shape, each with its role, a user's and an assistant's by turns."""
    if history is None:
        return []
    if not isinstance(history, list) or not all(isinstance(turn, dict) for turn in history):
        raise BadInput("program_history")
    for turn in history:
        role = turn.get("role")
        if role not in ("user", "assistant"):
            raise BadInput("program_history_role", role=str(role)[:40])
        if not set(turn) <= (USER_FIELDS if role == "user" else ASSISTANT_FIELDS):
            raise BadInput("program_history")
        if not all(isinstance(each, str) for each in _texts(turn)) or not isinstance(_files(turn), list):
            raise BadInput("program_history")
        if not any(each.strip() for each in _texts(turn)) and not _files(turn):
            raise BadInput("program_history_empty")
    roles = [turn["role"] for turn in history]
    if roles != ["user", "assistant"] * (len(roles) // 2):
        raise BadInput("program_history_order")
    return history


def _texts(turn: dict[str, Any]) -> list[Any]:
    names = ("text",) if turn["role"] == "user" else ("reasoning", "answer")
    return [turn.get(name) or "" for name in names]


def _files(turn: dict[str, Any]) -> Any:
    return turn.get("files") or []


def _conversation(turns: list[dict[str, Any]], images: Callable[[list[Any]], Sequence[ImageFile]]) -> Conversation:
    """The conversation that a history tells, made in one go: growing it turn by turn copies it each time."""
    messages: dict[int, ChatMessage] = {}
    for id, turn in enumerate(turns, 1):
        texts = _texts(turn)
        if turn["role"] == "user":
            messages[id] = UserMessage(id, id - 1 or None, texts[0], tuple(images(_files(turn))))
        else:
            messages[id] = AssistantMessage(id, id - 1, Reply(reasoning=texts[0], answer=texts[1]))
    return Conversation(messages, {message.parent: id for id, message in messages.items()}, len(messages))


def _refuse_more(turns: list[dict[str, Any]], files: list[Any], limits: Limits) -> None:
    """What a history may bring in all; told before any picture of it is decoded."""
    if len(turns) >= limits.messages:
        raise BadInput("program_history_long", count=len(turns), limit=limits.messages - 1)
    for turn in turns:
        if turn["role"] == "user":
            limits.check_message(_texts(turn)[0], _files(turn))
    length = sum(len(each) for turn in turns for each in _texts(turn))
    if length > limits.conversation_length:
        raise BadInput("program_history_text", count=length, limit=limits.conversation_length)
    count, most = len(files) + sum(len(_files(turn)) for turn in turns), MESSAGES_WORTH_OF_IMAGES * limits.pictures
    if count > most:
        raise TooManyImages(count=count, limit=most)


def _seen(engine: Engine, images: list[ImageFile]) -> list[ImageFile]:
    check_seen(engine.card, images)
    return images


def _uploads(files: list[Any], limits: Limits) -> list[ImageFile]:
    return read_files([_uploaded(file) for file in files], limits)


def _uploaded(file: object) -> str:
    """The path of an upload. Only Gradio's own upload folder is read, whatever path a client writes."""
    path = file.get("path") if isinstance(file, dict) else file
    if not isinstance(file, dict) or not isinstance(path, str) or not _is_upload(path):
        raise BadInput("program_file")
    return path


def _is_upload(path: str) -> bool:
    if "\0" in path or len(path) > 1_000:  # no system has a name for these
        return False
    return is_in_or_equal(path, get_upload_folder()) and Path(path).is_file()


def _image(sent: object, number: int, limits: Limits) -> ImageFile:
    """A picture from a data URL or base64; it is called by its number."""
    if not isinstance(sent, str):
        raise BadInput("program_pictures")
    _, comma, data = sent.partition(",") if sent.startswith("data:") else ("", ",", sent)
    try:
        decoded = base64.b64decode("".join(data.split()), validate=True)
    except (ValueError, binascii.Error) as error:
        raise BadInput("program_pictures") from error
    if not comma or not decoded:
        raise BadInput("program_pictures")
    return read_image(decoded, str(number), max_bytes=limits.picture_bytes, max_pixels=limits.picture_pixels)
