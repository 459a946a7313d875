"""What a visitor can do in one conversation: say, edit, resume, delete; it does not know browsers or how a reply looks."""

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from magistral_ui.chat.conversation import AssistantMessage, Conversation, UserMessage
from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.prompt import Prompt, PromptChoices, compose, resume_of
from magistral_ui.chat.reply import (
    Provenance,
    Reply,
    as_read,
    may_continue,
    may_replay,
    reasoning_of,
    resumed_part,
    with_reasoning,
    with_usage_share,
)
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import (
    Engine,
    GenerationRequest,
    Measure,
    closes_reasoning,
    info_of,
    provenance_of,
    reply_provenance,
)
from magistral_ui.engines.generation import Generation, RunningReply
from magistral_ui.errors import BadInput, EmptyMessage, MessageGone, TextTooLong
from magistral_ui.sessions.admission import OnReply
from magistral_ui.sessions.history.recorder import HistoryRecorder
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.session_state import SessionState
from magistral_ui.sessions.upload_cache import check_seen

Admit = Callable[[], AbstractContextManager[OnReply]]
"""Admits one more reply: `Admission.reply`, bound to one visitor."""


class Session(SessionState):
    """One visitor's conversation, with the reply that is being written. Its methods may be called from any thread.

    A reply belongs to the session, not to whoever watches it: it continues even if every browser disconnects.
    """

    def __init__(
        self,
        engine: Engine,
        limits: Limits | None = None,
        key: str = "",
        seeds: random.Random | None = None,
        id: str = "",
        recorder: HistoryRecorder | None = None,
        admission: Admit | None = None,
    ) -> None:
        """`key` identifies the visitor to the engine; `seeds` draws missing seeds; without `admission`, replies are unlimited."""
        super().__init__(recorder)
        self.id, self._admit = id, admission or (lambda: nullcontext(lambda _: None))
        self._engine, self._limits, self._key, self._seeds = engine, limits or Limits(), key, seeds
        self._deleted: tuple[int, Conversation] | None = None

    def say(
        self, text: str, images: Sequence[ImageFile], params: SamplingParams, choices: PromptChoices | None = None
    ) -> RunningReply:
        """Add a message and begin its reply. Raises BadInput or Unavailable; then nothing has changed."""
        self._check(text, images)
        with self._lock:
            self._refuse_while_running()
            return self._begin(self._conversation.say(text, tuple(images)), params, choices)

    def regenerate(self, reply: int, params: SamplingParams, choices: PromptChoices | None = None) -> RunningReply:
        """Begin another reply to the message that `reply` answered; the old one stays as its sibling."""
        with self._lock:
            old = self._reply(reply)
            return self._begin(self._conversation.at(old.parent), params, choices)

    def resume(self, reply: int, params: SamplingParams, choices: PromptChoices | None = None) -> RunningReply:
        """Continue a reply that was cut off; it remains the same message."""
        with self._lock:
            old = self._reply(reply)
            if not may_continue(old.reply):
                raise MessageGone
            before = as_read(old.reply, textual_marks=self._engine.card.marks == "text")
            return self._begin(self._conversation.at(old.parent), params, choices, before, continues=reply)

    def answer_again(self, reply: int, params: SamplingParams, choices: PromptChoices | None = None) -> RunningReply:
        """Begin another reply with the same reasoning; the old one stays as its sibling."""
        with self._lock:
            old = self._reply(reply)
            if not old.reply.reasoning:
                raise MessageGone
            return self._begin(self._conversation.at(old.parent), params, choices, reasoning_of(old.reply))

    def rethink(
        self, reply: int, reasoning: str, closed: bool, params: SamplingParams, choices: PromptChoices | None = None
    ) -> RunningReply:
        """Begin another reply from edited reasoning: continue the reasoning, or if it is `closed`, answer from it."""
        with self._lock:
            old = self._reply(reply)
            reasoning = self._checked(reasoning, old.reply)
            conversation = self._conversation.at(old.parent)
            before = with_reasoning(old.reply, reasoning, closed=closed)
            tokens = self._tokens(conversation, before, choices, params.reasoning_budget)
            return self._begin(conversation, params, choices, with_usage_share(before, old.reply, tokens))

    def replay(self, reply: int) -> RunningReply:
        """Generate a reply again from exactly the same inputs; the old one stays as its sibling."""
        with self._lock:
            old = self._reply(reply)
            params, source = old.reply.params, old.reply.provenance
            if not may_replay(old.reply) or params is None or source is None:
                raise MessageGone
            choices = PromptChoices(source.instructions, source.system_prompt, source.keep_reasoning)
            conversation = self._conversation.at(old.parent)
            before = resumed_part(old.reply)
            if before is not None:
                tokens = self._tokens(conversation, before, choices, params.reasoning_budget)
                before = with_usage_share(before, old.reply, tokens)
            return self._begin(conversation, params, choices, before, replays=old.reply)

    def answer(self, message: int, params: SamplingParams, choices: PromptChoices | None = None) -> RunningReply:
        """Begin a reply to a message that has none, such as one whose reply was deleted."""
        with self._lock:
            self._refuse_while_running()
            self._user(message)
            return self._begin(self._conversation.at(message), params, choices)

    def delete(self, message: int) -> int:
        """Delete a message and all that follows it; a sibling takes its place. Returns the number of messages deleted."""
        with self._lock:
            self._refuse_while_running()
            before = self._conversation
            if message not in before.messages:
                raise MessageGone
            self._conversation = before.without(message)
            self._deleted = message, before
            return len(before.messages) - len(self._conversation.messages)

    def restore(self, message: int) -> None:
        """Undo the last deletion. Raises MessageGone if that was not of `message`, or its parent has been deleted since."""
        with self._lock:
            self._refuse_while_running()
            if self._deleted is None or self._deleted[0] != message:
                raise MessageGone
            earlier = self._deleted[1]
            if earlier.messages[message].parent not in (None, *self._conversation.messages):
                raise MessageGone
            self._conversation = self._conversation.restored(message, earlier)

    def keep_reasoning(self, reply: int, keep: bool | None) -> None:
        with self._lock:
            self._conversation = self._conversation.keep_reasoning(self._reply(reply).id, keep)

    def edit(
        self, message: int, text: str, params: SamplingParams, choices: PromptChoices | None = None
    ) -> RunningReply:
        """Replace the text of a message, keeping its images, and begin its reply; the old one stays as its sibling."""
        with self._lock:
            self._refuse_while_running()
            old = self._user(message)
            self._check(text, old.images)
            return self._begin(self._conversation.edit(message, text), params, choices)

    def choose(self, message: int) -> None:
        with self._lock:
            self._refuse_while_running()
            if message not in self._conversation.messages:
                raise MessageGone
            self._conversation = self._conversation.choose(message)

    def measure(
        self,
        text: str,
        images: Sequence[ImageFile],
        choices: PromptChoices | None = None,
        budget: int | None = None,
    ) -> tuple[Measure, Prompt, int | None]:
        """The tokens of the next prompt with this message at its end, that prompt, and the message's id in it.

        `budget` is the reasoning budget: the prompt of a reply without reasoning is shorter.

        Nothing is sent. While a reply is being written, no message can be sent, so the prompt does not contain it. Raises
        BadInput or NotReady.
        """
        conversation, running = self.snapshot()
        if text.strip() or images:
            self._check(text, images)
        draft = None
        if running is None:
            conversation = conversation.say(text, tuple(images))
            draft = conversation.last_id
        prompt = self._prompt(conversation, choices, budget)
        return self._engine.measure(prompt, self._key), prompt, draft

    def stop(self) -> None:
        """End the running reply, keeping what was written."""
        if running := self.running:
            running.generation.stop()

    def answer_now(self) -> None:
        if running := self.running:
            running.generation.answer_now()

    def close(self) -> None:
        """Stop the running reply and make the engine forget the conversation; the session is not used afterwards."""
        with self._lock:
            if self._running is not None:
                self._running.generation.stop()
        self._engine.forget(self._key)

    @property
    def runs(self) -> Provenance:
        return provenance_of(self._engine)

    def _checked(self, reasoning: str, old: Reply) -> str:
        """Reasoning that the visitor wrote, as it can be resumed: it may exceed that of `old` by the length of a message."""
        if self._engine.card.marks == "text":  # a mark that someone types would end the reasoning
            for mark in self._engine.card.reasoning_marks:
                reasoning = reasoning.replace(mark, "")
        limit = self._limits.text_length + len(old.reasoning)
        if not reasoning.strip():
            raise BadInput("empty_reasoning")
        if len(reasoning) > limit:
            raise TextTooLong(count=len(reasoning), limit=limit)
        return reasoning

    def _check(self, text: str, images: Sequence[ImageFile]) -> None:
        if not text.strip() and not images:
            raise EmptyMessage
        self._limits.check_message(text, images)

    def _reply(self, message: int) -> AssistantMessage:
        """A finished reply; with the lock held."""
        self._refuse_while_running()
        found = self._conversation.messages.get(message)
        if not isinstance(found, AssistantMessage):
            raise MessageGone
        return found

    def _user(self, message: int) -> UserMessage:
        found = self._conversation.messages.get(message)
        if not isinstance(found, UserMessage):
            raise MessageGone
        return found

    def _tokens(
        self, conversation: Conversation, resumed: Reply, choices: PromptChoices | None, budget: int | None
    ) -> int:
        """How many tokens the resumed part of a reply has."""
        prompt = self._prompt(conversation, choices, budget, resumed)
        without = replace(prompt, resume=None)
        return self._engine.measure(prompt, self._key).total - self._engine.measure(without, self._key).total

    def _prompt(
        self,
        conversation: Conversation,
        choices: PromptChoices | None,
        budget: int | None,
        resumed: Reply | None = None,
    ) -> Prompt:
        choices, card = choices or PromptChoices(), self._engine.card
        system = card.system(choices.system_prompt, budget)
        prompt = compose(conversation, system, choices, resume_of(resumed), card.effort(budget))
        check_seen(card, prompt.images)  # another model may have seen them, before a switch
        return prompt

    def _begin(
        self,
        conversation: Conversation,
        params: SamplingParams,
        choices: PromptChoices | None,
        before: Reply | None = None,
        continues: int | None = None,
        replays: Reply | None = None,
    ) -> RunningReply:
        asked = conversation.last_user()
        if asked is None:
            raise MessageGone
        choices = choices or PromptChoices()
        self._limits.check_conversation(conversation)
        self._limits.check_params(params)
        params = self._limits.bounded(params, closes_reasoning(self._engine)).with_seed(self._seeds)
        prompt = self._prompt(conversation, choices, params.reasoning_budget, before)
        source = reply_provenance(self._engine, prompt, choices, before)
        running = RunningReply(Generation(), asked.id, params, source, before, continues, replays)
        with self._admit() as begun_with:
            if self._recorder is not None and info_of(self._engine.status()) is not None:
                self._recorder.begin(conversation, dict(self._written), running)
            generation = self._engine.submit(GenerationRequest(prompt, params, self._key))
            begun_with(generation)
        # Only now, so that a request that the engine refuses leaves no trace; `save` also removes it from the history.
        self._conversation, self._running = conversation, replace(running, generation=generation)
        return self._running
