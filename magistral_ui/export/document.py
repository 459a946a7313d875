"""What all exported files share: a conversation with title and times, captions in the reader's language, a file name, and a
limit on CPU time; it knows no format.
"""

import re
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Protocol

from magistral_ui.chat.conversation import ChatMessage, Conversation, UserMessage
from magistral_ui.chat.image_decoding import decoders
from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.reply import Reply
from magistral_ui.chat.sampling import PARAMETERS
from magistral_ui.errors import Value

ALWAYS_SHOWN = ("temperature", "top_p", "seed")
"""Parameters that are shown even at their default."""
MAX_NAME_LENGTH = 80
"""Characters of a file name without its extension."""
MAX_NAME_BYTES = 200
"""Bytes of the name in UTF-8; file systems allow 255, and browsers may append a number."""
SEPARATING = re.compile(r"[/\\:|]+")
FORBIDDEN = re.compile(r'[<>"?*]')
DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³]) *(?:\.|$)", re.IGNORECASE)
"""Names that Windows reserves for devices, whatever their extension."""
JOINERS = "\u200c\u200d"
"""Zero-width characters: invisible, but Persian and emoji sequences need them."""
USUAL_ENGINE = "transformers"
"""The engine that is not named: most models run in it."""
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
    """Looks up a text in the reader's language. Raises KeyError for an unknown key."""

    def __call__(self, key: str, /, **values: Value) -> str:
        """The text `key`, formatted with `values`."""


def file_name(title: str, extension: str, fallback: str) -> str:
    """`A sum.json` for the title “A sum” and the extension `json`; `fallback` is used if nothing of the title is left.

    Windows, macOS and Linux all accept it, and it keeps the title's script.
    """
    name = _plain(title) or _plain(fallback) or "_"
    return f"_{name}.{extension}" if DEVICE.match(name) else f"{name}.{extension}"


def _plain(title: str) -> str:
    text = FORBIDDEN.sub("", SEPARATING.sub("-", unicodedata.normalize("NFC", title)))
    text = "".join(each for each in text if _is_printable(each))
    text = " ".join(text.split())[:MAX_NAME_LENGTH]
    text = text.encode("utf-8")[:MAX_NAME_BYTES].decode("utf-8", "ignore")
    # A leading dot hides a file, a leading hyphen looks like a flag, and Windows drops trailing dots and spaces.
    return text.lstrip(".- " + JOINERS).rstrip(". " + JOINERS)


def _is_printable(character: str) -> bool:
    """False for control characters, direction marks, lone surrogates and unassigned code points."""
    return character.isspace() or character in JOINERS or unicodedata.category(character)[0] != "C"


def cpu_seconds() -> float:
    """CPU seconds that this thread has used, including those of the processes that decoded images for it."""
    return time.thread_time() + decoders().seconds


class TimeBudget:
    """The CPU time for one file. A part that has begun is finished, so a file takes at most one part longer."""

    def __init__(self, clock: Callable[[], float] = cpu_seconds) -> None:
        self._clock = clock
        self._until = clock() + EXPORT_CPU_SECONDS

    @property
    def is_over(self) -> bool:
        """Whether the rest must be exported as plain text."""
        return self._clock() >= self._until


@dataclass(frozen=True, slots=True)
class Captions:
    """What an export says about conversations and messages, in the reader's language."""

    words: Texts

    def title(self, document: Document) -> str:
        """The document's title on one line; a general one if it has none."""
        return " ".join(document.title.split()) or self.words("export_untitled")

    def about(self, document: Document) -> str:
        when = document.updated or document.created
        made = self.words("export_made", app=self.words("page_title"))
        return f"{when.astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC · {made}" if when else made

    def reasoning(self, reply: Reply) -> str:
        """How long the model thought, and in how many tokens."""
        usage = reply.usage
        if not usage.reasoning_tokens:
            return self.words("export_reasoning")
        key = "turn_thought" if reply.reasoning_closed else "turn_thought_unfinished"
        time = self.words(key, seconds=seconds(usage.reasoning_seconds))
        return f"{time} · {self.words('turn_tokens', count=usage.reasoning_tokens)}"

    def notes(self, reply: Reply) -> list[str]:
        """A reply's notices, why it was cut short, and whether the answer is missing."""
        found = [self.words(f"notice_{key}") for key in reply.notices if self._is_known(f"notice_{key}")]
        # The values of notices are not stored with the reply, so those that need some are left out.
        found = [note for note in found if "{" not in note]
        if reply.failure:
            key = f"error_{reply.failure}"
            found.append(self.words(key if self._is_known(key) else "error_unexpected", **dict(reply.failure_values)))
        elif reply.finish_reason == "length":
            found.append(self.words("export_ended_length"))
        elif reply.finish_reason == "cancelled":
            found.append(self.words("ended_cancelled"))
        if not reply.failure and reply.finish_reason != "cancelled" and not reply.answer.strip():
            found.append(self.words("turn_no_answer" if reply.reasoning else "turn_empty"))
        return found

    def source(self, reply: Reply) -> str:
        """The model, how it ran, its tokens, and the parameters, on one line."""
        known = reply.provenance
        ran = [known.revision[:12], known.precision] if known else []
        if known and known.engine != USUAL_ENGINE:
            ran.append(known.engine)
        count = reply.usage.completion_tokens
        parts = [reply.model, *ran, self.words("turn_tokens", count=count) if count else ""]
        return " · ".join(part for part in [*parts, *self._parameters(reply)] if part)

    def image_name(self, image: ImageFile, number: int) -> str:
        return self.words("turn_picture", number=number, name=image.name, width=image.width, height=image.height)

    def _parameters(self, reply: Reply) -> Iterator[str]:
        values: dict[str, Value | None] = asdict(reply.params) if reply.params else {}
        for name, value in values.items():
            if value is not None and (name in ALWAYS_SHOWN or value != PARAMETERS[name].default):
                yield f"{self.words(f'parameter_{name}')} {value}"

    def _is_known(self, key: str) -> bool:
        try:
            self.words(key)
        except KeyError:
            return False
        return True


def shown_messages(messages: Sequence[ChatMessage]) -> Iterator[ChatMessage]:
    """The messages of a branch that are not empty."""
    for message in messages:
        if not isinstance(message, UserMessage) or message.text.strip() or message.images:
            yield message


def seconds(value: float) -> str:
    """`value` with one decimal place below a hundred, and none above."""
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"
