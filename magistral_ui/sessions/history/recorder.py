"""One conversation's place in the history: it knows what of it is written already, and writes the rest, a piece at a time."""

import sqlite3
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.events import Answer, Event, Notice, Reasoning, Reclassified, Usage
from magistral_ui.engines.generation import Generation, Stamped
from magistral_ui.sessions.history import store
from magistral_ui.sessions.history.database import History
from magistral_ui.sessions.history.reply_state import ReplyOrigin, RunningReply
from magistral_ui.sessions.history.store import DraftPiece, StoredConversation


@dataclass(slots=True)
class UnsavedEvents:
    """What a generation has added since the last piece that is on disk, and its counts and times so far."""

    seen: int = 0
    """Events that were taken in."""
    number: int = 0
    """Of the next piece."""
    reasoning: list[str] = field(default_factory=list)
    answer: list[str] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    first_reasoning: float | None = None
    closed: bool = False
    reclassified: bool = False
    """Whether what the pieces on disk call the answer was reasoning."""

    def feed(self, fresh: list[Stamped]) -> None:
        """Take in new events."""
        self.seen += len(fresh)
        for stamped in fresh:
            self._count(stamped.event, stamped.seconds)

    def _count(self, event: Event, seconds: float) -> None:
        usage = self.usage
        match event:
            case Reasoning(text, tokens):
                self.reasoning.append(text)
                self.first_reasoning = seconds if self.first_reasoning is None else self.first_reasoning
                spent = seconds - self.first_reasoning
                usage = replace(usage, reasoning_tokens=usage.reasoning_tokens + tokens, reasoning_seconds=spent)
            case Answer(text, tokens):
                self.answer.append(text)
                self.closed = True
                usage = replace(usage, answer_tokens=usage.answer_tokens + tokens)
            case Reclassified():
                said = "".join(self.answer)
                self.reasoning.append(said if any(self.reasoning) or self.number else said.lstrip("\r\n"))
                self.answer, self.closed, self.reclassified = [], True, True
                began = usage.first_token_seconds if self.first_reasoning is None else self.first_reasoning
                self.first_reasoning = began
                usage = replace(usage.reclassified(), reasoning_seconds=seconds - began)
            case Notice():
                self.notices.append(event)
                return
            case _:
                return
        self.usage = replace(usage, first_token_seconds=usage.first_token_seconds or seconds, total_seconds=seconds)

    def piece(self) -> DraftPiece | None:
        """What there is to write, or None."""
        if not (self.reasoning or self.answer or self.notices or self.reclassified):
            return None
        texts = "".join(self.reasoning), "".join(self.answer)
        return DraftPiece(self.number, *texts, self.usage, self.closed, tuple(self.notices), self.reclassified)

    def forget(self, parts: tuple[int, int, int]) -> None:
        """The first so many parts are on disk."""
        del self.reasoning[: parts[0]], self.answer[: parts[1]], self.notices[: parts[2]]
        self.reclassified = False
        self.number += 1

    @property
    def parts(self) -> tuple[int, int, int]:
        """How many parts there are."""
        return len(self.reasoning), len(self.answer), len(self.notices)


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """A writing on its way; `parts` says how much of `unwritten` it takes with it."""

    done: "Future[Any]"
    unwritten: UnsavedEvents | None = None
    parts: tuple[int, int, int] = (0, 0, 0)


class HistoryRecorder:
    """Where a session puts down its conversation. Its methods may be called from any thread."""

    def __init__(self, history: History, visitor: str, id: str, kept: StoredConversation | None = None) -> None:
        """`kept` is what the history holds of it already."""
        self._history, self._visitor, self._id = history, visitor, id
        self._lock = threading.Lock()
        self._saved = kept.conversation if kept else None
        """What is on disk, or on its way there; None to write all of it."""
        self._drafting = kept is not None and kept.running is not None
        """Whether there is a draft on disk, or on its way there."""
        self._generation: Generation | None = None
        self._unwritten = UnsavedEvents()
        self._pending: list[PendingWrite] = []
        self._closed = False

    def begin(self, conversation: Conversation, written: Mapping[int, ReplyOrigin], running: RunningReply) -> None:
        """Put down the conversation and that a reply is begun; returns when that is on disk, or cannot be."""
        with self._lock:
            if self._closed:
                return
            self._settle()
            self._drafting, self._generation, self._unwritten = True, None, UnsavedEvents()
            done = self._save(StoredConversation(conversation, written, running))
        self._history.wait_for(done, None)

    def save(
        self, conversation: Conversation, written: Mapping[int, ReplyOrigin], running: RunningReply | None
    ) -> None:
        """Put down what has changed since the last time; called again and again, and returns at once."""
        with self._lock:
            self._settle()
            if self._closed or self._pending:
                return
            if running is not None and running.generation is not self._generation:
                self._generation, self._unwritten = running.generation, UnsavedEvents()
            if conversation is not self._saved or self._drafting != (running is not None):
                if conversation.messages or self._saved is not None:
                    # A draft is begun again with it, so all of it is written again behind this.
                    self._drafting, self._unwritten = running is not None, UnsavedEvents()
                    self._save(StoredConversation(conversation, written, running))
            elif running is not None:
                self._add_piece(running.generation)

    def has_saved(self, conversation: Conversation) -> bool:
        """Whether all of it is written; never waits for that."""
        with self._lock:
            self._settle()
            if self._closed:
                return True
            empty = self._saved is None and not conversation.messages
            return not self._pending and not self._drafting and (empty or conversation is self._saved)

    def close(self) -> None:
        """Write nothing more: the conversation is deleted."""
        with self._lock:
            self._closed = True

    def flush(self) -> None:
        """Wait for what is on its way."""
        with self._lock:
            pending = list(self._pending)
        for each in pending:
            self._history.wait_for(each.done, None)

    def _settle(self) -> None:
        """Take note of what is written by now; after a failure all is written again. With the lock held."""
        for each in [each for each in self._pending if each.done.done()]:
            self._pending.remove(each)
            if each.done.exception() is not None:
                self._saved, self._drafting = None, False
            elif each.unwritten is not None:
                each.unwritten.forget(each.parts)

    def _save(self, now: StoredConversation) -> "Future[Any]":
        before = self._saved

        def job(db: sqlite3.Connection) -> None:
            if self._history.owners.is_forgotten(self._visitor):
                return
            self._history.owners.record(db, self._visitor)
            store.save(db, self._history.images, self._visitor, self._id, before, now)

        self._saved = now.conversation
        self._pending.append(PendingWrite(done := self._history.put(job)))
        return done

    def _add_piece(self, generation: Generation) -> None:
        unwritten = self._unwritten
        unwritten.feed(generation.take(unwritten.seen, looking=False))
        piece = unwritten.piece()
        if piece is None:
            return
        done = self._history.put(lambda db: store.add_piece(db, self._id, piece))
        self._pending.append(PendingWrite(done, unwritten, unwritten.parts))
