"""A conversation as a tree of messages, and its replies while they grow; it does not know models, prompts or storage."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from magistral_ui.chat.events import (
    Answer,
    Event,
    Failed,
    Finished,
    FinishReason,
    Notice,
    Prefilling,
    Queued,
    Reasoning,
    Reclassified,
    Usage,
)
from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.sampling import SamplingParams


@dataclass(frozen=True, slots=True)
class Provenance:
    """What it takes, with a reply's parameters, to write that reply again. Every field is a plain value.

    A reply may go on from a beginning: one that was continued, or answered again from its reasoning. The reply's own
    first characters are that beginning.
    """

    model: str = ""
    source: str = ""
    """Repository or folder name."""
    revision: str = ""
    precision: str = ""
    device: str = ""
    engine: str = ""
    """What ran the model, such as `transformers`."""
    instructions: str = ""
    """The custom instructions."""
    system_prompt: str | None = None
    """The reasoning prompt that stood in the place of the model's own, with its literal marks; None: its own."""
    keep_reasoning: bool = True
    """Whether earlier reasoning was in the context, where a message did not say otherwise."""
    prompt: str = ""
    """Digest of all that the model read; it tells whether it would read the same again."""
    begun_reasoning: int = 0
    """Characters of the reasoning that the reply went on from."""
    begun_answer: int = 0
    """Characters of the answer that it went on from."""
    begun_closed: bool = False
    """Whether it went on behind the reasoning: with the answer."""
    edited: bool = False
    """Whether a person changed the reasoning that the reply goes on from."""


