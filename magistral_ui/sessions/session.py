"""One visitor's conversation and the reply that is being written for it; it does not know browsers or how a reply looks."""

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from magistral_ui.chat.conversation import AssistantMessage, Conversation, Reply, UserMessage
from magistral_ui.chat.events import Notice, Usage
from magistral_ui.chat.folding import Draft
from magistral_ui.chat.pictures import Picture
from magistral_ui.chat.prompt import PromptChoices, Resume, compose
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import Engine, GenerationRequest, Ready
from magistral_ui.engines.generation import Generation
from magistral_ui.errors import AlreadyAnswering, EmptyMessage, MessageGone, TextTooLong, TooManyPictures
from magistral_ui.sessions.limits import Limits


@dataclass(frozen=True, slots=True)
class Running:
    """A reply on its way: to which user message, and with what."""

    generation: Generation
    to: int
    params: SamplingParams
    model: str
    before: Reply | None = None
    """The beginning that it goes on from."""
    continues: int | None = None
    """The reply in whose place it will stand."""


@dataclass(frozen=True, slots=True)
class Written:
    """How a reply came into the conversation: by which generation, and what there was to tell about it."""

    generation: str
    notices: tuple[Notice, ...] = ()


def may_continue(reply: Reply) -> bool:
    """Whether `reply` was cut, and has a beginning to go on from."""
    return reply.finish_reason in ("length", "cancelled") and bool(reply.reasoning or reply.answer)


def _reasoning_of(reply: Reply) -> Reply:
    """The beginning of a reply up to the end of its reasoning, and what that had cost."""
    usage = reply.usage
    spent = Usage(
        reasoning_tokens=usage.reasoning_tokens,
        first_token_seconds=usage.first_token_seconds,
        reasoning_seconds=usage.reasoning_seconds,
        total_seconds=usage.first_token_seconds + usage.reasoning_seconds,
    )
    return Reply(reasoning=reply.reasoning, usage=spent)


