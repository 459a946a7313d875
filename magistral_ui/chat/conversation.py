"""A conversation as a tree of messages, and its replies while they grow; it does not know models, prompts or storage."""

from collections.abc import Mapping
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
    """What it takes, together with a reply's parameters, to reproduce the reply. Every field is a plain value.

    A reply may resume a partial one: a reply that was continued, or answered again from its reasoning. The partial reply's
    text is then the first part of its own.
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
    system_prompt: str | None = None
    """The reasoning prompt used instead of the model's own, with literal marks; None: the model's own."""
    keep_reasoning: bool = True
    """Whether earlier reasoning was in the context, unless a message said otherwise."""
    prompt: str = ""
    """Digest of everything the model read; it tells whether the model would read the same again."""
    begun_reasoning: int = 0
    """Characters of reasoning that the reply resumed from."""
    begun_answer: int = 0
    """Characters of answer that it resumed from."""
    begun_closed: bool = False
    """Whether it resumed after the reasoning, with the answer."""
    edited: bool = False
    """Whether a person edited the reasoning that the reply resumed from."""


@dataclass(frozen=True, slots=True)
class UserMessage:
    """What a person sent: text, images, or both."""

    id: int
    parent: int | None
    text: str
    images: tuple[ImageFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model wrote, how it ended, and what is needed to reproduce it."""

    reasoning: str = ""
    answer: str = ""
    reasoning_closed: bool = True
    """False where the reply ended inside the reasoning."""
    finish_reason: FinishReason | None = None
    """None where it failed; `failure` then says why."""
    failure: str | None = None
    failure_values: Mapping[str, str | int | float] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    usage: Usage = field(default_factory=Usage)
    params: SamplingParams | None = None
    model: str = ""
    provenance: Provenance | None = None
    """None where unknown, as in a conversation from an older version."""


@dataclass(frozen=True, slots=True)
class AssistantMessage:
    """A reply in its place in the tree; `keep_reasoning` None follows the conversation's setting."""

    id: int
    parent: int
    reply: Reply
    keep_reasoning: bool | None = None


