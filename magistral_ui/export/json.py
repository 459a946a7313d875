"""Exports and imports conversations as one JSON file, whole trees with their images; any error in a file refuses it."""

import base64
import binascii
import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from magistral_ui.chat.conversation import AssistantMessage, ChatMessage, Conversation, UserMessage
from magistral_ui.chat.images import ImageFile, read_image
from magistral_ui.errors import ImageRefused, ImportRefused
from magistral_ui.export.document import Document
from magistral_ui.export.json_models import (
    FORMAT_VERSION,
    AssistantEntry,
    ConversationEntry,
    ExportFile,
    ImageEntry,
    ImageReference,
    ImportLimits,
    ImportTotals,
    UserEntry,
)

FORMAT = "magistral-ui/conversation"
MAX_DEPTH = 12
"""Levels of nested objects and lists; the format has 7."""
MAX_STRUCTURE_BYTES = 16 * 2**20
"""Bytes outside strings and whitespace: each may become a Python object of a hundred bytes."""
MAX_NUMBER_LENGTH = 25
"""Characters: enough for every float and every integer that JSON represents exactly."""
PIECE = 2**18
"""Bytes to scan at a time, while other threads wait."""
SPACES = b" \t\r\n"


def export_json(documents: Sequence[Document]) -> bytes:
    """One file with all `documents`. A lone surrogate, which UTF-8 cannot encode, becomes a question mark."""
    images = {
        image.digest: image
        for document in documents
        for message in document.conversation.messages.values()
        if isinstance(message, UserMessage)
        for image in message.images
    }
    whole = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "conversations": [_conversation_value(document) for document in documents],
        "pictures": {
            digest: {"media_type": image.media_type, "data": base64.b64encode(image.data).decode("ascii")}
            for digest, image in images.items()
        },
    }
    return json.dumps(whole, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def _conversation_value(document: Document) -> dict[str, Any]:
    conversation = document.conversation
    return {
        "title": document.title,
        "created": document.created.isoformat() if document.created else None,
        "updated": document.updated.isoformat() if document.updated else None,
        "messages": [_message_value(message) for _, message in sorted(conversation.messages.items())],
        "chosen": list(conversation.chosen.values()),
        "last_id": conversation.last_id,
    }


def _message_value(message: ChatMessage) -> dict[str, Any]:
    if isinstance(message, AssistantMessage):
        return {"role": "assistant", **dataclasses.asdict(message)}
    images = [{"digest": image.digest, "name": image.name} for image in message.images]
    return {"id": message.id, "parent": message.parent, "role": "user", "text": message.text, "pictures": images}


def import_json(data: bytes, limits: ImportLimits | None = None) -> list[Document]:
    """The conversations in `data`, in order. Raises ImportRefused for the first error. Ids are unique within a conversation."""
    totals = ImportTotals(limits or ImportLimits())
    value = parse_json(data, totals.limits.bytes)
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ImportRefused("import_not_ours")
    version = value.get("version")
    if type(version) is int and version > FORMAT_VERSION:
        raise ImportRefused("import_version", version=version, known=FORMAT_VERSION)
    try:
        file = ExportFile.model_validate(value, context=totals)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False, include_input=False)[0]) from error
    reader = _Reader(totals, file.images)
    return [reader.document(each, f"conversations[{index}]") for index, each in enumerate(file.conversations)]


def _refusal(error: ErrorDetails) -> ImportRefused:
    """The error, with its path in the file, such as `conversations[0].title`."""
    where = ""
    for each in error["loc"]:
        if each not in ("user", "assistant"):  # pydantic adds the kind of message
            where += f"[{each}]" if isinstance(each, int) else f".{each}" if where else each
        if each == "failure_values":  # its keys could be any text, so they are not shown
            break
    if error["type"].startswith("union_tag"):
        where += ".role"
    limit = error["ctx"] if error["type"] == "too_much" else {}
    return ImportRefused("import_too_much" if limit else "import_broken", where=where, **limit)


