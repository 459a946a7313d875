"""Whose conversations are, and a visitor's as a list: renamed, pinned, removed, restored, forgotten; not what is said in them."""

import secrets
import sqlite3
import threading
import time

from magistral_ui.sessions.history.image_store import ImageStore
from magistral_ui.sessions.history.search import ConversationSummary
from magistral_ui.sessions.history.store import MAX_TITLE_LENGTH, sound

MAX_LISTED = 2_000
"""Conversations in a list; older ones are found by searching."""
UNDO_SECONDS = 60.0
"""Seconds for which a deleted conversation can come back."""
MAX_ERASED = 10_000
"""Forgotten visitors that are remembered after their data was deleted, in case more of it is still on its way."""
LOGIN_PREFIX = "login-"
"""No hash of a browser's secret begins like this: a visitor found by a login is found by no browser's place."""


def listing(db: sqlite3.Connection, visitor: str) -> list[ConversationSummary]:
    """The visitor's: pinned ones first, then the latest."""
    return _summaries(db, visitor, f"ORDER BY pinned DESC, changed DESC LIMIT {MAX_LISTED}")


def by_date(db: sqlite3.Connection, visitor: str) -> list[ConversationSummary]:
    """All of the visitor's, the latest first."""
    return _summaries(db, visitor, "ORDER BY changed DESC")


def latest(db: sqlite3.Connection, visitor: str) -> str:
    """The id of the visitor's conversation that changed last; empty where there is none."""
    return next((each.id for each in _summaries(db, visitor, "ORDER BY changed DESC LIMIT 1")), "")


def _summaries(db: sqlite3.Connection, visitor: str, order: str) -> list[ConversationSummary]:
    columns = "SELECT id, title, pinned, changed FROM conversations WHERE visitor = ? AND deleted IS NULL"
    rows = db.execute(f"{columns} {order}", (visitor,))
    return [ConversationSummary(id, title, bool(pinned), changed) for id, title, pinned, changed in rows]


def count(db: sqlite3.Connection, visitor: str) -> int:
    rows = db.execute("SELECT count(*) FROM conversations WHERE visitor = ? AND deleted IS NULL", (visitor,))
    return int(rows.fetchone()[0])


def knows(db: sqlite3.Connection, visitor: str) -> bool:
    """Whether anything of this visitor is kept."""
    return db.execute("SELECT 1 FROM conversations WHERE visitor = ? LIMIT 1", (visitor,)).fetchone() is not None


def rename(db: sqlite3.Connection, visitor: str, id: str, title: str) -> bool:
    """Give it a title; whether it is there."""
    title = sound(" ".join(title.split())[:MAX_TITLE_LENGTH])
    return bool(title) and _change(db, visitor, id, "title = ?, named = 1", title)


def pin(db: sqlite3.Connection, visitor: str, id: str, pinned: bool) -> bool:
    """Keep it at the top, or no longer; whether it is there."""
    return _change(db, visitor, id, "pinned = ?", pinned)


def remove(db: sqlite3.Connection, visitor: str, id: str) -> bool:
    """Mark it as deleted, so that it can come back for a minute; whether it was there."""
    return _change(db, visitor, id, "deleted = ?", time.time(), only=" AND deleted IS NULL")


def restore(db: sqlite3.Connection, visitor: str, id: str) -> bool:
    """Bring a deleted one back; whether it was still there."""
    return _change(db, visitor, id, "deleted = NULL")


def _change(db: sqlite3.Connection, visitor: str, id: str, change: str, *values: object, only: str = "") -> bool:
    """Change one conversation, if it is the visitor's; whether it is."""
    where = (*values, id, visitor)
    return db.execute(f"UPDATE conversations SET {change} WHERE id = ? AND visitor = ?{only}", where).rowcount > 0


def forget(db: sqlite3.Connection, visitor: str) -> int:
    """Delete all of the visitor's for good; the number of conversations."""
    return _erase(db, "visitor = ?", (visitor,))


