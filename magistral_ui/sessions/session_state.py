"""The state of a session: its conversation and running reply, read, saved and retired; it begins no reply."""

import threading
import time
from collections.abc import Mapping
from dataclasses import replace

from magistral_ui.chat.conversation import Conversation, UserMessage
from magistral_ui.chat.reply import ReplyBuilder, ReplyOrigin, replay_notice
from magistral_ui.engines.generation import RunningReply
from magistral_ui.errors import AlreadyAnswering, Overloaded
from magistral_ui.sessions.history.recorder import HistoryRecorder
from magistral_ui.sessions.limits import bytes_of


class SessionState:
    """The state of a session. Its methods may be called from any thread.

    `current`, `busy`, `saved`, `memory_bytes`, `save` and `retire` never wait for a thread that uses the session: they are
    called for all sessions in turn, and one that is measuring a long prompt must not hold up the others.
    """

    def __init__(self, recorder: HistoryRecorder | None = None) -> None:
        """Without a `recorder`, nothing is saved."""
        self._recorder = recorder
        self._lock = threading.RLock()
        self._conversation = Conversation()
        self._running: RunningReply | None = None
        self._written: dict[int, ReplyOrigin] = {}
        self._measured = self._conversation, 0
        self._last_change = self._conversation, 0.0
        """The conversation with the last reply that has ended, and when that was."""
        self._retired = False

    def load(
        self, conversation: Conversation, written: Mapping[int, ReplyOrigin], running: RunningReply | None
    ) -> None:
        """Continue from what was saved earlier."""
        with self._lock:
            self._conversation, self._written, self._running = conversation, dict(written), running

    def save(self) -> None:
        """Save what has changed since the last time; does nothing while another thread uses the session."""
        if self._recorder is None or not self._lock.acquire(blocking=False):
            return
        try:
            self._add_ended_reply()
            changed_to, ended = self._last_change
            changed = ended if self._conversation is changed_to else time.time()
            self._recorder.save(self._conversation, dict(self._written), self._running, changed)
        finally:
            self._lock.release()

    @property
    def conversation(self) -> Conversation:
        """Everything said so far, including a reply that has just ended."""
        return self.snapshot()[0]

    @property
    def running(self) -> RunningReply | None:
        return self.snapshot()[1]

    @property
    def current(self) -> RunningReply | None:
        running = self._running
        return running if running is not None and not running.generation.ended else None

    @property
    def busy(self) -> bool:
        return self.current is not None

    @property
    def saved(self) -> bool:
        return self._recorder is None or (self._running is None and self._recorder.has_saved(self._conversation))

    @property
    def memory_bytes(self) -> int:
        """About how many bytes the conversation takes, computed once for each state."""
        conversation = self._conversation
        if self._measured[0] is not conversation:
            self._measured = conversation, bytes_of(conversation)
        return self._measured[1]

    def snapshot(self) -> tuple[Conversation, RunningReply | None]:
        """The conversation and the running reply at one moment."""
        with self._lock:
            self._add_ended_reply()
            return self._conversation, self._running

    def view(self) -> tuple[Conversation, RunningReply | None, int]:
        """What `snapshot` returns, and a version: in this process, a higher one means the same state or a later one."""
        with self._lock:
            return *self.snapshot(), time.perf_counter_ns()

    def written(self, message: int) -> ReplyOrigin:
        """Where the reply `message` comes from; its generation is empty if that is not known."""
        return self._written.get(message, ReplyOrigin(""))

    def retire(self) -> bool:
        """Accept no more changes; returns whether the caller must drop the session from memory.

        False while a reply is being written or another thread uses the session, and if another caller is dropping it already.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._retired:
                return False
            self._add_ended_reply()
            self._retired = self._running is None
            return self._retired
        finally:
            self._lock.release()

    def _refuse_while_running(self) -> None:
        if self._retired:  # the next request gets the session that replaces it
            raise Overloaded
        self._add_ended_reply()
        if self._running is not None:
            raise AlreadyAnswering

    def _add_ended_reply(self) -> None:
        """Add a reply that has ended to the conversation; with the lock held.

        The next caller does this, not the thread that ends the reply: an engine must never wait for a session.
        """
        running = self._running
        if running is None or not running.generation.ended:
            return
        self._running = None
        draft = ReplyBuilder()
        events = running.generation.take()
        for stamped in events:
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
        self._last_change = self._conversation, time.time() - running.generation.elapsed + events[-1].seconds