ChatMessage = UserMessage | AssistantMessage


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages by id, oldest first; `chosen` maps a message to its visible child (None stands for the root)."""

    messages: Mapping[int, ChatMessage] = field(default_factory=dict)
    chosen: Mapping[int | None, int] = field(default_factory=dict)
    last_id: int = 0
    """The largest id ever used: a deleted message's id is never reused."""

    def path(self) -> tuple[ChatMessage, ...]:
        """The chosen branch, from the first message to the last."""
        path: list[ChatMessage] = []
        at: int | None = None
        while (at := self.chosen.get(at)) is not None:
            path.append(self.messages[at])
        return tuple(path)

    def last(self) -> ChatMessage | None:
        path = self.path()
        return path[-1] if path else None

    def siblings(self, message: int) -> tuple[int, ...]:
        """Ids of the alternatives to `message` from the same side, itself among them, oldest first."""
        this = self.messages[message]
        return tuple(m.id for m in self.messages.values() if m.parent == this.parent and type(m) is type(this))

    def say(self, text: str, images: tuple[ImageFile, ...] = ()) -> "Conversation":
        """A new user message at the end of the chosen branch."""
        last = self.last()
        return self._grown(UserMessage(self.last_id + 1, last.id if last else None, text, images))

    def edit(self, message: int, text: str, images: tuple[ImageFile, ...] | None = None) -> "Conversation":
        """A sibling of a user message with new text (and the same images, unless others are given), now chosen."""
        old = self._user(message)
        kept = old.images if images is None else images
        return self._grown(UserMessage(self.last_id + 1, old.parent, text, kept))

    def with_reply(self, reply: Reply, to: int | None = None) -> "Conversation":
        """`reply` attached to the user message `to` (by default the last one of the chosen branch), now chosen."""
        target = self.last_user() if to is None else self._user(to)
        if target is None:
            raise ValueError("there is no user message to reply to")
        return self._grown(AssistantMessage(self.last_id + 1, target.id, reply))

    def rewritten(self, message: int, reply: Reply) -> "Conversation":
        """The tree with `reply` instead of the one in the assistant message `message`, now chosen."""
        changed = replace(self._assistant(message), reply=reply)
        return replace(self, messages={**self.messages, message: changed}).choose(message)

    def choose(self, message: int) -> "Conversation":
        """The tree that shows the branch of `message` instead of its sibling's."""
        return replace(self, chosen={**self.chosen, self.messages[message].parent: message})

    def keep_reasoning(self, message: int, keep: bool | None) -> "Conversation":
        """The tree with one message's reasoning in or out of the context; None follows the general setting."""
        changed = replace(self._assistant(message), keep_reasoning=keep)
        return replace(self, messages={**self.messages, message: changed})

    def at(self, message: int) -> "Conversation":
        """The tree that shows the branch of `message` and is cut after it, so that the next message follows it."""
        chosen = {parent: child for parent, child in self.chosen.items() if parent != message}
        above: int | None = message
        while above is not None:  # another tab may have chosen another branch at any of these
            child, above = above, self.messages[above].parent
            chosen[above] = child
        return replace(self, chosen=chosen)

    def without(self, message: int) -> "Conversation":
        """The tree without `message` and everything after it; a sibling, if any, takes its place."""
        doomed = self.below(message)
        kept = {i: m for i, m in self.messages.items() if i not in doomed}
        chosen = {p: c for p, c in self.chosen.items() if p not in doomed and c not in doomed}
        parent = self.messages[message].parent
        left = [m.id for m in kept.values() if m.parent == parent]
        if left and self.chosen.get(parent) == message:
            chosen[parent] = left[-1]
        return replace(self, messages=kept, chosen=chosen)

    def restored(self, message: int, earlier: "Conversation") -> "Conversation":
        """This tree with `message` and what followed it restored from `earlier`, and chosen; its parent must be here."""
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
        """Ids of `message` and of everything after it on any branch."""
        found = {message}
        for each in self.messages.values():  # a parent comes before its children
            if each.parent in found:
                found.add(each.id)
        return frozenset(found)

    def last_user(self) -> UserMessage | None:
        return next((m for m in reversed(self.path()) if isinstance(m, UserMessage)), None)

    def _user(self, message: int) -> UserMessage:
        found = self.messages[message]
        if not isinstance(found, UserMessage):
            raise ValueError(f"message {message} is not a user's")
        return found

    def _assistant(self, message: int) -> AssistantMessage:
        found = self.messages[message]
        if not isinstance(found, AssistantMessage):
            raise ValueError(f"message {message} is the user's: only an assistant message has a reply")
        return found

    def _grown(self, message: ChatMessage) -> "Conversation":
        messages = {**self.messages, message.id: message}
        return Conversation(messages, {**self.chosen, message.parent: message.id}, message.id)


@dataclass(slots=True)
class ReplyBuilder:
    """One reply while it grows; `feed` costs the same for the first and the last event. Usage is the generation's."""

    reasoning: list[str] = field(default_factory=list)
    answer: list[str] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    reasoned: bool = False
    closed: bool = False
    """Whether the reasoning is closed: by its mark, or because an answer without reasoning has begun."""
    answering: bool = False
    """Whether the answer has begun, with visible text."""
    queue_position: int | None = None
    retry_seconds: float = 0.0
    """When a busy server is asked again; 0.0 while none is waited for."""
    prefilling: Prefilling | None = None
    last: Finished | Failed | None = None

    def feed(self, event: Event) -> None:
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
        """Turn the answer so far into reasoning, which is closed now."""
        text = "".join(self.answer)
        self.reasoning.append(text if any(self.reasoning) else text.lstrip("\r\n"))
        self.answer, self.answering, self.closed, self.reasoned = [], False, True, True

    def _writing(self) -> None:
        self.queue_position, self.prefilling, self.retry_seconds = None, None, 0.0

    def take_texts(self) -> tuple[str, str]:
        """The reasoning and answer since the last call; neither a later call nor `reply` returns them again."""
        texts = "".join(self.reasoning), "".join(self.answer)
        self.reasoning, self.answer = [], []
        return texts

    def reply(self, params: SamplingParams | None = None, model: str = "", before: Reply | None = None) -> Reply:
        """The reply so far; `before` is the partial reply that it continues."""
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
