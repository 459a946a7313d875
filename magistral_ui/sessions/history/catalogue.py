"""A visitor's conversations as a list: found, named, pinned, deleted and really forgotten; not what is said in them."""

import re
import sqlite3
import time
import unicodedata
from dataclasses import dataclass

from magistral_ui.sessions.history.pictures import PictureFiles
from magistral_ui.sessions.history.schema import searches_words
from magistral_ui.sessions.history.store import TITLE, sound

LISTED = 2_000
"""Conversations in a list; older ones are found by searching."""
FOUND = 100
"""Conversations that a search shows."""
REPRIEVE = 60.0
"""Seconds for which a deleted conversation can come back."""
AROUND = 40
"""Characters before and after what was found."""
# Scripts that put no spaces between words, so that an index of words does not know where they begin.
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One conversation in the list; `excerpt` is what a search found in it."""

    id: str
    title: str
    pinned: bool
    changed: float
    excerpt: str = ""


def listing(db: sqlite3.Connection, visitor: str) -> list[Entry]:
    """All of the visitor's: pinned ones first, then the latest."""
    rows = db.execute(
        "SELECT id, title, pinned, changed FROM conversations WHERE visitor = ? AND deleted IS NULL"
        " ORDER BY pinned DESC, changed DESC LIMIT ?",
        (visitor, LISTED),
    )
    return [Entry(id, title, bool(pinned), changed) for id, title, pinned, changed in rows]


def search(db: sqlite3.Connection, visitor: str, query: str) -> list[Entry]:
    """Those whose title, text or reasoning holds all words of `query`, in one message; the latest first."""
    words = [folded(word) for word in sound(query).split()][:20]
    if not words:
        return listing(db, visitor)
    found = {row[0]: row[1:] for row in _titled(db, visitor, words)}
    by_index = searches_words(db) and not UNSPACED.search(query)
    for id, title, pinned, changed, text, reasoning in (_indexed if by_index else _scanned)(db, visitor, words):
        if id not in found or not found[id][3]:
            found[id] = (title, pinned, changed, excerpt(_fitting(text, reasoning, words), words))
    entries = [Entry(id, title, bool(pinned), changed, told) for id, (title, pinned, changed, told) in found.items()]
    return sorted(entries, key=lambda entry: -entry.changed)[:FOUND]


def _titled(db: sqlite3.Connection, visitor: str, words: list[str]) -> list[tuple[str, str, int, float, str]]:
    return [
        (entry.id, entry.title, entry.pinned, entry.changed, "")
        for entry in listing(db, visitor)
        if all(word in folded(entry.title) for word in words)
    ]


SELECTED = "SELECT c.id, c.title, c.pinned, c.changed, m.text, m.reasoning FROM "
MINE = " c.visitor = ? AND c.deleted IS NULL"


def _indexed(db: sqlite3.Connection, visitor: str, words: list[str]) -> sqlite3.Cursor:
    match = " ".join('"{}"*'.format(word.replace('"', '""')) for word in words)
    return db.execute(
        f"{SELECTED} words JOIN messages m ON m.row = words.rowid JOIN conversations c ON c.id = m.conversation"
        f" WHERE words MATCH ? AND {MINE} ORDER BY c.changed DESC LIMIT ?",
        (match, visitor, 4 * FOUND),
    )


def _scanned(db: sqlite3.Connection, visitor: str, words: list[str]) -> sqlite3.Cursor:
    db.create_function("folded", 1, folded, deterministic=True)
    holds = " AND ".join("instr(folded(m.text || char(10) || m.reasoning), ?)" for _ in words)
    return db.execute(
        f"{SELECTED} conversations c JOIN messages m ON m.conversation = c.id"
        f" WHERE {MINE} AND {holds} ORDER BY c.changed DESC LIMIT ?",
        (visitor, *words, 4 * FOUND),
    )


def folded(text: str) -> str:
    """`text` without case and accents, as it is compared."""
    if text.isascii():  # the same, a hundred times faster
        return text.lower()
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(each for each in parts if not unicodedata.combining(each))


def _fitting(text: str, reasoning: str, words: list[str]) -> str:
    """The one that holds more of `words`; the text where both hold as many."""
    return max((text, reasoning), key=lambda each: sum(word in folded(each) for word in words))


def excerpt(text: str, words: list[str]) -> str:
    """The place in `text` where the first of `words` is, on one line; empty where none of them is."""
    seen = folded(text)
    at = min((place for place in (seen.find(word) for word in words) if place >= 0), default=-1)
    if at < 0:
        return ""
    at = at * len(text) // len(seen)  # folding may change the length a little
    start, end = max(0, at - AROUND), at + 2 * AROUND
    told = " ".join(text[start:end].split())
    return f"{'…' if start else ''}{told}{'…' if end < len(text) else ''}"


def rename(db: sqlite3.Connection, visitor: str, id: str, title: str) -> bool:
    """Give it a name; whether it is there."""
    title = sound(" ".join(title.split())[:TITLE])
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


def forget(db: sqlite3.Connection, files: PictureFiles, visitor: str) -> None:
    """Delete all of the visitor's, for good."""
    _erase(db, files, "visitor = ?", (visitor,))


def purge(db: sqlite3.Connection, files: PictureFiles, oldest: float | None, reprieve: float = REPRIEVE) -> int:
    """Delete for good what was deleted before, and what has not changed since `oldest`; how many conversations that were."""
    where, values = "deleted < ?", [time.time() - reprieve]
    if oldest is not None:
        where, values = f"{where} OR changed < ?", [*values, oldest]
    return _erase(db, files, where, tuple(values))


def _erase(db: sqlite3.Connection, files: PictureFiles, where: str, values: tuple[object, ...]) -> int:
    doomed = [id for (id,) in db.execute(f"SELECT id FROM conversations WHERE {where}", values)]
    if not doomed:
        return 0
    db.executemany("DELETE FROM conversations WHERE id = ?", ((id,) for id in doomed))
    if searches_words(db):
        # The index marks what is deleted; only merging its parts takes the words out.
        db.execute("INSERT INTO words(words) VALUES ('optimize')")
    sweep(db, files)
    return len(doomed)


def sweep(db: sqlite3.Connection, files: PictureFiles) -> None:
    """Delete the pictures that no message shows."""
    shown = {digest for (digest,) in db.execute("SELECT DISTINCT digest FROM pictures")}
    for digest in files.all():
        if digest not in shown:
            files.remove(digest)
