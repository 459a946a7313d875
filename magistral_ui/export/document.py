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
"""Of the name in UTF-8; file systems end at 255, and browsers add numbers."""
SEPARATING = re.compile(r"[/\\:|]+")
FORBIDDEN = re.compile(r'[<>"?*]')
DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³]) *(?:\.|$)", re.IGNORECASE)
"""Names that Windows keeps for devices, whatever their ending."""
JOINERS = "\u200c\u200d"
"""Invisible, but Persian and families of emoji are not written without them."""
EXPORT_CPU_SECONDS = 30.0
"""Seconds of the processor: about 75 photographs of 12 megapixels, or 7 million characters of answers."""


@dataclass(frozen=True, slots=True)
class Document:
    """One conversation, its title, and when it was begun and last changed (times with their zone; None: not known)."""

    conversation: Conversation
    title: str = ""
    created: datetime | None = None
    updated: datetime | None = None


class Texts(Protocol):
    """The texts for people by key, gaps filled; KeyError where there is none."""

    def __call__(self, key: str, /, **values: Value) -> str:
        """The text `key` with `values` in its gaps."""


def moment(time: datetime) -> str:
    """`time` to the minute, in UTC: the same for every reader."""
    return time.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def file_name(title: str, ending: str, fallback: str) -> str:
    """Such as `A sum.json` for the title “A sum” and the ending `json`; `fallback` where nothing of the title is left."""
    name = _plain(title) or _plain(fallback) or "_"
    return f"_{name}.{ending}" if DEVICE.match(name) else f"{name}.{ending}"


def _plain(title: str) -> str:
    text = FORBIDDEN.sub("", SEPARATING.sub("-", unicodedata.normalize("NFC", title)))
    text = "".join(each for each in text if _is_written(each))
    text = " ".join(text.split())[:MAX_NAME_LENGTH]
    text = text.encode("utf-8")[:MAX_NAME_BYTES].decode("utf-8", "ignore")
    # A leading dot hides a file, a leading hyphen is read as a flag, and Windows drops dots and spaces at the end.
    return text.lstrip(".- " + JOINERS).rstrip(". " + JOINERS)


def _is_written(character: str) -> bool:
    """False for control characters, marks that turn the direction, half surrogate pairs, and what has no meaning."""
    return character.isspace() or character in JOINERS or unicodedata.category(character)[0] != "C"


def spent() -> float:
    """Seconds of the processor that this thread has taken, with those in which pictures were decoded for it elsewhere."""
    return time.thread_time() + decoders().seconds


class TimeBudget:
    """One file's time. A piece that was begun is finished, so the whole takes at most one piece longer."""

    def __init__(self, clock: Callable[[], float] = spent) -> None:
        self._clock = clock
        self._until = clock() + EXPORT_CPU_SECONDS

    @property
    def is_over(self) -> bool:
        """Whether what is left has to be shown as it is."""
        return self._clock() >= self._until
