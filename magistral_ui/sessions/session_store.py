"""The sessions in memory: bounded in number and bytes, saved as they change, with the browsers that may follow each."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from secrets import compare_digest

from magistral_ui.client import CLIENT
from magistral_ui.engines.generation import RunningReply
from magistral_ui.sessions.history.database import History
from magistral_ui.sessions.history.recorder import HistoryRecorder
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.session import Session

MAX_BROWSERS_PER_VISITOR = 16
"""Browsers of one visitor that may follow one session."""
GRACE_SECONDS = 10.0
"""Seconds after opening a session in which its visitor may be about to send a message."""
SAVE_INTERVAL = 0.5
"""Seconds between two saves: including the writing itself, an answer is on disk within a second."""
PURGE_INTERVAL = 60.0
"""Seconds between two purges of what was removed or is too old."""

Key = tuple[str, str]
"""Visitor and conversation."""


@dataclass(slots=True)
class OpenSession:
    """A session and its recorder."""

    session: Session
    recorder: HistoryRecorder
    browsers: list[str] = field(default_factory=list)
    """Those that have shown the visitor's secret, the latest last: only they may follow the session."""
    used: float = 0.0
    """When it was last used, by the monotonic clock."""

    def mark_used(self) -> None:
        """Record that the client, which has shown the secret, uses the session."""
        self.used = time.monotonic()
        browser = CLIENT.get().browser
        if browser in self.browsers:
            self.browsers.remove(browser)
        self.browsers.append(browser)
        del self.browsers[:-MAX_BROWSERS_PER_VISITOR]


class SessionStore:
    """Sessions by visitor and conversation, the least recently used first. It never waits for a session or the disk."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._open: dict[Key, OpenSession] = {}

    def find(self, visitor: str, conversation: str) -> Session | None:
        """The session, now the most recently used one."""
        with self._lock:
            if (found := self._open.pop((visitor, conversation), None)) is None:
                return None
            self._open[(visitor, conversation)] = found  # moved to the end
            found.mark_used()
            return found.session

    def add(
        self, key: Key, opened: OpenSession, unless: Callable[[], bool]
    ) -> tuple[Session, dict[Key, Session]] | None:
        """The session at `key`, by default that of `opened`, and the sessions to evict for it.

        None if it must not be added: `unless` is called while no other thread can add or remove a session.
        """
        with self._lock:
            if unless():
                return None
            found = self._open.setdefault(key, opened)
            found.mark_used()
            return found.session, self._surplus()

    def remove(self, visitor: str, conversation: str) -> OpenSession | None:
        with self._lock:
            return self._open.pop((visitor, conversation), None)

    def clear(self) -> list[OpenSession]:
        with self._lock:
            gone = list(self._open.values())
            self._open.clear()
            return gone

    def of(self, visitor: str) -> dict[str, Session]:
        """A visitor's sessions by conversation, the least recently used first."""
        with self._lock:
            return {id: each.session for (whose, id), each in self._open.items() if whose == visitor}

    def all(self) -> Sequence[Session]:
        with self._lock:
            return [each.session for each in self._open.values()]

    def running_reply(self, generation: str) -> RunningReply | None:
        """The running reply with that id; None if the client may not read it."""
        with self._lock:
            opened = list(self._open.values())
        for each in opened:
            running = each.session.current
            if running and compare_digest(running.generation.id.encode(), generation.encode("utf-8", "replace")):
                return running if CLIENT.get().browser in each.browsers else None
        return None

    def __len__(self) -> int:
        return len(self._open)

    def _surplus(self) -> dict[Key, Session]:
        """The sessions to evict, empty ones first; never the newest, and never one with a running reply. With the lock held.

        Two kinds are spared until the limits are exceeded twofold, since evicting them costs the visitor something: first
        sessions that have just been opened, whose visitor would have to send the message again; longer, sessions that are not
        saved, as on a full disk, whose messages would be lost. Memory must stay bounded on a full disk, too.
        """
        limits, now = self._limits, time.monotonic()
        newest = next(reversed(self._open))
        idle = [(key, each) for key, each in self._open.items() if key != newest and not each.session.busy]
        weights = {key: each.session.memory_bytes for key, each in idle}
        spared = {key: 2 * (not each.session.saved) + (each.used > now - GRACE_SECONDS) for key, each in idle}
        surplus = len(self._open) - limits.visitors
        excess = sum(weights.values()) - limits.memory_mb * 10**6
        evicted: dict[Key, Session] = {}
        for key in sorted(weights, key=lambda key: (spared[key], weights[key] > 0)):
            allowed = 1 if spared[key] else 0  # by how many times the limits may be exceeded
            too_many = surplus > allowed * limits.visitors
            too_large = excess > allowed * limits.memory_mb * 10**6
            if not (too_many or too_large):
                break
            if too_many or weights[key]:  # an empty session frees no bytes
                evicted[key] = self._open[key].session
                surplus, excess = surplus - 1, excess - weights[key]
        return evicted


class Autosave:
    """A thread that saves what is new in every session, and purges the history. `close` ends it."""

    def __init__(self, sessions: Callable[[], Sequence[Session]], history: History, tick: Callable[[], None]) -> None:
        """`sessions` returns all current sessions; `tick` is called between two saves."""
        self._sessions, self._history, self._tick = sessions, history, tick
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="autosave", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        saves = 0
        while not self._ending.wait(SAVE_INTERVAL):
            self._save()
            self._tick()
            saves += 1
            if saves % round(PURGE_INTERVAL / SAVE_INTERVAL) == 0:
                self._history.purge()
        self._save()

    def _save(self) -> None:
        for session in self._sessions():
            session.save()
