"""One visitor's conversation and the reply that is being written for it; it does not know browsers or how a reply looks."""

import random
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

from magistral_ui.chat.conversation import AssistantMessage, Conversation, Reply, UserMessage
from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.prompt import Prompt, PromptChoices, compose
from magistral_ui.chat.provenance import Provenance
from magistral_ui.chat.reply_builder import ReplyBuilder
from magistral_ui.chat.resume import (
    as_read,
    may_continue,
    may_replay,
    reasoning_of,
    resume_of,
    resumed_part,
    with_reasoning,
    with_usage_share,
)
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import Engine, GenerationRequest, Measure, Ready
from magistral_ui.engines.generation import Generation
from magistral_ui.errors import AlreadyAnswering, BadInput, EmptyMessage, MessageGone, Overloaded, TextTooLong
from magistral_ui.sessions.admission import VisitorAdmission
from magistral_ui.sessions.history.reply_state import (
    Recorder,
    ReplyOrigin,
    RunningReply,
    provenance,
    replay_notice,
    runs,
)
from magistral_ui.sessions.limits import Limits, bytes_of


def _uncounted(generation: Generation) -> None:
    """Nobody counts."""


class Session:
    """What one visitor says and reads. Its methods may be called from any thread.

    The reply belongs to the session, not to whoever watches it: it goes on when every browser has left.
    """

    def __init__(
        self,
        engine: Engine,
        limits: Limits | None = None,
        key: str = "",
        seeds: random.Random | None = None,
        id: str = "",
        recorder: Recorder | None = None,
        admission: VisitorAdmission | None = None,
    ) -> None:
        """`key` is the opaque visitor key that the engine gets; `seeds` draws the seed where a request has none.

        Without the visitor's `admission`, there may be as many replies as anybody asks for.
        """
        self.id, self._recorder, self._admission = id, recorder, admission
        self._engine, self._limits, self._key, self._seeds = engine, limits or Limits(), key, seeds
        self._lock = threading.RLock()
        self._conversation = Conversation()
        self._weighed = self._conversation, 0
        self._running: RunningReply | None = None
        self._written: dict[int, ReplyOrigin] = {}
        self._deleted: tuple[int, Conversation] | None = None
        self._retired = False

    def load(
        self, conversation: Conversation, written: Mapping[int, ReplyOrigin], running: RunningReply | None
    ) -> None:
        """Go on from what an earlier process has kept."""
        with self._lock:
            self._conversation, self._written, self._running = conversation, dict(written), running

    def save(self) -> None:
        """Put down what has changed since the last time; called again and again, and does nothing where someone is busy."""
        if self._recorder is None or not self._lock.acquire(blocking=False):
            return
        try:
            self._settle()
            self._recorder.save(self._conversation, dict(self._written), self._running)
        finally:
            self._lock.release()

    @property
    def conversation(self) -> Conversation:
        """All that was said so far; a reply that has just ended is in it."""
        with self._lock:
            self._settle()
            return self._conversation

    @property
    def running(self) -> RunningReply | None:
        """The reply that is being written, or None."""
        with self._lock:
            self._settle()
            return self._running

    @property
    def current(self) -> RunningReply | None:
        """The reply that is being written, or None; never waits for whoever works with the session."""
        running = self._running
        return running if running is not None and not running.generation.ended else None

    @property
    def busy(self) -> bool:
        """Whether a reply is being written; never waits, likewise."""
        return self.current is not None

    @property
    def saved(self) -> bool:
        """Whether nothing of it is here only; never waits, likewise."""
        return self._recorder is None or (self._running is None and self._recorder.has_saved(self._conversation))

    @property
    def memory_bytes(self) -> int:
        """About the bytes of what was said, reckoned once for each state of the conversation."""
        conversation = self._conversation
        if self._weighed[0] is not conversation:
            self._weighed = conversation, bytes_of(conversation)
        return self._weighed[1]

    def snapshot(self) -> tuple[Conversation, RunningReply | None]:
        """The conversation and the running reply as they are at one moment."""
        with self._lock:
            self._settle()
            return self._conversation, self._running

    def view(self) -> tuple[Conversation, RunningReply | None, int]:
        """What `snapshot` sees, and when: whoever got a higher number in this process saw a later state, or the same."""
        with self._lock:
            return *self.snapshot(), time.perf_counter_ns()

    def written(self, message: int) -> ReplyOrigin:
        """How the reply `message` came to be; an empty generation where that is not known."""
        return self._written.get(message, ReplyOrigin(""))

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

    def continue_reply(self, reply: int, params: SamplingParams, choices: PromptChoices | None = None) -> RunningReply:
        """Go on with a reply that was cut; it stays the same message, with more in it."""
        with self._lock:
            old = self._reply(reply)
            if not may_continue(old.reply):
                raise MessageGone
            conversation = self._conversation.at(old.parent)
            before = as_read(old.reply, textual_marks=self._engine.card.marks == "text")
            return self._begin(conversation, params, choices, before=before, continues=reply)

    def answer_again(self, reply: int, params: SamplingParams, choices: PromptChoices | None = None) -> RunningReply:
        """Begin another reply with the same reasoning; the old one stays as its sibling."""
        with self._lock:
            old = self._reply(reply)
            if not old.reply.reasoning:
                raise MessageGone
            conversation = self._conversation.at(old.parent)
            return self._begin(conversation, params, choices, before=reasoning_of(old.reply))

    def rethink(
        self, reply: int, reasoning: str, closed: bool, params: SamplingParams, choices: PromptChoices | None = None
    ) -> RunningReply:
        """Begin another reply from other reasoning: think on from its end, or (`closed`) answer from it."""
        with self._lock:
            old = self._reply(reply)
            reasoning = self._checked(reasoning, old.reply)
            conversation = self._conversation.at(old.parent)
            before = with_reasoning(old.reply, reasoning, closed=closed)
            before = with_usage_share(before, old.reply, self._tokens(conversation, before, choices))
            return self._begin(conversation, params, choices, before)

    def replay(self, reply: int) -> RunningReply:
        """Write a reply again with exactly what it was written with; the old one stays as its sibling."""
        with self._lock:
            old = self._reply(reply)
            params, source = old.reply.params, old.reply.provenance
            if not may_replay(old.reply) or params is None or source is None:
                raise MessageGone
            choices = PromptChoices(source.instructions, source.system_prompt, source.keep_reasoning)
            conversation = self._conversation.at(old.parent)
            before = resumed_part(old.reply)
            if before is not None:
                before = with_usage_share(before, old.reply, self._tokens(conversation, before, choices))
            return self._begin(conversation, params, choices, before, replays=old.reply)

    def answer(self, message: int, params: SamplingParams, choices: PromptChoices | None = None) -> RunningReply:
        """Begin a reply to a message that has none, such as one whose reply was deleted."""
        with self._lock:
            self._refuse_while_running()
            self._user(message)
            return self._begin(self._conversation.at(message), params, choices)

    def delete(self, message: int) -> int:
        """Take out a message with all that follows it, a sibling taking its place; how many messages that were."""
        with self._lock:
            self._refuse_while_running()
            before = self._conversation
            if message not in before.messages:
                raise MessageGone
            self._conversation = before.without(message)
            self._deleted = message, before
            return len(before.messages) - len(self._conversation.messages)

    def restore(self, message: int) -> None:
        """Bring back what was deleted last; MessageGone where that was not `message`, or nothing is left to follow."""
        with self._lock:
            self._refuse_while_running()
            if self._deleted is None or self._deleted[0] != message:
                raise MessageGone
            earlier = self._deleted[1]
            if earlier.messages[message].parent not in (None, *self._conversation.messages):
                raise MessageGone
            self._conversation = self._conversation.restored(message, earlier)

    def keep_reasoning(self, reply: int, keep: bool | None) -> None:
        """Leave the reasoning of one reply in or out of the context; None follows the general choice."""
        with self._lock:
            self._conversation = self._conversation.keep_reasoning(self._reply(reply).id, keep)

    def edit(
        self, message: int, text: str, params: SamplingParams, choices: PromptChoices | None = None
    ) -> RunningReply:
        """Say something else in the place of a message, with the same pictures; the old one stays as its sibling."""
        with self._lock:
            self._refuse_while_running()
            old = self._user(message)
            self._check(text, old.images)
            return self._begin(self._conversation.edit(message, text), params, choices)

    def choose(self, message: int) -> None:
        """Show the branch of `message` instead of its sibling's."""
        with self._lock:
            self._refuse_while_running()
            if message not in self._conversation.messages:
                raise MessageGone
            self._conversation = self._conversation.choose(message)

    def measure(
        self, text: str, images: Sequence[ImageFile], choices: PromptChoices | None = None
    ) -> tuple[Measure, Prompt, int | None]:
        """What the next prompt would cost with this message at its end, that prompt, and the message's id in it.

        Nothing is sent. While a reply is being written nothing can be, so the message is not in it then, and has no id. Raises
        BadInput or NotReady.
        """
        conversation, running = self.snapshot()
        if text.strip() or images:
            self._check(text, images)
        draft = None
        if running is None:
            conversation = conversation.say(text, tuple(images))
            draft = conversation.last_id
        prompt = self._prompt(conversation, choices)
        return self._engine.measure(prompt, self._key), prompt, draft

    def stop(self) -> None:
        """End the running reply, keeping what was written."""
        if running := self.running:
            running.generation.stop()

    def answer_now(self) -> None:
        """End the reasoning of the running reply."""
        if running := self.running:
            running.generation.answer_now()

    def retire(self) -> bool:
        """Take no more words, to be dropped from memory by whoever is told True; never waits, likewise.

        False where somebody works with it, or drops it already.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._retired:
                return False
            self._settle()
            self._retired = self._running is None
            return self._retired
        finally:
            self._lock.release()

    def close(self) -> None:
        """Stop what runs and let the engine forget it; the session is not used any more."""
        with self._lock:
            if self._running is not None:
                self._running.generation.stop()
        self._engine.forget(self._key)

    @property
    def runs(self) -> Provenance:
        """What would write a reply now."""
        return runs(self._engine)

    def _checked(self, reasoning: str, old: Reply) -> str:
        """Reasoning that a person wrote, as it may be gone on from: as much more than `old` had as a message may have."""
        if self._engine.card.marks == "text":  # there, a mark that someone types would end the reasoning
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
        """A finished reply to do something with; with the lock held."""
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

    def _tokens(self, conversation: Conversation, beginning: Reply, choices: PromptChoices | None) -> int:
        """How many tokens a beginning has."""
        prompt = self._prompt(conversation, choices, beginning)
        without = replace(prompt, resume=None)
        return self._engine.measure(prompt, self._key).total - self._engine.measure(without, self._key).total

    def _prompt(
        self, conversation: Conversation, choices: PromptChoices | None, beginning: Reply | None = None
    ) -> Prompt:
        choices = choices or PromptChoices()
        system = self._engine.card.system(choices.system_prompt)
        return compose(conversation, system, choices, resume_of(beginning))

    def _refuse_while_running(self) -> None:
        if self._retired:  # whoever asks again gets the one that is in its place
            raise Overloaded
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
        replays: Reply | None = None,
    ) -> RunningReply:
        asked = conversation.last_user()
        if asked is None:
            raise MessageGone
        choices = choices or PromptChoices()
        self._limits.check_conversation(conversation)
        self._limits.check_params(params)
        params = self._limits.bounded(params, self._budgets).with_seed(self._seeds)
        prompt = self._prompt(conversation, choices, before)
        source = provenance(self._engine, prompt, choices, before)
        running = RunningReply(Generation(), asked.id, params, source, before, continues, replays)
        with self._admission.reply() if self._admission else nullcontext(_uncounted) as begun_with:
            if self._recorder is not None and isinstance(self._engine.status(), Ready):
                self._recorder.begin(conversation, dict(self._written), running)
            generation = self._engine.submit(GenerationRequest(prompt, params, self._key))
            begun_with(generation)
        # Only now, so that a request that the engine refuses leaves no trace; from the record, `save` takes it out again.
        self._conversation, self._running = conversation, replace(running, generation=generation)
        return self._running

    @property
    def _budgets(self) -> bool:
        """Whether the engine can close reasoning when a budget is spent."""
        status = self._engine.status()
        return not (isinstance(status, Ready) and "reasoning_budget" in status.info.missing)

    def _settle(self) -> None:
        """Attach the reply that has ended; with the lock held."""
        running = self._running
        if running is None or not running.generation.ended:
            return
        self._running = None
        draft = ReplyBuilder()
        for stamped in running.generation.take():
            draft.feed(stamped.event)
        reply = draft.reply(running.params, running.model, running.before)
        reply = replace(reply, provenance=running.provenance)
        notice = replay_notice(running.replays, reply) if running.replays else None
        if notice is not None:
            draft.notices.append(notice)
            reply = replace(reply, notices=(*reply.notices, notice.key))
        written = ReplyOrigin(running.generation.id, tuple(draft.notices))
        if running.continues is not None:
            self._conversation = self._conversation.rewritten(running.continues, reply)
            self._written[running.continues] = written
        elif isinstance(self._conversation.messages.get(running.to), UserMessage):
            self._conversation = self._conversation.with_reply(reply, running.to)
            self._written[self._conversation.last_id] = written