def purge(db: sqlite3.Connection, oldest: float | None, reprieve: float = UNDO_SECONDS) -> int:
    """Delete for good what was removed before, and what has not changed since `oldest`; the number of conversations."""
    where, values = "deleted < ?", [time.time() - reprieve]
    if oldest is not None:
        where, values = f"{where} OR changed < ?", [*values, oldest]
    return _erase(db, where, tuple(values))


def _erase(db: sqlite3.Connection, where: str, values: tuple[object, ...]) -> int:
    return db.execute(f"DELETE FROM conversations WHERE {where}", values).rowcount


def sweep(db: sqlite3.Connection, files: ImageStore) -> bool:
    """Delete the images that no message shows; whether all of them are gone."""
    shown = {digest for (digest,) in db.execute("SELECT DISTINCT digest FROM pictures")}
    gone = [files.remove(digest) for digest in files.all() if digest not in shown]
    return all([*gone, files.remove_unfinished()])


class Owners:
    """A login is one visitor in every browser, and another one after everything was forgotten. Thread-safe."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._lock = threading.Lock()
        forgotten = db.execute("SELECT visitor FROM forgotten")
        self._forgotten: dict[str, bool] = {visitor: False for (visitor,) in forgotten}
        """Visitors of whom nothing is kept any more, with whether all of it has been deleted."""
        rows = db.execute("SELECT login, visitor FROM logins").fetchall()
        self._logins: dict[str, str] = {visitor: login for login, visitor in rows}
        """Logins by their visitors, including forgotten ones that are not deleted yet."""
        self._visitors: dict[str, str] = {login: each for login, each in rows if each not in self._forgotten}

    def visitor_of(self, login: str) -> str:
        with self._lock:
            return self._visitors.get(login) or self._renew(login)

    def record(self, db: sqlite3.Connection, visitor: str) -> None:
        """Record a visitor's login, in the same transaction as whatever else is kept of them."""
        with self._lock:
            login = self._logins.get(visitor)
            if login is None or self._visitors.get(login) != visitor:
                return
        # The login's visitor before has been forgotten, even if the disk was too full to record that then.
        before = "INSERT OR IGNORE INTO forgotten SELECT visitor FROM logins WHERE login = ? AND visitor <> ?"
        db.execute(before, (login, visitor))
        changed = "UPDATE SET visitor = excluded.visitor WHERE visitor <> excluded.visitor"
        db.execute(f"INSERT INTO logins VALUES (?,?) ON CONFLICT DO {changed}", (login, visitor))

    def forget(self, visitor: str) -> None:
        """From now on nothing more of a visitor is kept; their login stands for another one."""
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
        """Visitors who are forgotten but not deleted yet; `of` a visitor, only those that the same login stood for."""
        with self._lock:
            login = self._logins.get(of) if of is not None else None
            waiting = [visitor for visitor, erased in self._forgotten.items() if not erased]
            same = (each == of or (login is not None and self._logins.get(each) == login) for each in waiting)
            return [each for each, wanted in zip(waiting, same, strict=True) if of is None or wanted]

    def erased(self, visitor: str) -> None:
        """All of the visitor's has been deleted."""
        with self._lock:
            self._forgotten[visitor] = True
            self._logins.pop(visitor, None)

    def _renew(self, login: str) -> str:
        visitor = LOGIN_PREFIX + secrets.token_hex(32)
        self._visitors[login], self._logins[visitor] = visitor, login
        return visitor


def mark_forgotten(db: sqlite3.Connection, visitor: str) -> None:
    """Record that everything of a visitor is to be deleted, so that the next process does what this one cannot."""
    kept = "INSERT OR IGNORE INTO forgotten SELECT ? WHERE EXISTS (SELECT 1 FROM conversations WHERE visitor = ?)"
    db.execute(kept, (visitor, visitor))


def unmark_forgotten(db: sqlite3.Connection, visitor: str) -> None:
    """Remove the record that a visitor is to be deleted, and their login."""
    db.execute("DELETE FROM logins WHERE visitor = ?", (visitor,))
    db.execute("DELETE FROM forgotten WHERE visitor = ?", (visitor,))


def hand_over(db: sqlite3.Connection, before: str, visitor: str) -> None:
    db.execute("UPDATE conversations SET visitor = ? WHERE visitor = ?", (visitor, before))
