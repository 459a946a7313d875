"""Reads conversations from a JSON file that anyone may have written: all of it is sound, or nothing is taken."""

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import get_args

from magistral_ui.chat.conversation import AssistantMessage, ChatMessage, Conversation, Reply, UserMessage
from magistral_ui.chat.events import FinishReason, Usage
from magistral_ui.chat.images import MAX_BYTES, MAX_PIXELS, ImageFile, read_image
from magistral_ui.chat.provenance import Provenance
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.errors import ImageRefused, ImportRefused, Value
from magistral_ui.export.checked_json import MAX_JSON_INTEGER, CheckedJson
from magistral_ui.export.document import Document
from magistral_ui.export.json_export import FORMAT, FORMAT_VERSION
from magistral_ui.export.strict_json import is_text, parse

KEY = re.compile(r"[a-z][a-z0-9_]{0,59}")
DIGEST = re.compile(r"[0-9a-f]{64}")
MAX_ID = 10**9
"""Ids go on from the file's last one; there must be room behind it."""


@dataclass(frozen=True, slots=True)
class ImportLimits:
    """How much one file may hold; whoever serves strangers makes them smaller."""

    bytes: int = 256 * 2**20
    conversations: int = 1_000
    messages: int = 50_000
    """In all conversations together."""
    text_length: int = 500_000
    """Characters of one user message or of instructions."""
    reply_length: int = 2_000_000
    """Characters of one reasoning or answer: the longest reply has 131,072 tokens."""
    name_length: int = 1_000
    """Characters of a title or of a file's or model's name."""
    images: int = 100
    """In one message."""
    picture_bytes: int = MAX_BYTES
    picture_pixels: int = MAX_PIXELS
    all_pixels: int = 6 * 10**9
    """Of all pictures together: each is decoded once, about 10 ns a pixel."""


def import_json(data: bytes, limits: ImportLimits | None = None) -> list[Document]:
    """The conversations in `data`, in their order; ImportRefused with a sentence's key where anything is not sound.

    Message ids keep their meaning inside their own conversation only.
    """
    limits = limits or ImportLimits()
    whole = CheckedJson(parse(data, limits.bytes), "")
    if not isinstance(whole.value, dict) or whole.value.get("format") != FORMAT:
        raise ImportRefused("import_not_ours")
    version = whole.field("version").whole(1)
    if version > FORMAT_VERSION:
        raise ImportRefused("import_version", version=version, known=FORMAT_VERSION)
    reader = _Reader(limits, CheckedJson(whole.value.get("pictures", {}), "pictures"))
    return [reader.document(each) for each in whole.field("conversations").items(limits.conversations)]


