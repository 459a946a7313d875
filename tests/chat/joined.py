"""What pieces of a reply say together, as tests compare it: reasoning and answer, each as one text."""

from collections.abc import Iterable

from magistral_ui.chat.events import Event
from magistral_ui.chat.reply import ReplyBuilder


def joined(pieces: Iterable[Event]) -> tuple[str, str]:
    builder = ReplyBuilder()
    for piece in pieces:
        builder.feed(piece)
    return builder.take_texts()
