"""Who owns conversations: the visitor of each login, and the forgotten visitors; it reads no conversation."""

import secrets
import sqlite3
import threading

MAX_ERASED = 10_000
"""Forgotten visitors to remember after their data was deleted, in case a late write brings more of it."""
PREFIX = "login-"
"""No hash of a browser's secret begins like this, so no browser's secret leads to the visitor of a login."""


class Owners:
    """Maps each login to one visitor in every browser, and to a new one after everything was forgotten. Thread-safe."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._lock = threading.Lock()
        forgotten = db.execute("SELECT visitor FROM forgotten")
        self._forgotten: dict[str, bool] = {visitor: False for (visitor,) in forgotten}
        """Forgotten visitors, and whether all of their data has been deleted."""
        rows = db.execute("SELECT login, visitor FROM logins").fetchall()
        self._logins: dict[str, str] = {visitor: login for login, visitor in rows}
        """Logins by visitor, including forgotten visitors whose data is not deleted yet."""
        self._visitors: dict[str, str] = {login: each for login, each in rows if each not in self._forgotten}

    def visitor_of(self, login: str) -> str:
        with self._lock:
            return self._visitors.get(login) or self._renew(login)

    def record(self, db: sqlite3.Connection, visitor: str) -> None:
        """Record a visitor's login, in the same transaction as their other data."""
        with self._lock:
            login = self._logins.get(visitor)
            if login is None or self._visitors.get(login) != visitor:
                return
        # The login's previous visitor has been forgotten, even if the disk was too full to record that.
        before = "INSERT OR IGNORE INTO forgotten SELECT visitor FROM logins WHERE login = ? AND visitor <> ?"
        db.execute(before, (login, visitor))
        changed = "UPDATE SET visitor = excluded.visitor WHERE visitor <> excluded.visitor"
        db.execute(f"INSERT INTO logins VALUES (?,?) ON CONFLICT DO {changed}", (login, visitor))

    def forget(self, visitor: str) -> None:
        """From now on, store nothing more of a visitor; their login gets a new visitor."""
        with self._lock:
            self._forgotten.setdefault(visitor, False)
            login = self._logins.get(visitor)
            if login is not None and self._visitors.get(login) == visitor:
                self._renew(login)
            erased = [each for each, done in self._forgotten.items() if done]
            for each in erased[: max(0, len(erased) - MAX_ERASED)]:
                del self._forgotten[each]

    def is_forgotten(self, visitor: str) -> bool:
        return visitor in self._forgotten

    def unerased(self, of: str | None = None) -> list[str]:
        """Forgotten visitors whose data is not deleted yet; with `of`, only that one and others of the same login."""
        with self._lock:
            login = self._logins.get(of) if of is not None else None
            waiting = [visitor for visitor, erased in self._forgotten.items() if not erased]
            same = (each == of or (login is not None and self._logins.get(each) == login) for each in waiting)
            return [each for each, wanted in zip(waiting, same, strict=True) if of is None or wanted]

    def erased(self, visitor: str) -> None:
        """Record that all of the visitor's data has been deleted."""
        with self._lock:
            self._forgotten[visitor] = True
            self._logins.pop(visitor, None)

    def _renew(self, login: str) -> str:
        visitor = PREFIX + secrets.token_hex(32)
        self._visitors[login], self._logins[visitor] = visitor, login
        return visitor


def mark(db: sqlite3.Connection, visitor: str) -> None:
    """Record that all data of a visitor is to be deleted, so that the next process does it if this one cannot."""
    kept = "INSERT OR IGNORE INTO forgotten SELECT ? WHERE EXISTS (SELECT 1 FROM conversations WHERE visitor = ?)"
    db.execute(kept, (visitor, visitor))


def unmark(db: sqlite3.Connection, visitor: str) -> None:
    """Remove the record that a visitor is to be deleted, and their login."""
    db.execute("DELETE FROM logins WHERE visitor = ?", (visitor,))
    db.execute("DELETE FROM forgotten WHERE visitor = ?", (visitor,))


def hand_over(db: sqlite3.Connection, before: str, visitor: str) -> None:
    db.execute("UPDATE conversations SET visitor = ? WHERE visitor = ?", (visitor, before))
