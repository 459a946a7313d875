"""What every exported file has: a conversation with title and times, a file name, a bound on its work; it knows no format."""

import re
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Protocol

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.image_decoding import decoders
from magistral_ui.errors import Value

MAX_NAME_LENGTH = 80
"""Characters of a name without its ending."""
MAX_NAME_BYTES = 200
"""Of the name in UTF-8; file systems allow 255, and browsers add numbers."""
SEPARATING = re.compile(r"[/\\:|]+")
FORBIDDEN = re.compile(r'[<>"?*]')
DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³]) *(?:\.|$)", re.IGNORECASE)
"""Names that Windows reserves for devices, whatever their extension."""
JOINERS = "\u200c\u200d"
"""Invisible, but Persian and emoji sequences need them."""
EXPORT_CPU_SECONDS = 30.0
"""CPU seconds for one file: about 75 photographs of 12 megapixels, or 7 million characters of answers."""


@dataclass(frozen=True, slots=True)
class Document:
    """One conversation with its title, and when it was created and last updated (with time zone; None: unknown)."""

    conversation: Conversation
    title: str = ""
    created: datetime | None = None
    updated: datetime | None = None


class Texts(Protocol):
    """Looks up a text in the reader's language and fills its gaps; KeyError for an unknown key."""

    def __call__(self, key: str, /, **values: Value) -> str:
        """The text `key` with `values` in its gaps."""


def moment(time: datetime) -> str:
    """`time` to the minute, in UTC."""
    return time.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def file_name(title: str, ending: str, fallback: str) -> str:
    """`A sum.json` for the title “A sum” and the ending `json`; `fallback` where nothing of the title is left.

    Windows, macOS and Linux all accept it, and it keeps the title's own letters.
    """
    name = _plain(title) or _plain(fallback) or "_"
    return f"_{name}.{ending}" if DEVICE.match(name) else f"{name}.{ending}"


def _plain(title: str) -> str:
    text = FORBIDDEN.sub("", SEPARATING.sub("-", unicodedata.normalize("NFC", title)))
    text = "".join(each for each in text if _is_written(each))
    text = " ".join(text.split())[:MAX_NAME_LENGTH]
    text = text.encode("utf-8")[:MAX_NAME_BYTES].decode("utf-8", "ignore")
    # A leading dot hides a file, a leading hyphen looks like a flag, and Windows drops trailing dots and spaces.
    return text.lstrip(".- " + JOINERS).rstrip(". " + JOINERS)


def _is_written(character: str) -> bool:
    """False for control characters, direction marks, half surrogate pairs, and unassigned code points."""
    return character.isspace() or character in JOINERS or unicodedata.category(character)[0] != "C"


def spent() -> float:
    """CPU seconds that this thread has used, including those in which images were decoded for it elsewhere."""
    return time.thread_time() + decoders().seconds


class TimeBudget:
    """The CPU time of one file. A piece once begun is finished, so the file takes at most one piece longer."""

    def __init__(self, clock: Callable[[], float] = spent) -> None:
        self._clock = clock
        self._until = clock() + EXPORT_CPU_SECONDS

    @property
    def is_over(self) -> bool:
        """Whether the rest has to be shown as it is."""
        return self._clock() >= self._until
