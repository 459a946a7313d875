"""A conversation as a tree of messages; it does not know models, prompts or storage."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.reply import Reply


@dataclass(frozen=True, slots=True)
class UserMessage:
    """What a person sent: text, images, or both."""

    id: int
    parent: int | None
    text: str
    images: tuple[ImageFile, ...] = ()


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
