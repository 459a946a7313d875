"""What a prompt's tokens go to: system prompt, conversation, reasoning, pictures, the message being written; only arithmetic."""

from dataclasses import dataclass

from magistral_ui.chat.prompt import AssistantTurn, Prompt, UserTurn
from magistral_ui.engines.base import Measure


@dataclass(frozen=True, slots=True)
class ContextUse:
    """Tokens by what they are for; all but `left_out` and `text` add up to `total`."""

    system: int = 0
    conversation: int = 0
    """Earlier messages and answers, less the following two."""
    reasoning: int = 0
    """Earlier reasoning that stays in the context."""
    pictures: int = 0
    """Pictures of earlier messages."""
    message: int = 0
    """The message being written with its pictures; 0 where there is none."""
    message_pictures: tuple[int, ...] = ()
    """Of the message, each picture."""
    left_out: int = 0
    """Earlier reasoning that is left out of the context."""
    estimated: bool = False
    """Whether a part was reckoned from lengths, for want of the model's tokenizer."""

    @property
    def total(self) -> int:
        """Tokens of the whole prompt."""
        return self.system + self.conversation + self.reasoning + self.pictures + self.message


def context_use(measure: Measure, prompt: Prompt, draft: int | None) -> ContextUse:
    """What the tokens of `prompt`, measured by an engine, go to; `draft` is the id of the message being written."""
    kept = sum(measure.reasoning.get(_id(turn), 0) for turn in _earlier_replies(prompt) if turn.reasoning is not None)
    left_out = sum(measure.reasoning.get(_id(turn), 0) for turn in _earlier_replies(prompt) if turn.reasoning is None)
    written = [turn for turn in prompt.turns if isinstance(turn, UserTurn) and turn.message == draft]
    seen = [p for turn in prompt.turns if isinstance(turn, UserTurn) and turn.message != draft for p in turn.images]
    images = sum(measure.images.get(image.digest, 0) for image in seen)
    message = 0
    message_pictures: tuple[int, ...] = ()
    total = measure.total
    for turn in written:
        spent = measure.per_message.get(_id(turn), 0)
        if turn.text.strip() or turn.images:
            message = spent
            message_pictures = tuple(measure.images.get(image.digest, 0) for image in turn.images)
        else:
            total -= spent  # an empty message is none
    conversation = total - measure.system - kept - images - message
    return ContextUse(
        measure.system, conversation, kept, images, message, message_pictures, left_out, measure.estimated
    )


def _earlier_replies(prompt: Prompt) -> list[AssistantTurn]:
    return [turn for turn in prompt.turns if isinstance(turn, AssistantTurn)]


def _id(turn: UserTurn | AssistantTurn) -> int:
    return -1 if turn.message is None else turn.message
