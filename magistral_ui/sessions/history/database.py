"""The history as the sessions use it: opened once, used from any thread; what cannot be kept on disk is kept in memory."""

import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import partial
from math import ceil
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from magistral_ui.errors import HistoryUnusable, ImportRefused, Message
from magistral_ui.export.document import Document
from magistral_ui.sessions.history import catalog, store
from magistral_ui.sessions.history.image_store import ImageStore
from magistral_ui.sessions.history.schema import (
    BACKUP_SECONDS,
    connect,
    forget_backups,
    lock_folder,
    migrate,
    refuse_newer,
)
from magistral_ui.sessions.history.search import SearchResult, search, words_of
from magistral_ui.sessions.history.writer import WRITE_TIMEOUT, Writer, save_error

log = logging.getLogger(__name__)
T = TypeVar("T")
P = ParamSpec("P")
DATABASE_FILE, LOCK_FILE, IMAGES_FOLDER = "history.sqlite3", "history.lock", "pictures"
SEARCH_TIMEOUT = 2.0
"""Seconds that a search may take; then it returns what it has found, and says that it is not all."""
DAY = 86_400.0
IMPORT_DISK_FACTOR = 4
"""Disk space that importing a file takes, as a multiple of its size: rows, index, and both again in the log."""
MIN_FREE_BYTES = 16 * 10**6
"""Bytes that an import leaves free beside that, so that the chat can continue."""