@dataclass(slots=True)
class _Reader:
    """Reads one file; counts what all its conversations have together."""

    limits: ImportLimits
    images: CheckedJson
    read: dict[str, ImageFile] = field(default_factory=dict)
    messages: int = 0
    pixels: int = 0

    def document(self, found: CheckedJson) -> Document:
        return Document(
            conversation=self.conversation(found),
            title=found.field("title").text(self.limits.name_length) if found.has("title") else "",
            created=found.field("created").time() if found.has("created") else None,
            updated=found.field("updated").time() if found.has("updated") else None,
        )

    def conversation(self, found: CheckedJson) -> Conversation:
        messages: dict[int, ChatMessage] = {}
        last_id = found.field("last_id").whole(0, MAX_ID)
        for each in found.field("messages").items(self.limits.messages - self.messages):
            message = self.message(each, messages)
            # Ids only grow: so none occurs twice, a parent comes before its children, and nothing goes round in a circle.
            if not next(reversed(messages), 0) < message.id <= last_id:
                raise each.field("id").refused()
            messages[message.id] = message
        self.messages += len(messages)
        return Conversation(messages, _chosen(found.field("chosen"), messages), last_id)

    def message(self, found: CheckedJson, before: dict[int, ChatMessage]) -> ChatMessage:
        id, parent = found.field("id").whole(1, MAX_ID), found.field("parent")
        above = None if parent.value is None else before.get(parent.whole(1, MAX_ID))
        if above is None and parent.value is not None:
            raise parent.refused()
        match found.field("role").value:
            case "user":
                text = found.field("text").text(self.limits.text_length)
                return UserMessage(id, above.id if above else None, text, self.message_pictures(found))
            case "assistant" if isinstance(above, UserMessage):
                keep = found.field("keep_reasoning").flag() if found.has("keep_reasoning") else None
                return AssistantMessage(id, above.id, self.reply(found.field("reply")), keep)
            case "assistant":
                raise parent.refused()
        raise found.field("role").refused()

    def reply(self, found: CheckedJson) -> Reply:
        names = self.limits.name_length
        finish_reason = found.field("finish_reason")
        if finish_reason.value is not None and finish_reason.value not in get_args(FinishReason):
            raise finish_reason.refused()
        usage, params, provenance = found.field("usage"), found.field("params"), found.field("provenance")
        return Reply(
            reasoning=self.reply_text(found, "reasoning"),
            answer=self.reply_text(found, "answer"),
            reasoning_closed=found.field("reasoning_closed").flag() if found.has("reasoning_closed") else True,
            finish_reason=finish_reason.value,  # type: ignore[arg-type]  # one of them, as just checked
            failure=_key(found.field("failure")) if found.has("failure") else None,
            failure_values=dict(self.failure_values(found)),
            notices=tuple(_key(each) for each in found.field("notices").items(50)) if found.has("notices") else (),
            usage=usage.plain(Usage, names) if usage.value is not None else Usage(),
            params=params.plain(SamplingParams, names) if params.value is not None else None,
            model=found.field("model").text(names) if found.has("model") else "",
            provenance=provenance.plain(Provenance, self.limits.text_length) if provenance.value is not None else None,
        )

    def reply_text(self, found: CheckedJson, name: str) -> str:
        return found.field(name).text(self.limits.reply_length) if found.has(name) else ""

    def failure_values(self, found: CheckedJson) -> Iterable[tuple[str, Value]]:
        if not found.has("failure_values"):
            return
        for name, each in found.field("failure_values").entries():
            if isinstance(each.value, bool) or not isinstance(each.value, str | int | float) or not is_text(name):
                raise each.refused()
            if isinstance(each.value, int) and abs(each.value) > MAX_JSON_INTEGER:
                raise each.refused()
            yield name, each.text(self.limits.text_length) if isinstance(each.value, str) else each.value

    def message_pictures(self, found: CheckedJson) -> tuple[ImageFile, ...]:
        if not found.has("pictures"):
            return ()
        return tuple(self.image(each) for each in found.field("pictures").items(self.limits.images))

    def image(self, found: CheckedJson) -> ImageFile:
        """The picture that a message names by its digest; its bytes are decoded and checked once."""
        name = found.field("name").text(self.limits.name_length) if found.has("name") else ""
        digest = found.field("digest").text(64)
        if not DIGEST.fullmatch(digest):
            raise found.field("digest").refused()
        image = self.read.get(digest)
        if image is None:
            image = self.read[digest] = self.decoded(self.images.field(digest), digest, name)
        return replace(image, name=name)

    def decoded(self, found: CheckedJson, digest: str, name: str) -> ImageFile:
        try:
            data = base64.b64decode(found.field("data").text(self.limits.bytes), validate=True)
            limits = self.limits
            image = read_image(data, name, max_bytes=limits.picture_bytes, max_pixels=limits.picture_pixels)
        except (binascii.Error, ValueError, ImageRefused) as error:
            raise ImportRefused("import_picture_broken", name=name) from error
        if image.digest != digest or found.field("media_type").value != image.media_type:
            raise ImportRefused("import_picture_broken", name=name)
        self.pixels += image.width * image.height
        if self.pixels > self.limits.all_pixels:
            raise self.images.too_much(self.pixels, self.limits.all_pixels)
        return image


def _chosen(found: CheckedJson, messages: dict[int, ChatMessage]) -> dict[int | None, int]:
    """Which child of a message is shown, from the list of those children."""
    chosen: dict[int | None, int] = {}
    for each in found.items(len(messages)):
        message = messages.get(each.whole(1, MAX_ID))
        if message is None or message.parent in chosen:
            raise each.refused()
        chosen[message.parent] = message.id
    return chosen


def _key(found: CheckedJson) -> str:
    key = found.text(60)
    if not KEY.fullmatch(key):
        raise found.refused()
    return key
