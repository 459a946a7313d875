"""Finds a visitor's session by the secret id that the server once gave to the browser; it does not know the browser."""

import secrets
import threading
from collections import OrderedDict

from magistral_ui.engines.base import Engine
from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.session import Session


class Visitors:
    """All sessions of this process, bounded in number. An id is 256 random bits: whoever knows it is the visitor."""

    def __init__(self, engine: Engine, limits: Limits | None = None) -> None:
        self._engine, self.limits = engine, limits or Limits()
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def find(self, visitor: object) -> Session | None:
        """The session of `visitor`, or None for an id that this server did not give or has forgotten."""
        if not isinstance(visitor, str):
            return None
        with self._lock:
            session = self._sessions.get(visitor)
            if session is not None:
                self._sessions.move_to_end(visitor)
            return session

    def open(self, visitor: object = None) -> tuple[str, Session]:
        """The visitor's id and session; a new pair where the id is not known. Ids are never taken from outside."""
        known = self.find(visitor)
        if known is not None:
            return str(visitor), known
        fresh, session = secrets.token_urlsafe(32), self.guest()
        with self._lock:
            self._sessions[fresh] = session
            self._make_room()
        return fresh, session

    def guest(self, party: str = "") -> Session:
        """A session that is not kept: for one call of the programmatic door. Fairness counts all of a `party`'s together."""
        key = secrets.token_urlsafe(16)
        return Session(self._engine, self.limits, key=f"{party.replace('/', ' ')}/{key}" if party else key)

    def close(self) -> None:
        """Stop all that runs."""
        with self._lock:
            for session in self._sessions.values():
                session.close()
            self._sessions.clear()

    def __len__(self) -> int:
        return len(self._sessions)

    def _make_room(self) -> None:
        while len(self._sessions) > self.limits.visitors:
            newest = next(reversed(self._sessions))
            idle = (key for key, each in self._sessions.items() if key != newest and each.running is None)
            doomed = next(idle, next(iter(self._sessions)))
            self._sessions.pop(doomed).close()
