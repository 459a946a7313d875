"""A conversation with what is known about it, as it goes into a file and comes out of one; it does not know any format."""

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Protocol

from magistral_ui.chat.conversation import Conversation
from magistral_ui.errors import Value


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
