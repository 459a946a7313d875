"""A visitor's conversations as a list: found, named, pinned, deleted and really forgotten; not what is said in them."""

import sqlite3
import time

from magistral_ui.sessions.history.image_store import ImageStore
from magistral_ui.sessions.history.search import ConversationSummary
from magistral_ui.sessions.history.store import MAX_TITLE_LENGTH, sound

MAX_LISTED = 2_000
"""Conversations in a list; older ones are found by searching."""
UNDO_SECONDS = 60.0
"""Seconds for which a deleted conversation can come back."""


def listing(db: sqlite3.Connection, visitor: str) -> list[ConversationSummary]:
    """The visitor's: pinned ones first, then the latest."""
    return _entries(db, visitor, "pinned DESC, changed DESC", MAX_LISTED)


def latest(db: sqlite3.Connection, visitor: str) -> list[ConversationSummary]:
    """All of the visitor's, the latest first."""
    return _entries(db, visitor, "changed DESC", -1)


def _entries(db: sqlite3.Connection, visitor: str, order: str, most: int) -> list[ConversationSummary]:
    rows = db.execute(
        "SELECT id, title, pinned, changed FROM conversations WHERE visitor = ? AND deleted IS NULL"
        f" ORDER BY {order} LIMIT ?",
        (visitor, most),
    )
    return [ConversationSummary(id, title, bool(pinned), changed) for id, title, pinned, changed in rows]


def rename(db: sqlite3.Connection, visitor: str, id: str, title: str) -> bool:
    """Give it a name; whether it is there."""
    title = sound(" ".join(title.split())[:MAX_TITLE_LENGTH])
    if not title:
        return False
    mine = (title, id, visitor)
    return db.execute("UPDATE conversations SET title = ?, named = 1 WHERE id = ? AND visitor = ?", mine).rowcount > 0


def pin(db: sqlite3.Connection, visitor: str, id: str, pinned: bool) -> bool:
    """Keep it at the top, or not any more; whether it is there."""
    return (
        db.execute("UPDATE conversations SET pinned = ? WHERE id = ? AND visitor = ?", (pinned, id, visitor)).rowcount
        > 0
    )


def remove(db: sqlite3.Connection, visitor: str, id: str) -> bool:
    """Delete it, so that it can still come back for a moment; whether it was there."""
    return (
        db.execute(
            "UPDATE conversations SET deleted = ? WHERE id = ? AND visitor = ? AND deleted IS NULL",
            (time.time(), id, visitor),
        ).rowcount
        > 0
    )


def restore(db: sqlite3.Connection, visitor: str, id: str) -> bool:
    """Bring a deleted one back; whether it was still there."""
    return (
        db.execute("UPDATE conversations SET deleted = NULL WHERE id = ? AND visitor = ?", (id, visitor)).rowcount > 0
    )


def forget(db: sqlite3.Connection, visitor: str) -> int:
    """Delete all of the visitor's, for good; how many conversations that were."""
    return _erase(db, "visitor = ?", (visitor,))


def purge(db: sqlite3.Connection, oldest: float | None, reprieve: float = UNDO_SECONDS) -> int:
    """Delete for good what was deleted before, and what has not changed since `oldest`; how many conversations that were."""
    where, values = "deleted < ?", [time.time() - reprieve]
    if oldest is not None:
        where, values = f"{where} OR changed < ?", [*values, oldest]
    return _erase(db, where, tuple(values))


def _erase(db: sqlite3.Connection, where: str, values: tuple[object, ...]) -> int:
    return db.execute(f"DELETE FROM conversations WHERE {where}", values).rowcount


def sweep(db: sqlite3.Connection, files: ImageStore) -> bool:
    """Delete the pictures that no message shows; whether all of them are gone."""
    shown = {digest for (digest,) in db.execute("SELECT DISTINCT digest FROM pictures")}
    gone = [files.remove(digest) for digest in files.all() if digest not in shown]
    return all([*gone, files.remove_unfinished()])
