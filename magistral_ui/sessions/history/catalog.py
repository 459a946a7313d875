"""Who owns conversations, and the list of a visitor's: listing, renaming, pinning, deleting, restoring; not their messages."""

import secrets
import sqlite3
import threading
import time

from magistral_ui.sessions.history.image_store import ImageStore
from magistral_ui.sessions.history.search import ConversationSummary
from magistral_ui.sessions.history.store import MAX_TITLE_LENGTH, sound

MAX_LISTED = 2_000
"""Conversations in the list; older ones can be found by searching."""
UNDO_SECONDS = 60.0
"""Seconds for which a deleted conversation can be restored."""
MAX_ERASED = 10_000
"""Forgotten visitors to remember after their data was deleted, in case a late write brings more of it."""
LOGIN_PREFIX = "login-"
"""No hash of a browser's secret begins like this, so no browser's secret leads to the visitor of a login."""


def listing(db: sqlite3.Connection, visitor: str) -> list[ConversationSummary]:
    """The visitor's conversations, pinned ones first, then the latest."""
    return _summaries(db, visitor, f"ORDER BY pinned DESC, changed DESC LIMIT {MAX_LISTED}")


def by_date(db: sqlite3.Connection, visitor: str) -> list[ConversationSummary]:
    """All of the visitor's conversations, the latest first."""
    return _summaries(db, visitor, "ORDER BY changed DESC")


def latest(db: sqlite3.Connection, visitor: str) -> str:
    """The id of the visitor's conversation that changed last; empty if there is none."""
    return next((each.id for each in _summaries(db, visitor, "ORDER BY changed DESC LIMIT 1")), "")


def _summaries(db: sqlite3.Connection, visitor: str, order: str) -> list[ConversationSummary]:
    columns = "SELECT id, title, pinned, changed FROM conversations WHERE visitor = ? AND deleted IS NULL"
    rows = db.execute(f"{columns} {order}", (visitor,))
    return [ConversationSummary(id, title, bool(pinned), changed) for id, title, pinned, changed in rows]


def count(db: sqlite3.Connection, visitor: str) -> int:
    rows = db.execute("SELECT count(*) FROM conversations WHERE visitor = ? AND deleted IS NULL", (visitor,))
    return int(rows.fetchone()[0])


def knows(db: sqlite3.Connection, visitor: str) -> bool:
    """Whether anything of this visitor is stored."""
    return db.execute("SELECT 1 FROM conversations WHERE visitor = ? LIMIT 1", (visitor,)).fetchone() is not None


def rename(db: sqlite3.Connection, visitor: str, id: str, title: str) -> bool:
    """Give the chat a title of the visitor's own (`store.title_of` makes the default one); whether it exists."""
    title = sound(" ".join(title.split())[:MAX_TITLE_LENGTH])
    return bool(title) and _change(db, visitor, id, "title = ?, named = 1", title)


def pin(db: sqlite3.Connection, visitor: str, id: str, pinned: bool) -> bool:
    """Pin it to the top of the list, or unpin it; whether it exists."""
    return _change(db, visitor, id, "pinned = ?", pinned)


def remove(db: sqlite3.Connection, visitor: str, id: str) -> bool:
    """Mark it as deleted, so that it can be restored for a minute; whether it existed."""
    return _change(db, visitor, id, "deleted = ?", time.time(), only=" AND deleted IS NULL")


def restore(db: sqlite3.Connection, visitor: str, id: str) -> bool:
    """Restore a deleted one; whether it still existed."""
    return _change(db, visitor, id, "deleted = NULL")


def _change(db: sqlite3.Connection, visitor: str, id: str, change: str, *values: object, only: str = "") -> bool:
    """Change a conversation, if it is the visitor's; whether it is."""
    where = (*values, id, visitor)
    return db.execute(f"UPDATE conversations SET {change} WHERE id = ? AND visitor = ?{only}", where).rowcount > 0


def forget(db: sqlite3.Connection, visitor: str) -> int:
    """Delete all of the visitor's conversations permanently; returns their number."""
    return _erase(db, "visitor = ?", (visitor,))


def purge(db: sqlite3.Connection, oldest: float | None, reprieve: float = UNDO_SECONDS) -> int:
    """Permanently delete removed conversations, and those unchanged since `oldest`; returns their number."""
    where, values = "deleted < ?", [time.time() - reprieve]
    if oldest is not None:
        where, values = f"{where} OR changed < ?", [*values, oldest]
    return _erase(db, where, tuple(values))


def _erase(db: sqlite3.Connection, where: str, values: tuple[object, ...]) -> int:
    return db.execute(f"DELETE FROM conversations WHERE {where}", values).rowcount


def sweep(db: sqlite3.Connection, files: ImageStore) -> bool:
    """Delete the images that no message uses; whether all of them are gone."""
    used = {digest for (digest,) in db.execute("SELECT DISTINCT digest FROM pictures")}
    gone = [files.remove(digest) for digest in files.all() if digest not in used]
    return all([*gone, files.remove_unfinished()])


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
        visitor = LOGIN_PREFIX + secrets.token_hex(32)
        self._visitors[login], self._logins[visitor] = visitor, login
        return visitor


def mark_forgotten(db: sqlite3.Connection, visitor: str) -> None:
    """Record that all data of a visitor is to be deleted, so that the next process does it if this one cannot."""
    kept = "INSERT OR IGNORE INTO forgotten SELECT ? WHERE EXISTS (SELECT 1 FROM conversations WHERE visitor = ?)"
    db.execute(kept, (visitor, visitor))


def unmark_forgotten(db: sqlite3.Connection, visitor: str) -> None:
    """Remove the record that a visitor is to be deleted, and their login."""
    db.execute("DELETE FROM logins WHERE visitor = ?", (visitor,))
    db.execute("DELETE FROM forgotten WHERE visitor = ?", (visitor,))


def hand_over(db: sqlite3.Connection, before: str, visitor: str) -> None:
    db.execute("UPDATE conversations SET visitor = ? WHERE visitor = ?", (visitor, before))
