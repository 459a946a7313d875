"""Searches conversations for words in titles, texts and reasoning; it does not know whose they are.

Each message is stored a second time without case and accents (`folded`), in the same row, so secure deletion covers it too.
SQLite searches these copies in C, one conversation at a time, so that a search blocks nothing else and can end at any time. It
also finds parts of words, in every script.
"""

import functools
import re
import sqlite3
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

MAX_RESULTS = 100
"""Conversations that a search returns."""
MAX_QUERY_WORDS = 20
"""Words of a query that are searched for."""
EXCERPT_CHARACTERS = 40
"""Characters shown before a match; twice as many are shown from its start on."""
MAX_FOLD_SHIFT = 1_000
"""If folding has changed lengths, characters on each side of a match's estimated place in which to look for it."""
FOLD_CHUNK = 256
"""Characters that are folded at once. Python sorts consecutive combining marks in quadratic time, while other threads have to
wait; since all marks are dropped, it makes no difference where a piece ends."""
LAST_OF_BMP = "\uffff"
Reading = Callable[[], AbstractContextManager[sqlite3.Connection]]


@dataclass(frozen=True, slots=True)
class ConversationSummary:
    """One conversation in the list; `excerpt` is the text around a search's match."""

    id: str
    title: str
    pinned: bool
    changed: float
    excerpt: str = ""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found; not `complete` if it ended before it had searched everything."""

    entries: tuple[ConversationSummary, ...] = ()
    complete: bool = True


def words_of(query: str) -> list[str]:
    """The words of a query, folded; a word of combining marks alone is left out."""
    return [word for word in map(folded, query.split()) if word][:MAX_QUERY_WORDS]


def search(
    reading: Reading, entries: Iterable[ConversationSummary], words: list[str], may_continue: Callable[[], bool]
) -> SearchResult:
    """Those of `entries` whose title, or one of whose messages, contains all `words`; `may_continue` is called before each."""
    found: list[ConversationSummary] = []
    for entry in entries:
        if len(found) == MAX_RESULTS:
            break
        if not may_continue():
            return SearchResult(tuple(found), complete=False)
        with reading() as db:
            place = _place(db, entry.id, words)
            excerpt = _excerpt(db, place, words[0]) if place else ""
        if place or all(word in folded(entry.title) for word in words):
            found.append(replace(entry, excerpt=excerpt))
    return SearchResult(tuple(found))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the first word was found: the row, the offset in its folded text, and the lengths of the texts."""

    row: int
    at: int
    folded_length: int
    text_length: int
    length: int
    """Of text, line break and reasoning together."""


def _place(db: sqlite3.Connection, conversation: str, words: list[str]) -> _Place | None:
    holds = " AND ".join("instr(folded, ?)" for _ in words)
    hit = db.execute(
        "SELECT row, instr(folded, ?) - 1, length(folded), length(text), length(text) + 1 + length(reasoning)"
        f" FROM messages WHERE conversation = ? AND {holds} ORDER BY id LIMIT 1",
        (words[0], conversation, *words),
    ).fetchone()
    return _Place(*hit) if hit else None


def _excerpt(db: sqlite3.Connection, place: _Place, word: str) -> str:
    """The text around a match, on one line."""
    at = place.at
    if place.folded_length != place.length:
        estimated = at * place.length // max(1, place.folded_length)
        start = max(0, estimated - MAX_FOLD_SHIFT)
        near = _part(db, place.row, start, 2 * MAX_FOLD_SHIFT)
        folded_near = folded(near)
        offset = folded_near.find(word)
        at = start + offset * len(near) // len(folded_near) if offset >= 0 else estimated
    in_text = at < place.text_length
    first, end = (0, place.text_length) if in_text else (place.text_length + 1, place.length)
    start, stop = max(first, at - EXCERPT_CHARACTERS), min(end, at + 2 * EXCERPT_CHARACTERS)
    excerpt = " ".join(_part(db, place.row, start, stop - start).split())
    return f"{'…' if start > first else ''}{excerpt}{'…' if stop < end else ''}"


def _part(db: sqlite3.Connection, row: int, start: int, count: int) -> str:
    """Characters of a message's text, a line break and its reasoning."""
    part = "SELECT substr(text || char(10) || reasoning, ?, ?) FROM messages WHERE row = ?"
    return str(db.execute(part, (start + 1, count, row)).fetchone()[0])


def folded_message(text: str, reasoning: str) -> str:
    """The searchable text of a message."""
    return f"{folded(text)}\n{folded(reasoning)}"


def folded(text: str) -> str:
    """`text` without case and accents, as search compares words."""
    if text.isascii():  # gives the same result, a hundred times faster
        return text.lower()
    return "".join(_fold(text[start : start + FOLD_CHUNK]) for start in range(0, len(text), FOLD_CHUNK))


def _fold(piece: str) -> str:
    parts = unicodedata.normalize("NFKD", piece.casefold())
    if parts and max(parts) > LAST_OF_BMP:  # a class with marks beyond it would be looked up fifty times slower
        return "".join(each for each in parts if not unicodedata.combining(each))
    return _combining().sub("", parts)


@functools.cache
def _combining() -> re.Pattern[str]:
    """The characters of the basic plane that combine with the one before them."""
    marks = (chr(code) for code in range(0x300, 0x10000) if unicodedata.combining(chr(code)))
    return re.compile(f"[{''.join(marks)}]+")
