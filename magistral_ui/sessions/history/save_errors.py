"""Why conversations cannot be kept, as a key for the page's sentence; found from what SQLite and the system say."""

import errno
import sqlite3

from magistral_ui.errors import HistoryUnusable, Message

DISK_FULL_ERRNOS = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name))
NOT_WRITABLE_ERRNOS = (errno.EROFS, errno.EACCES, errno.EPERM)


def save_error(error: Exception, folder: str) -> Message:
    """What to tell about `error`."""
    if isinstance(error, HistoryUnusable):
        return Message(error.message.key, {"folder": folder, **error.message.values})
    told = str(error).lower()
    if "full" in told or getattr(error, "errno", None) in DISK_FULL_ERRNOS:
        return Message("history_disk_full", {"folder": folder})
    if "readonly" in told or "unable to open" in told or getattr(error, "errno", None) in NOT_WRITABLE_ERRNOS:
        return Message("history_read_only", {"folder": folder})
    if isinstance(error, sqlite3.DatabaseError) and ("malformed" in told or "not a database" in told):
        return Message("history_broken", {"folder": folder})
    reason = getattr(error, "strerror", None) or (
        str(error) if isinstance(error, sqlite3.Error) else type(error).__name__
    )
    return Message("history_failed", {"folder": folder, "reason": reason})
