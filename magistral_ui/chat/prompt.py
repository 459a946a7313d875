"""The prompt before any chat template: system prompt, instructions, turns, and a reply to resume."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from magistral_ui.chat.conversation import AssistantMessage, Conversation, UserMessage
from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.reply import Reply
from magistral_ui.chat.sampling import Effort


@dataclass(frozen=True, slots=True)
class SystemPart:
    """A piece of the system prompt; `reasoning` pieces are wrapped in the model's reasoning marks."""

    text: str
    reasoning: bool = False


@dataclass(frozen=True, slots=True)
class UserTurn:
    """Images, then text: the order in which the model was trained to read them."""

    text: str
    images: tuple[ImageFile, ...] = ()
    message: int | None = None


def user_parts(turns: Sequence[UserTurn]) -> list[str | ImageFile]:
    """The single message that the model reads for consecutive user turns: adjacent texts are joined by a blank line.

    An image that follows only text is put first, as mistral-common does it.
    """
    parts: list[str | ImageFile] = []
    for turn in turns:
        parts += turn.images
        if turn.text and parts and isinstance(parts[-1], str):
            parts[-1] = f"{parts[-1]}\n\n{turn.text}"
        elif turn.text:
            parts.append(turn.text)
    if len(parts) > 1 and not isinstance(parts[-1], str) and all(isinstance(part, str) for part in parts[:-1]):
        parts = [parts[-1], *parts[:-1]]
    return parts


@dataclass(frozen=True, slots=True)
class AssistantTurn:
    """An earlier reply; `reasoning` None is left out of the context."""

    answer: str
    reasoning: str | None = None
    message: int | None = None
    left_out: str = ""
    """The reasoning that is left out: the model does not read it, but what it would cost can be measured."""


Turn = UserTurn | AssistantTurn


@dataclass(frozen=True, slots=True)
class Resume:
    """The part of a reply to resume: open reasoning is continued, closed reasoning is answered from."""

    reasoning: str | None
    closed: bool
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Everything that one reply depends on except the sampling parameters; ends with a user turn."""

    system: tuple[SystemPart, ...]
    turns: tuple[Turn, ...]
    resume: Resume | None = None
    effort: Effort | None = None
    """`none` if the model must not reason; other values only for models that read them; None: unspecified."""

    @property
    def images(self) -> tuple[ImageFile, ...]:
        return tuple(p for turn in self.turns if isinstance(turn, UserTurn) for p in turn.images)

    @property
    def digest(self) -> str:
        """A hash of what the model reads, independent of the messages' ids."""
        system = [[part.text, part.reasoning] for part in self.system]
        turns = [
            ["user", turn.text, [image.digest for image in turn.images]]
            if isinstance(turn, UserTurn)
            else ["assistant", turn.answer, turn.reasoning]
            for turn in self.turns
        ]
        resume = [self.resume.reasoning, self.resume.closed, self.resume.answer] if self.resume else None
        effort = [self.effort] if self.effort else []
        return hashlib.sha256(json.dumps([system, turns, resume, *effort]).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class PromptChoices:
    """What the visitor can choose about the prompt."""

    instructions: str = ""
    """Added to the model's reasoning prompt, since Magistral does not reason without that one."""
    system_prompt: str | None = None
    """Optionally, another reasoning prompt in place of the card's, with literal reasoning marks."""
    keep_reasoning: bool = True
    """Whether earlier reasoning stays in the context, unless a message says otherwise."""


HEADING = "Problem:\n\n"


def has_marks(text: str, marks: tuple[str, str]) -> bool:
    """Whether a system prompt shows the model both reasoning `marks` in order: without them, it does not reason."""
    begin = text.find(marks[0])
    return begin >= 0 and text.find(marks[1], begin) >= 0


def split_system_prompt(text: str, marks: tuple[str, str]) -> tuple[SystemPart, ...]:
    """`text` split at its first pair of literal `marks`, as the model cards' loaders do, less one trailing newline."""
    text = text.removesuffix("\n")
    before, begin, rest = text.partition(marks[0])
    thought, end, after = rest.partition(marks[1])
    if not (begin and end):
        return (SystemPart(text),) if text else ()
    parts = (SystemPart(before), SystemPart(thought, reasoning=True), SystemPart(after))
    return tuple(part for part in parts if part.text)


def with_instructions(system: tuple[SystemPart, ...], instructions: str) -> tuple[SystemPart, ...]:
    """`instructions` after the last part of the system prompt, separated by a blank line.

    The prompt of Magistral 1.0 ends with the heading of the problem: instructions go before it.
    """
    instructions = instructions.strip()
    if not instructions:
        return system
    if system and system[-1].text.endswith(HEADING):
        return (*system[:-1], SystemPart(f"{system[-1].text.removesuffix(HEADING)}{instructions}\n\n{HEADING}"))
    if system and not system[-1].reasoning:
        return (*system[:-1], SystemPart(f"{system[-1].text}\n\n{instructions}"))
    return (*system, SystemPart(instructions))


def compose(
    conversation: Conversation,
    system: tuple[SystemPart, ...],
    choices: PromptChoices,
    resume: Resume | None = None,
    effort: Effort | None = None,
) -> Prompt:
    """The prompt for a reply to the chosen branch of `conversation`, which must end with a user message.

    Two user messages follow each other if a reply was deleted or failed without text; an encoder joins them.
    """
    turns: list[Turn] = []
    for message in conversation.path():
        if isinstance(message, UserMessage):
            turns.append(UserTurn(message.text, message.images, message.id))
        elif message.reply.answer.strip() or message.reply.reasoning:
            turns.append(_earlier(message, choices.keep_reasoning))
    if not turns or not isinstance(turns[-1], UserTurn):
        raise ValueError("a prompt ends with a user message")
    return Prompt(with_instructions(system, choices.instructions), tuple(turns), resume, effort)


def resume_of(partial: Reply | None) -> Resume | None:
    """What the model reads of a partial reply."""
    if partial is None:
        return None
    return Resume(partial.reasoning or None, partial.reasoning_closed, partial.answer)


def _earlier(message: AssistantMessage, keep_reasoning: bool) -> AssistantTurn:
    reply = message.reply
    keep = keep_reasoning if message.keep_reasoning is None else message.keep_reasoning
    # A reply without an answer is only its reasoning: leaving it out would leave an empty turn, which models refuse.
    reasoning = reply.reasoning if reply.reasoning and (keep or not reply.answer.strip()) else None
    return AssistantTurn(reply.answer, reasoning, message.id, "" if reasoning else reply.reasoning)
