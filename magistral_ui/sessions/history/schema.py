"""The tables of the history, how an older file becomes a newer one, and how it is opened; not what is asked of it."""

import sqlite3
from pathlib import Path

from magistral_ui.errors import HistoryUnusable

V1 = """
CREATE TABLE conversations(
  id TEXT PRIMARY KEY,
  visitor TEXT NOT NULL,             -- SHA-256 of the secret in the visitor's browser
  title TEXT NOT NULL DEFAULT '',    -- the beginning of the first message, or the name that was given
  named INTEGER NOT NULL DEFAULT 0,  -- whether it was given
  pinned INTEGER NOT NULL DEFAULT 0,
  created REAL NOT NULL,             -- seconds since 1970, as all times here
  changed REAL NOT NULL,
  deleted REAL,                      -- when; it can be undone for a moment
  state TEXT NOT NULL                -- JSON: which branch is shown, and the largest id ever given
);
CREATE INDEX conversations_of_visitor ON conversations(visitor, changed);
CREATE TABLE messages(
  row INTEGER PRIMARY KEY,
  conversation TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
  id INTEGER NOT NULL,
  text TEXT NOT NULL,                -- what was said or answered
  reasoning TEXT NOT NULL DEFAULT '',
  record TEXT NOT NULL,              -- JSON: all else
  UNIQUE(conversation, id)
);
CREATE TABLE pictures(
  message INTEGER NOT NULL REFERENCES messages(row) ON DELETE CASCADE,
  place INTEGER NOT NULL,
  digest TEXT NOT NULL,              -- SHA-256 of the file, which is its name too
  record TEXT NOT NULL,              -- JSON: name, width, height
  PRIMARY KEY(message, place)
) WITHOUT ROWID;
CREATE INDEX pictures_by_digest ON pictures(digest);
CREATE TABLE drafts(                 -- the reply that is being written
  conversation TEXT PRIMARY KEY REFERENCES conversations(id) ON DELETE CASCADE,
  record TEXT NOT NULL               -- JSON: to which message, with what
) WITHOUT ROWID;
CREATE TABLE pieces(                 -- what there is of it, one row for each time it was put down
  conversation TEXT NOT NULL REFERENCES drafts(conversation) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  reasoning TEXT NOT NULL,
  answer TEXT NOT NULL,
  record TEXT NOT NULL,              -- JSON: counts and times so far
  PRIMARY KEY(conversation, number)
) WITHOUT ROWID;
"""
MIGRATIONS = (V1,)
"""Number n makes version n + 1 of version n; a file's own version is its `user_version`."""
VERSION = len(MIGRATIONS)

WORDS = """
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(
  text, reasoning, content='messages', content_rowid='row', tokenize='unicode61 remove_diacritics 2');
CREATE TRIGGER words_added AFTER INSERT ON messages BEGIN
  INSERT INTO words(rowid, text, reasoning) VALUES (new.row, new.text, new.reasoning);
END;
CREATE TRIGGER words_removed AFTER DELETE ON messages BEGIN
  INSERT INTO words(words, rowid, text, reasoning) VALUES ('delete', old.row, old.text, old.reasoning);
END;
CREATE TRIGGER words_changed AFTER UPDATE OF text, reasoning ON messages BEGIN
  INSERT INTO words(words, rowid, text, reasoning) VALUES ('delete', old.row, old.text, old.reasoning);
  INSERT INTO words(rowid, text, reasoning) VALUES (new.row, new.text, new.reasoning);
END;
INSERT INTO words(words) VALUES ('rebuild');
"""
TRIGGERS = ("words_added", "words_removed", "words_changed")
CHECKPOINT = 4 * 2**20
"""Bytes that the write-ahead log keeps after a checkpoint."""


def connect(file: Path | None, *, writing: bool) -> sqlite3.Connection:
    """The database `file` (None: one in memory), for any thread, but for one at a time."""
    name = f"{file.absolute().as_uri()}?mode={'rwc' if writing else 'ro'}" if file else ":memory:"
    db = sqlite3.connect(name, uri=file is not None, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA foreign_keys = ON")
        if writing:
            _prepare(db)
    except sqlite3.Error:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    db.execute("PRAGMA journal_mode = WAL")
    # FULL: what is acknowledged survives a power cut too, at one fsync for each commit, and commits are shared.
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA secure_delete = ON")
    db.execute(f"PRAGMA journal_size_limit = {CHECKPOINT}")


def migrate(db: sqlite3.Connection) -> None:
    """Bring the tables to this version; HistoryUnusable where a newer one has written them."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise HistoryUnusable("history_newer")
    for number in range(version, VERSION):
        db.executescript(f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;")
    _index(db)


def searches_words(db: sqlite3.Connection) -> bool:
    """Whether there is an index of words."""
    return bool(db.execute("SELECT count(*) FROM sqlite_master WHERE name = ?", TRIGGERS[:1]).fetchone()[0])


def _index(db: sqlite3.Connection) -> None:
    """The index of words, where this SQLite has FTS5; else none, and a file that had one goes on without it."""
    if not has_fts5(db):
        for trigger in TRIGGERS:
            db.execute(f"DROP TRIGGER IF EXISTS {trigger}")
    elif not searches_words(db):
        db.executescript(f"BEGIN IMMEDIATE; {WORDS} COMMIT;")


def has_fts5(db: sqlite3.Connection) -> bool:
    """Whether this SQLite was built with full-text search."""
    return bool(db.execute("SELECT count(*) FROM pragma_module_list WHERE name = 'fts5'").fetchone()[0])