class Session:
    """What one visitor says and reads. Its methods may be called from any thread.

    The reply belongs to the session, not to whoever watches it: it goes on when every browser has left.
    """

    def __init__(self, engine: Engine, limits: Limits | None = None, key: str = "", seeds: random.Random | None = None):
        """`key` is the opaque visitor key that the engine gets; `seeds` draws the seed where a request has none."""
        self._engine, self._limits, self._key, self._seeds = engine, limits or Limits(), key, seeds
        self._lock = threading.RLock()
        self._conversation = Conversation()
        self._running: Running | None = None
        self._written: dict[int, Written] = {}

    @property
    def conversation(self) -> Conversation:
        """All that was said so far; a reply that has just ended is in it."""
        with self._lock:
            self._settle()
            return self._conversation

    @property
    def running(self) -> Running | None:
        """The reply that is being written, or None."""
        with self._lock:
            self._settle()
            return self._running

    def look(self) -> tuple[Conversation, Running | None]:
        """The conversation and the running reply as they are at one moment."""
        with self._lock:
            self._settle()
            return self._conversation, self._running

    def written(self, message: int) -> Written:
        """How the reply `message` came to be; an empty generation where that is not known."""
        return self._written.get(message, Written(""))

    def say(
        self, text: str, pictures: Sequence[Picture], params: SamplingParams, choices: PromptChoices | None = None
    ) -> Running:
        """Add a message and begin its reply. Raises BadInput or Unavailable; then nothing has changed."""
        self._check(text, pictures)
        with self._lock:
            self._refuse_while_running()
            return self._begin(self._conversation.say(text, tuple(pictures)), params, choices)

    def regenerate(self, reply: int, params: SamplingParams, choices: PromptChoices | None = None) -> Running:
        """Begin another reply to the message that `reply` answered; the old one stays as its sibling."""
        with self._lock:
            old = self._reply(reply)
            return self._begin(self._conversation.at(old.parent), params, choices)

    def continue_reply(self, reply: int, params: SamplingParams, choices: PromptChoices | None = None) -> Running:
        """Go on with a reply that was cut; it stays the same message, with more in it."""
        with self._lock:
            old = self._reply(reply)
            if not may_continue(old.reply):
                raise MessageGone
            conversation = self._conversation.at(old.parent)
            return self._begin(conversation, params, choices, before=old.reply, continues=reply)

    def answer_again(self, reply: int, params: SamplingParams, choices: PromptChoices | None = None) -> Running:
        """Begin another reply with the same reasoning; the old one stays as its sibling."""
        with self._lock:
            old = self._reply(reply)
            if not old.reply.reasoning:
                raise MessageGone
            conversation = self._conversation.at(old.parent)
            return self._begin(conversation, params, choices, before=_reasoning_of(old.reply))

    def edit(self, message: int, text: str, params: SamplingParams, choices: PromptChoices | None = None) -> Running:
        """Say something else in the place of a message, with the same pictures; the old one stays as its sibling."""
        with self._lock:
            self._refuse_while_running()
            old = self._conversation.messages.get(message)
            if not isinstance(old, UserMessage):
                raise MessageGone
            self._check(text, old.pictures)
            return self._begin(self._conversation.edit(message, text), params, choices)

    def choose(self, message: int) -> None:
        """Show the branch of `message` instead of its sibling's."""
        with self._lock:
            self._refuse_while_running()
            if message not in self._conversation.messages:
                raise MessageGone
            self._conversation = self._conversation.choose(message)

    def stop(self) -> None:
        """End the running reply, keeping what was written."""
        if running := self.running:
            running.generation.stop()

    def answer_now(self) -> None:
        """End the reasoning of the running reply."""
        if running := self.running:
            running.generation.answer_now()

    def new_chat(self) -> None:
        """Leave the conversation and begin an empty one."""
        with self._lock:
            if self._running is not None:
                self._running.generation.stop()
            self._conversation, self._running, self._written = Conversation(), None, {}
        self._engine.forget(self._key)

    def close(self) -> None:
        """Stop what runs and let the engine forget it; the session is not used any more."""
        with self._lock:
            if self._running is not None:
                self._running.generation.stop()
        self._engine.forget(self._key)

    def _check(self, text: str, pictures: Sequence[Picture]) -> None:
        if not text.strip() and not pictures:
            raise EmptyMessage
        if len(text) > self._limits.text_length:
            raise TextTooLong(count=len(text), limit=self._limits.text_length)
        if len(pictures) > self._limits.pictures:
            raise TooManyPictures(count=len(pictures), limit=self._limits.pictures)

    def _reply(self, message: int) -> AssistantMessage:
        """A finished reply to do something with; with the lock held."""
        self._refuse_while_running()
        found = self._conversation.messages.get(message)
        if not isinstance(found, AssistantMessage):
            raise MessageGone
        return found

    def _refuse_while_running(self) -> None:
        self._settle()
        if self._running is not None:
            raise AlreadyAnswering

    def _begin(
        self,
        conversation: Conversation,
        params: SamplingParams,
        choices: PromptChoices | None,
        before: Reply | None = None,
        continues: int | None = None,
    ) -> Running:
        asked = conversation.last_user()
        if asked is None:
            raise MessageGone
        choices = choices or PromptChoices()
        params = params.with_seed(self._seeds)
        system = self._engine.card.system(choices.system_prompt)
        resume = Resume(before.reasoning or None, before.reasoning_closed, before.answer) if before else None
        prompt = compose(conversation, system, choices, resume)
        generation = self._engine.submit(GenerationRequest(prompt, params, self._key))
        # Only now, so that a request that the engine refuses leaves no trace.
        self._conversation = conversation
        self._running = Running(generation, asked.id, params, self._model_name(), before, continues)
        return self._running

    def _settle(self) -> None:
        """Attach the reply that has ended; with the lock held."""
        running = self._running
        if running is None or not running.generation.ended:
            return
        self._running = None
        draft = Draft()
        for stamped in running.generation.take():
            draft.feed(stamped.event)
        reply: Reply = draft.reply(running.params, running.model, running.before)
        written = Written(running.generation.id, tuple(draft.notices))
        if running.continues is not None:
            self._conversation = self._conversation.rewritten(running.continues, reply)
            self._written[running.continues] = written
        elif isinstance(self._conversation.messages.get(running.to), UserMessage):
            self._conversation = self._conversation.with_reply(reply, running.to)
            self._written[self._conversation.last_id] = written

    def _model_name(self) -> str:
        status = self._engine.status()
        return status.info.name if isinstance(status, Ready) else self._engine.card.name
