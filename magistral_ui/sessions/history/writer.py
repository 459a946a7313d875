"""One thread that writes: jobs come through a bounded queue and share transactions; it does not know what they write."""

import errno
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TookTooLong
from typing import Any, TypeVar

from magistral_ui.errors import HistoryUnusable, Message

log = logging.getLogger(__name__)
T = TypeVar("T")
WriteJob = Callable[[sqlite3.Connection], Any]
MAX_QUEUED_JOBS = 1_000
"""Jobs that may wait: more than all visitors have together, so only a stalled disk fills the queue."""
WRITE_TIMEOUT = 5.0
"""Seconds for which a person waits for the disk; then the chat continues, and the page says that it is not saved."""
CLOSE_TIMEOUT = 5.0
"""Seconds that closing may take."""
MAX_BATCH = 200
"""Jobs that share a transaction, and so one fsync."""
DISK_FULL_ERRNOS = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name))
NOT_WRITABLE_ERRNOS = (errno.EROFS, errno.EACCES, errno.EPERM)


class Writer:
    """Owns the writing connection. A job's future is done when its transaction is on disk, or has failed."""

    def __init__(self, db: sqlite3.Connection, lock: threading.Lock, folder: str) -> None:
        self.error: Message | None = None
        """Why the last transaction was not written; None after one that was."""
        self._db, self._lock, self._folder = db, lock, folder
        self._queue: queue.Queue[tuple[WriteJob, Future[Any]] | None] = queue.Queue(MAX_QUEUED_JOBS)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()

    def put(self, job: WriteJob) -> "Future[Any]":
        """Queue a `job`; its future fails immediately if the queue is full."""
        done: Future[Any] = Future()
        try:
            if self._closed:
                raise queue.Full
            self._queue.put_nowait((job, done))
        except queue.Full:
            self.error = Message("history_slow", {"folder": self._folder})
            done.set_exception(TimeoutError())
        return done

    def wait(self, job: WriteJob, default: T) -> T:
        """Write now, and return the job's result, or `default` if that fails or takes too long."""
        return self.wait_for(self.put(job), default)

    def wait_for(self, writing: "Future[Any]", default: T) -> T:
        try:
            done: T = writing.result(WRITE_TIMEOUT)
        except (OSError, sqlite3.Error, HistoryUnusable, TookTooLong):
            return default
        return done

    def close(self) -> None:
        """Do what waits, then end; a stalled disk is not waited for."""
        self._closed = True
        self._queue.put(None)
        self._thread.join(CLOSE_TIMEOUT)

    def _run(self) -> None:
        open_ended = True
        while open_ended:
            batch = [self._queue.get()]
            while len(batch) < MAX_BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            open_ended = None not in batch
            self._do([each for each in batch if each is not None])

    def _do(self, batch: list[tuple[WriteJob, "Future[Any]"]]) -> None:
        results: list[Any] = []
        try:
            with self._lock:
                self._db.execute("BEGIN IMMEDIATE")
                results = [self._one(job) for job, _ in batch]
                self._db.execute("COMMIT")
            failed = next((each for each in results if isinstance(each, Exception)), None)
        except sqlite3.Error as error:
            failed, results = error, [error] * len(batch)
            with self._lock:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
        self._note(failed)
        for (_, done), result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                done.set_exception(result)
            else:
                done.set_result(result)

    def _one(self, job: WriteJob) -> Any:
        """The job's result, or its error: one that fails does not undo the others."""
        self._db.execute("SAVEPOINT one")
        try:
            result = job(self._db)
        except (sqlite3.Error, OSError) as error:
            result = error
        except Exception as error:  # a border: a bug in one job must not end the thread that all depend on
            log.exception("a conversation could not be written")
            result = HistoryUnusable(reason=type(error).__name__)
        if self._db.in_transaction:  # a full disk may have ended it
            if isinstance(result, Exception):
                self._db.execute("ROLLBACK TO one")
            self._db.execute("RELEASE one")
        else:
            raise result if isinstance(result, sqlite3.Error) else sqlite3.OperationalError("the transaction has ended")
        return result

    def _note(self, failed: Exception | None) -> None:
        error = save_error(failed, self._folder) if failed else None
        if error and error != self.error:
            log.warning("conversations cannot be saved: %s", failed)
        self.error = error


def save_error(error: Exception, folder: str) -> Message:
    """Why conversations cannot be saved, found from what SQLite and the system say."""
    if isinstance(error, HistoryUnusable):
        return Message(error.message.key, {"folder": folder, **error.message.values})
    text = str(error).lower()
    if "full" in text or getattr(error, "errno", None) in DISK_FULL_ERRNOS:
        return Message("history_disk_full", {"folder": folder})
    if "readonly" in text or "unable to open" in text or getattr(error, "errno", None) in NOT_WRITABLE_ERRNOS:
        return Message("history_read_only", {"folder": folder})
    if isinstance(error, sqlite3.DatabaseError) and ("malformed" in text or "not a database" in text):
        return Message("history_broken", {"folder": folder})
    reason = getattr(error, "strerror", None) or (
        str(error) if isinstance(error, sqlite3.Error) else type(error).__name__
    )
    return Message("history_failed", {"folder": folder, "reason": reason})
