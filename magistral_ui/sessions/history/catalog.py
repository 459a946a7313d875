"""The list of a visitor's conversations: listing, renaming, pinning, deleting, restoring; not their messages."""

import sqlite3
import time

from magistral_ui.sessions.history.image_store import ImageStore
from magistral_ui.sessions.history.search import ConversationSummary
from magistral_ui.sessions.history.store import MAX_TITLE_LENGTH, sound

MAX_LISTED = 2_000
"""Conversations in the list; older ones can be found by searching."""
UNDO_SECONDS = 60.0
"""Seconds for which a deleted conversation can be restored."""


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
