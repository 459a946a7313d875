"""Saves one conversation to the history: it knows what is already written, and writes the rest piece by piece."""

import sqlite3
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.events import Answer, Notice, Reasoning, Reclassified
from magistral_ui.chat.reply import ReplyBuilder, ReplyOrigin
from magistral_ui.engines.generation import Generation, RunningReply
from magistral_ui.sessions.history import store
from magistral_ui.sessions.history.database import History
from magistral_ui.sessions.history.store import DraftPiece, StoredConversation


@dataclass(slots=True)
class UnsavedEvents:
    """What a generation has added since the last piece was handed to the history."""

    seen: int = 0
    number: int = 0
    draft: ReplyBuilder = field(default_factory=ReplyBuilder)

    def next_piece(self, generation: Generation) -> DraftPiece | None:
        """The next piece to write, or None if nothing is new."""
        fresh = [each.event for each in generation.take(self.seen, attended=False)]
        for event in fresh:
            self.draft.feed(event)
        self.seen += len(fresh)
        reclassified = any(isinstance(event, Reclassified) for event in fresh)
        notices = tuple(event for event in fresh if isinstance(event, Notice))
        if not (notices or any(isinstance(event, Reasoning | Answer | Reclassified) for event in fresh)):
            return None
        self.number += 1
        texts, usage = self.draft.take_texts(), generation.usage
        return DraftPiece(self.number - 1, *texts, usage, self.draft.closed, notices, reclassified)


class HistoryRecorder:
    """What saves a session's conversation, so that it outlives this process. Thread-safe."""

    def __init__(self, history: History, visitor: str, id: str, kept: StoredConversation | None = None) -> None:
        """`kept` is what the history already holds."""
        self._history, self._visitor, self._id = history, visitor, id
        self._lock = threading.Lock()
        self._saved = kept.conversation if kept else None
        """What is on disk, or on its way there; None to write all of it."""
        self._drafting = kept is not None and kept.running is not None
        """Whether there is a draft on disk, or on its way there."""
        self._generation: Generation | None = None
        self._unwritten = UnsavedEvents()
        self._pending: list[Future[Any]] = []
        self._closed = False

    def begin(self, conversation: Conversation, written: Mapping[int, ReplyOrigin], running: RunningReply) -> None:
        """Save the conversation and `running`, whose generation is not the real one yet; wait until it is saved, or failed."""
        with self._lock:
            if self._closed:
                return
            self._drop_finished()
            self._drafting, self._generation, self._unwritten = True, None, UnsavedEvents()
            done = self._save(StoredConversation(conversation, written, running))
        self._history.writer.wait_for(done, None)

    def save(
        self,
        conversation: Conversation,
        written: Mapping[int, ReplyOrigin],
        running: RunningReply | None,
        changed: float,
    ) -> None:
        """Save what has changed since the last time, the last of it at `changed`; called repeatedly, and never waits.

        While anything is still being written, nothing more is queued: a slow disk gets larger pieces, not more of them.
        """
        with self._lock:
            self._drop_finished()
            if self._closed or self._pending:
                return
            if running is not None and running.generation is not self._generation:
                self._generation, self._unwritten = running.generation, UnsavedEvents()
            if conversation is not self._saved or self._drafting != (running is not None):
                if conversation.messages or self._saved is not None:
                    # Saving the conversation restarts its draft, so all of the reply's pieces are written again.
                    self._drafting, self._unwritten = running is not None, UnsavedEvents()
                    self._save(StoredConversation(conversation, written, running, changed))
            elif running is not None and (piece := self._unwritten.next_piece(running.generation)) is not None:
                self._pending.append(self._history.writer.put(lambda db: store.add_piece(db, self._id, piece)))

    def has_saved(self, conversation: Conversation) -> bool:
        """Whether all of it is saved; never waits."""
        with self._lock:
            self._drop_finished()
            if self._closed:
                return True
            empty = self._saved is None and not conversation.messages
            return not self._pending and not self._drafting and (empty or conversation is self._saved)

    def close(self) -> None:
        """Write nothing more: the conversation is deleted."""
        with self._lock:
            self._closed = True

    def flush(self) -> None:
        with self._lock:
            pending = list(self._pending)
        for each in pending:
            self._history.writer.wait_for(each, None)

    def _drop_finished(self) -> None:
        """Drop finished writes; after a failure, everything is written again. Call with the lock held."""
        for each in [each for each in self._pending if each.done()]:
            self._pending.remove(each)
            if each.exception() is not None:
                self._saved, self._drafting = None, False

    def _save(self, now: StoredConversation) -> "Future[Any]":
        before = self._saved

        def job(db: sqlite3.Connection) -> None:
            if self._history.owners.is_forgotten(self._visitor):
                return
            self._history.owners.record(db, self._visitor)
            store.save(db, self._history.images, self._visitor, self._id, before, now)

        self._saved = now.conversation
        self._pending.append(done := self._history.writer.put(job))
        return done