@dataclass(frozen=True, slots=True)
class UserMessage:
    """What a person said: text, pictures, or both."""

    id: int
    parent: int | None
    text: str
    images: tuple[ImageFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model wrote, how it ended, and what is needed to write it again."""

    reasoning: str = ""
    answer: str = ""
    reasoning_closed: bool = True
    """False where the reply ended in the middle of the reasoning."""
    finish_reason: FinishReason | None = None
    """None where it failed; then `failure` names why."""
    failure: str | None = None
    failure_values: Mapping[str, str | int | float] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    usage: Usage = field(default_factory=Usage)
    params: SamplingParams | None = None
    model: str = ""
    provenance: Provenance | None = None
    """None where it is not known, as in a conversation from an older version."""


@dataclass(frozen=True, slots=True)
class AssistantMessage:
    """A reply in its place in the tree; `keep_reasoning` None follows the conversation's choice."""

    id: int
    parent: int
    reply: Reply
    keep_reasoning: bool | None = None


ChatMessage = UserMessage | AssistantMessage


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages by id, oldest first; `chosen` says which child of a message is shown (None stands for the root)."""

    messages: Mapping[int, ChatMessage] = field(default_factory=dict)
    chosen: Mapping[int | None, int] = field(default_factory=dict)
    last_id: int = 0
    """The largest id ever given: a deleted message's id is never given to another."""

    def path(self) -> tuple[ChatMessage, ...]:
        """The chosen branch, from the first message to the last."""
        return tuple(self._walk())

    def _walk(self) -> Iterator[ChatMessage]:
        at: int | None = None
        while (at := self.chosen.get(at)) is not None:
            yield self.messages[at]

    def last(self) -> ChatMessage | None:
        """The last message of the chosen branch, or None in an empty conversation."""
        path = self.path()
        return path[-1] if path else None

    def siblings(self, message: int) -> tuple[int, ...]:
        """Ids of the alternatives to `message` from the same side, itself among them, oldest first."""
        this = self.messages[message]
        return tuple(m.id for m in self.messages.values() if m.parent == this.parent and type(m) is type(this))

    def say(self, text: str, images: tuple[ImageFile, ...] = ()) -> "Conversation":
        """A new user message at the end of the chosen branch."""
        last = self.last()
        return self._grown(UserMessage(self._next_id(), last.id if last else None, text, images))

    def edit(self, message: int, text: str, images: tuple[ImageFile, ...] | None = None) -> "Conversation":
        """A sibling of a user message with other words (and its own pictures, unless others are given), now chosen."""
        old = self._user(message)
        kept = old.images if images is None else images
        return self._grown(UserMessage(self._next_id(), old.parent, text, kept))

    def with_reply(self, reply: Reply, to: int | None = None) -> "Conversation":
        """`reply` attached to the user message `to` (default: the last one of the chosen branch), now chosen."""
        target = self.last_user() if to is None else self._user(to)
        if target is None:
            raise ValueError("there is no user message to reply to")
        return self._grown(AssistantMessage(self._next_id(), target.id, reply))

    def rewritten(self, message: int, reply: Reply) -> "Conversation":
        """The assistant message `message` with `reply` in the place of its own, now chosen."""
        old = self.messages[message]
        if not isinstance(old, AssistantMessage):
            raise ValueError(f"message {message} is not a reply")
        return replace(self, messages={**self.messages, message: replace(old, reply=reply)}).choose(message)

    def choose(self, message: int) -> "Conversation":
        """Show the branch of `message` instead of its sibling's."""
        return replace(self, chosen={**self.chosen, self.messages[message].parent: message})

    def keep_reasoning(self, message: int, keep: bool | None) -> "Conversation":
        """Leave the reasoning of one assistant message in or out of the context; None follows the general choice."""
        old = self.messages[message]
        if not isinstance(old, AssistantMessage):
            raise ValueError("only an assistant message has reasoning")
        return replace(self, messages={**self.messages, message: replace(old, keep_reasoning=keep)})

    def at(self, message: int) -> "Conversation":
        """The same tree with the chosen branch cut behind `message`, so that the next words follow it."""
        chosen: dict[int | None, int] = {k: v for k, v in self.chosen.items() if k != message}
        return replace(self, chosen=chosen)

    def without(self, message: int) -> "Conversation":
        """The tree without `message` and all that follows it; a sibling, if there is one, takes its place."""
        doomed = self.below(message)
        kept = {i: m for i, m in self.messages.items() if i not in doomed}
        chosen = {p: c for p, c in self.chosen.items() if p not in doomed and c not in doomed}
        parent = self.messages[message].parent
        left = [m.id for m in kept.values() if m.parent == parent]
        if left and self.chosen.get(parent) == message:
            chosen[parent] = left[-1]
        return replace(self, messages=kept, chosen=chosen)

    def restored(self, message: int, earlier: "Conversation") -> "Conversation":
        """This tree with `message`, and what followed it, back from `earlier`, and chosen; its parent must be here."""
        parent = earlier.messages[message].parent
        if parent is not None and parent not in self.messages:
            raise ValueError(f"the parent of message {message} is not there")
        back = earlier.below(message) - self.messages.keys()
        lost = {i: m for i, m in earlier.messages.items() if i in back}
        messages = dict(sorted({**self.messages, **lost}.items()))
        chosen = dict(self.chosen)
        chosen.update({p: c for p, c in earlier.chosen.items() if p in lost})
        chosen[parent] = message
        return Conversation(messages, chosen, self.last_id)

    def below(self, message: int) -> frozenset[int]:
        """Ids of `message` and of all that follows it on any branch."""
        found = {message}
        for each in self.messages.values():  # a parent comes before its children
            if each.parent in found:
                found.add(each.id)
        return frozenset(found)

    def last_user(self) -> UserMessage | None:
        """The last user message of the chosen branch."""
        return next((m for m in reversed(self.path()) if isinstance(m, UserMessage)), None)

    def _user(self, message: int) -> UserMessage:
        found = self.messages[message]
        if not isinstance(found, UserMessage):
            raise ValueError(f"message {message} is not a user's")
        return found

    def _next_id(self) -> int:
        return self.last_id + 1

    def _grown(self, message: ChatMessage) -> "Conversation":
        messages = {**self.messages, message.id: message}
        return Conversation(messages, {**self.chosen, message.parent: message.id}, message.id)


@dataclass(slots=True)
class ReplyBuilder:
    """One reply while it grows; `feed` costs the same for the first and the last event. Its usage is the generation's."""

    reasoning: list[str] = field(default_factory=list)
    answer: list[str] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    reasoned: bool = False
    """Whether there was reasoning."""
    closed: bool = False
    """Whether the reasoning is closed: the mark was written, or an answer without reasoning has begun."""
    answering: bool = False
    """Whether the answer has begun (with something to read)."""
    queue_position: int | None = None
    retry_seconds: float = 0.0
    """After how long a busy server is asked again; 0.0 while nobody waits for one."""
    prefilling: Prefilling | None = None
    last: Finished | Failed | None = None

    def feed(self, event: Event) -> None:
        """Take in the next event."""
        match event:
            case Reasoning(text):
                self.reasoning.append(text)
                self.reasoned = True
                self._writing()
            case Answer(text):
                self.answer.append(text)
                self.closed = self.closed or self.reasoned or bool(text.strip())
                self.answering = self.answering or bool(text.strip())
                self._writing()
            case Reclassified():
                self._reclassify()
            case Notice():
                self.notices.append(event)
            case Queued(position, seconds):
                self.queue_position, self.retry_seconds = position, seconds
            case Prefilling():
                self.prefilling, self.queue_position, self.retry_seconds = event, None, 0.0
            case Finished() | Failed():
                self.last = event
                self._writing()

    def _reclassify(self) -> None:
        """What is called an answer so far was reasoning, which is closed now."""
        said = "".join(self.answer)
        self.reasoning.append(said if any(self.reasoning) else said.lstrip("\r\n"))
        self.answer, self.answering, self.closed, self.reasoned = [], False, True, True

    def _writing(self) -> None:
        self.queue_position, self.prefilling, self.retry_seconds = None, None, 0.0

    def take_texts(self) -> tuple[str, str]:
        """The reasoning and the answer that have come since the last call; they are no part of a later one, or of `reply`."""
        texts = "".join(self.reasoning), "".join(self.answer)
        self.reasoning, self.answer = [], []
        return texts

    def reply(self, params: SamplingParams | None = None, model: str = "", before: Reply | None = None) -> Reply:
        """The reply so far; `before` is the beginning that it continues."""
        reasoning = (before.reasoning if before else "") + "".join(self.reasoning)
        answer = (before.answer if before else "") + "".join(self.answer)
        failed = self.last if isinstance(self.last, Failed) else None
        usage = self.last.usage if self.last else Usage()
        return Reply(
            reasoning=reasoning,
            answer=answer,
            reasoning_closed=self.closed or not reasoning or bool(before and before.reasoning_closed),
            finish_reason=self.last.why if isinstance(self.last, Finished) else None,
            failure=failed.key if failed else None,
            failure_values=failed.values if failed else {},
            notices=tuple(notice.key for notice in self.notices),
            usage=before.usage.then(usage) if before else usage,
            params=params,
            model=model,
        )