@dataclasses.dataclass(slots=True)
class _Reader:
    """Turns the file's entries into conversations, and checks how they relate to each other and to the images."""

    totals: ImportTotals
    entries: dict[str, ImageEntry]
    images: dict[str, ImageFile] = dataclasses.field(default_factory=dict)

    def document(self, entry: ConversationEntry, where: str) -> Document:
        return Document(self.conversation(entry, where), entry.title or "", entry.created, entry.updated)

    def conversation(self, entry: ConversationEntry, where: str) -> Conversation:
        messages: dict[int, ChatMessage] = {}
        for index, each in enumerate(entry.messages):
            place = f"{where}.messages[{index}]"
            # Ids only grow, so none occurs twice, a parent comes before its children, and there are no cycles.
            if not next(reversed(messages), 0) < each.id <= entry.last_id:
                raise ImportRefused("import_broken", where=f"{place}.id")
            parent = messages.get(each.parent) if each.parent else None
            if isinstance(each, AssistantEntry) and isinstance(parent, UserMessage):
                messages[each.id] = AssistantMessage(each.id, parent.id, each.reply.reply(), each.keep_reasoning)
            elif isinstance(each, UserEntry) and (parent or each.parent is None):
                images = tuple(self.image(image) for image in each.images or ())
                messages[each.id] = UserMessage(each.id, each.parent, each.text, images)
            else:
                raise ImportRefused("import_broken", where=f"{place}.parent")
        chosen: dict[int | None, int] = {}
        for index, id in enumerate(entry.chosen):
            if id not in messages or messages[id].parent in chosen:
                raise ImportRefused("import_broken", where=f"{where}.chosen[{index}]")
            chosen[messages[id].parent] = id
        return Conversation(messages, chosen, entry.last_id)

    def image(self, reference: ImageReference) -> ImageFile:
        """The image that a message refers to by its digest; its bytes are decoded and checked once."""
        name = reference.name or ""
        if reference.digest not in self.images:
            self.images[reference.digest] = self.decoded(reference.digest, name)
        return dataclasses.replace(self.images[reference.digest], name=name)

    def decoded(self, digest: str, name: str) -> ImageFile:
        if digest not in self.entries:
            raise ImportRefused("import_broken", where=f"pictures.{digest}")
        limits = self.totals.limits
        try:
            entry = ImageEntry.model_validate(self.entries[digest])
            data = base64.b64decode(entry.data, validate=True)
            image = read_image(data, name, max_bytes=limits.picture_bytes, max_pixels=limits.picture_pixels)
        except (binascii.Error, ValueError, ImageRefused) as error:
            raise ImportRefused("import_picture_broken", name=name) from error
        if image.digest != digest or entry.media_type != image.media_type:
            raise ImportRefused("import_picture_broken", name=name)
        self.totals.pixels += image.width * image.height
        if self.totals.pixels > limits.all_pixels:
            raise ImportRefused("import_too_much", where="pictures", count=self.totals.pixels, limit=limits.all_pixels)
        return image


def parse_json(data: bytes, max_bytes: int) -> Any:
    """The value in `data`. Raises ImportRefused unless that is JSON in UTF-8 of at most `max_bytes` bytes.

    Duplicate names in one object, NaN, infinities and very long numbers are refused too.
    """
    if len(data) > max_bytes:
        raise ImportRefused("import_too_large", limit=max_bytes // 2**20)
    data = data.removeprefix(b"\xef\xbb\xbf")
    _check_structure(data)
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_whole,
            parse_float=_fraction,
            parse_constant=_constant,
        )
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ImportRefused("import_not_json") from error


def _check_structure(data: bytes) -> None:
    """Refuse JSON that is deeply nested or takes much memory, judged by what it contains outside strings."""
    plain = data.replace(rb"\\", b"").replace(rb"\"", b"")  # so that each remaining quote begins or ends a string
    length, depth, inside = 0, 0, False
    for start in range(0, len(plain), PIECE):
        parts = plain[start : start + PIECE].split(b'"')
        skeleton = b"".join(parts[int(inside) :: 2]).translate(None, SPACES)
        inside ^= len(parts) % 2 == 0
        length += len(skeleton)
        if length > MAX_STRUCTURE_BYTES:
            raise ImportRefused("import_too_large", limit=MAX_STRUCTURE_BYTES // 2**20)
        for bracket in re.findall(rb"[][{}]", skeleton):
            depth += 1 if bracket in b"[{" else -1
            if depth > MAX_DEPTH:
                raise ImportRefused("import_not_json")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _whole(digits: str) -> int:
    if len(digits) > MAX_NUMBER_LENGTH:
        raise ValueError("too long a number")
    return int(digits)


def _fraction(digits: str) -> float:
    value = float(digits)
    if len(digits) > 2 * MAX_NUMBER_LENGTH or value in (float("inf"), float("-inf")):
        raise ValueError("too long a number")
    return value


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