class History:
    """All conversations of all visitors, each found under its visitor only."""

    def __init__(self, folder: Path | None = None, keep_days: int | None = None) -> None:
        """Opens the history in `folder`. None, or `keep_days` of 0, keeps it in this process's memory.

        Where a folder cannot be used, `save_error` says so, and memory serves instead.
        """
        self.open, self._untidy, self._copied = True, False, False
        self._keep_days = keep_days
        self._lock, self._tidying = threading.Lock(), threading.Lock()
        self._searching: dict[str, object] = {}
        """Who searches, with a token of their latest search: a later one ends those before it."""
        self._folder_lock: sqlite3.Connection | None = None
        self._unusable: Message | None = None
        self._file = folder / DATABASE_FILE if folder is not None and keep_days != 0 else None
        try:
            db = self._open()
        except (OSError, sqlite3.Error, HistoryUnusable) as error:
            self._unusable = save_error(error, str(folder))
            log.warning("the history cannot be opened: %s", error)
            self._release()
            self._file = None
            db = self._open()
        self._db = db
        self.images = ImageStore(self._file.with_name(IMAGES_FOLDER) if self._file else None)
        self.writer = Writer(db, self._lock, str(folder))
        self._untidy = not self.writer.wait(lambda db: catalog.sweep(db, self.images), False)
        self.purge()

    def _open(self) -> sqlite3.Connection:
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.parent.chmod(0o700)
            self._folder_lock = lock_folder(self._file.with_name(LOCK_FILE))
            refuse_newer(self._file)
        db = connect(self._file, writing=True)
        try:
            migrate(db, self._file)
            self.owners = catalog.Owners(db)
        except (sqlite3.Error, OSError, HistoryUnusable):
            db.close()
            raise
        return db

    def _release(self) -> None:
        if self._folder_lock is not None:
            self._folder_lock.close()
            self._folder_lock = None

    @property
    def durable(self) -> bool:
        """Whether anything is kept on disk."""
        return self._file is not None

    @property
    def save_error(self) -> Message | None:
        return self._unusable or self.writer.error

    def read(
        self, default: T, ask: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **more: P.kwargs
    ) -> T:
        """What `ask` finds after all jobs that are already queued; `default` if it cannot be read."""
        self.writer.wait(lambda _: None, None)  # done once all jobs before it are
        try:
            with self._connection() as db:
                return ask(db, *args, **more)
        except (sqlite3.Error, OSError, ValueError, KeyError) as error:
            log.warning("the history cannot be read: %s", type(error).__name__)
            return default

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A connection for reading. In memory there is only one, so others wait for it."""
        if self._file is None:
            with self._lock:
                yield self._db
        else:
            with closing(connect(self._file, writing=False)) as db:
                yield db

    def documents(self, visitor: str, ids: Sequence[str] = ()) -> list[Document]:
        """The visitor's conversations with these ids, or all, as they go into a file."""

        def read(db: sqlite3.Connection) -> list[Document]:
            wanted = ids or [entry.id for entry in catalog.listing(db, visitor)]
            found = (store.load_document(db, self.images, visitor, id) for id in wanted)
            return [each for each in found if each is not None]

        return self.read([], read)

    def import_documents(self, visitor: str, documents: Mapping[str, Document], size: int = 0) -> None:
        """Import conversations from a file of `size` bytes, by their new ids: all in one transaction, or none.

        Raises HistoryUnusable, or ImportRefused if the disk has no room for them. That is checked first: SQLite can give back
        what a transaction took only while there is still some room left.
        """
        if self._file is not None and size:
            needed = IMPORT_DISK_FACTOR * size + MIN_FREE_BYTES
            with suppress(OSError):
                if shutil.disk_usage(self._file.parent).free < needed:
                    raise ImportRefused("import_no_disk", needed=ceil(needed / 10**6))

        def write(db: sqlite3.Connection) -> bool:
            if self.owners.is_forgotten(visitor):
                return False
            self.owners.record(db, visitor)
            for id, document in documents.items():
                # Where nothing old is kept, conversations from an old file count as new.
                store.save_document(db, self.images, visitor, id, document, dated=not self._keep_days)
            return True

        try:
            # Without a timeout: after giving up, nobody could tell whether it will be there.
            if not self.writer.put(write).result():
                raise HistoryUnusable(reason="")
        except (OSError, sqlite3.Error, HistoryUnusable) as error:
            self.writer.wait(lambda db: catalog.sweep(db, self.images), None)
            raise HistoryUnusable(reason=type(error).__name__) from error
        finally:
            self._clean()

    def search(self, visitor: str, query: str, seconds: float = SEARCH_TIMEOUT) -> SearchResult:
        """The visitor's conversations with the words of `query`, as far as `seconds` allow; their next search ends this one."""
        words = words_of(store.sound(query))
        if not words:
            return SearchResult(tuple(self.read([], catalog.listing, visitor)))
        until, mine = time.monotonic() + seconds, object()
        self._searching[visitor] = mine

        def may_continue() -> bool:
            return self._searching.get(visitor) is mine and time.monotonic() < until

        entries = self.read([], catalog.by_date, visitor)
        try:
            if self._file is None:  # a connection for each conversation, so that others get their turn
                return search(self._connection, entries, words, may_continue)
            with self._connection() as db:
                return search(lambda: nullcontext(db), entries, words, may_continue)
        except (sqlite3.Error, OSError) as error:
            log.warning("the history cannot be searched: %s", type(error).__name__)
            return SearchResult(complete=False)
        finally:
            if self._searching.get(visitor) is mine:
                del self._searching[visitor]

    def hand_over(self, before: str, visitor: str) -> bool:
        """Make all conversations of one visitor another's; whether the first has none left."""

        def write(db: sqlite3.Connection) -> bool:
            if self.owners.is_forgotten(visitor):
                return False
            if not self.owners.is_forgotten(before):
                self.owners.record(db, visitor)
                catalog.hand_over(db, before, visitor)
            return True

        return self.writer.wait(write, False)

    def forget(self, visitor: str) -> bool:
        """Delete all that is kept of a visitor: rows, words, images, free pages and back-ups; whether that was done.

        What could not be deleted is tried again at every purge, and by the next process.
        """
        self.owners.forget(visitor)
        # On its own: a full disk may have room for this and no more.
        self.writer.wait(lambda db: catalog.mark_forgotten(db, visitor), None)
        if not self._tidying.acquire(timeout=WRITE_TIMEOUT):
            return False
        try:
            erased = self._erase(self.owners.unerased(visitor))
            if self._file is not None and not forget_backups(self._file, time.time()):
                self._copied = self._untidy = True
            return self._tidy() and erased
        finally:
            self._tidying.release()

    def _erase(self, visitors: Sequence[str]) -> bool:
        """Delete the rows of forgotten visitors; whether all are gone. With `_tidying` held, as in `_tidy`."""

        def erase(db: sqlite3.Connection, visitor: str) -> int:
            count = catalog.forget(db, visitor)
            catalog.unmark_forgotten(db, visitor)
            return count

        for visitor in visitors:
            count = self.writer.wait(partial(erase, visitor=visitor), -1)
            if count < 0:
                return False
            self._untidy = self._untidy or count > 0
            self.owners.erased(visitor)
        return True

    def purge(self, reprieve: float = catalog.UNDO_SECONDS) -> None:
        """Delete for good what was deleted more than `reprieve` seconds ago, what is too old, and what is left of either."""
        if self._file is not None:
            forget_backups(self._file, time.time() - BACKUP_SECONDS)
        oldest = time.time() - DAY * self._keep_days if self._keep_days else None
        with self._tidying:
            self._erase(self.owners.unerased())
            if self.writer.wait(lambda db: catalog.purge(db, oldest, reprieve), 0):
                self._untidy = True
            self._tidy()

    def _tidy(self) -> bool:
        """Delete what deleted rows leave behind: images, back-ups, free pages; whether nothing is left."""
        if not self._untidy:
            return True
        swept = self.writer.wait(lambda db: catalog.sweep(db, self.images), False)
        if self._copied and self._file is not None:
            self._copied = not forget_backups(self._file, time.time())
        self._untidy = not all([swept, not self._copied, self._clean()])
        return not self._untidy

    def _clean(self) -> bool:
        """Remove what was deleted from the file and from the log beside it, which no transaction can do for itself."""
        try:
            with self._lock:
                # On a full disk, the first makes the room that the second needs.
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                self._db.execute("PRAGMA incremental_vacuum").fetchall()
                busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            log.warning("the history could not be cleaned: %s", error)
            busy = True
        if busy:
            self._untidy = True
        return not busy

    def close(self) -> None:
        self.open = False
        self.writer.close()
        with suppress(sqlite3.Error):
            self._clean()
        self._db.close()
        self._release()
