"""The tables of the history, and how its file is opened, locked and migrated; it runs no queries on them."""

import sqlite3
from contextlib import closing
from pathlib import Path

from magistral_ui.errors import HistoryUnusable
from magistral_ui.sessions.history.search import folded_message

V1 = """
CREATE TABLE conversations(
  id TEXT PRIMARY KEY,
  visitor TEXT NOT NULL,             -- SHA-256 of the secret in the visitor's browser, or a visitor in `logins`
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
V2 = """
ALTER TABLE messages ADD COLUMN folded TEXT NOT NULL DEFAULT '';  -- text and reasoning as they are searched
UPDATE messages SET folded = folded_message(text, reasoning);
"""
V3 = """
CREATE TABLE logins(                 -- whose conversations are whose, where people come in by names
  login TEXT PRIMARY KEY,            -- a hash of the name
  visitor TEXT NOT NULL              -- random, and another one once everything was forgotten
) WITHOUT ROWID;
CREATE TABLE forgotten(              -- visitors of whom everything is to be deleted, until that is done
  visitor TEXT PRIMARY KEY
) WITHOUT ROWID;
"""
MIGRATIONS = (V1, V2, V3)
"""Number n makes version n + 1 of version n; a file's own version is its `user_version`."""
SCHEMA_VERSION = len(MIGRATIONS)

FTS_TABLE = "words"
"""The full-text index of version 1, which held words of messages."""
TRIGGERS = ("words_added", "words_removed", "words_changed")
FTS_SHADOW_TABLES = ("words_data", "words_idx", "words_docsize", "words_config")
BACKUP_NAME = "{name}.version-{version}"
"""The name of the back-up made before a migration."""
BACKUP_SECONDS = 7 * 86_400.0
MAX_WAL_BYTES = 4 * 2**20
"""Bytes that the write-ahead log keeps after a checkpoint."""


def connect(file: Path | None, *, writing: bool) -> sqlite3.Connection:
    """A connection to the database `file`, or to one in memory; any thread may use it, but only one at a time."""
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


def refuse_newer(file: Path) -> None:
    """Raises HistoryUnusable if a newer version wrote the `file`: it is only read, since `connect` for writing changes it."""
    if not file.exists():
        return
    with closing(connect(file, writing=False)) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise HistoryUnusable("history_newer")


def lock_folder(lock: Path) -> sqlite3.Connection:
    """Lock the folder for this process while the connection is open. Raises HistoryUnusable if another process has it.

    This is SQLite's lock on a separate file: the system releases it however the process ends.
    """
    db = sqlite3.connect(lock, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        db.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        db.close()
        if "locked" in str(error):
            raise HistoryUnusable("history_in_use") from error
        raise
    return db


def _prepare(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    db.execute("PRAGMA journal_mode = WAL")
    # FULL: what is acknowledged survives a power cut too, at one fsync for each commit, and commits are shared.
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA secure_delete = ON")
    db.execute(f"PRAGMA journal_size_limit = {MAX_WAL_BYTES}")


def migrate(db: sqlite3.Connection, file: Path | None = None) -> None:
    """Migrate the tables to this version, after a back-up of `file`; `refuse_newer` comes first."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if file is not None and 0 < version < SCHEMA_VERSION:
        back_up(db, file, version)
    db.create_function("folded_message", 2, folded_message, deterministic=True)
    for number in range(version, SCHEMA_VERSION):
        words = _drop_word_index(db) if number < 2 else ""
        db.executescript(f"BEGIN IMMEDIATE; {words} {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;")


def back_up(db: sqlite3.Connection, file: Path, version: int) -> None:
    """Copy the whole database next to its `file`; an older back-up is replaced only by a complete one."""
    copy = file.with_name(BACKUP_NAME.format(name=file.name, version=version))
    unfinished = copy.with_name(copy.name + ".part")
    unfinished.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(unfinished)) as target:
            db.backup(target)
        unfinished.replace(copy)
    except (sqlite3.Error, OSError):
        unfinished.unlink(missing_ok=True)  # on a full disk, a partial copy would take the last free space
        raise


def forget_backups(file: Path, before: float) -> bool:
    """Delete the back-ups made before that time, in seconds since 1970; whether none of them is left."""
    gone = True
    for copy in file.parent.glob(BACKUP_NAME.format(name=file.name, version="*")):
        try:
            if copy.stat().st_mtime < before:
                copy.unlink()
        except FileNotFoundError:
            continue
        except OSError:
            gone = False
    return gone


def _drop_word_index(db: sqlite3.Connection) -> str:
    """SQL that drops the full-text index, which contains messages; SQLite without FTS5 can only drop its shadow tables.

    It runs in the migration's transaction, so that after a failure the file, and the next back-up, are as complete as before.
    """
    tables = (FTS_TABLE,) if has_fts5(db) else FTS_SHADOW_TABLES
    triggers = (f"DROP TRIGGER IF EXISTS {trigger};" for trigger in TRIGGERS)
    return " ".join([*triggers, *(f"DROP TABLE IF EXISTS {table};" for table in tables)])


def has_fts5(db: sqlite3.Connection) -> bool:
    return bool(db.execute("SELECT count(*) FROM pragma_module_list WHERE name = 'fts5'").fetchone()[0])
