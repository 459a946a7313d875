"""Writes conversations into one JSON file, whole trees with their pictures; docs/export.md describes the format."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from magistral_ui.chat.conversation import AssistantMessage, ChatMessage, Reply, UserMessage
from magistral_ui.chat.images import ImageFile
from magistral_ui.export.document import Document

FORMAT = "magistral-ui/conversation"
FORMAT_VERSION = 1
"""Raised when a reader of the version before would misunderstand a file; a new field that can be ignored raises nothing."""
Json = dict[str, Any]


def export_json(documents: Sequence[Document]) -> bytes:
    """One file with all `documents`. What JSON in UTF-8 cannot hold, half a surrogate pair, becomes a question mark."""
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
        "conversations": [_conversation(document) for document in documents],
        "pictures": _images(images),
    }
    return json.dumps(whole, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def _conversation(document: Document) -> Json:
    conversation = document.conversation
    return {
        "title": document.title,
        "created": document.created.isoformat() if document.created else None,
        "updated": document.updated.isoformat() if document.updated else None,
        "messages": [_message(message) for message in _in_order(conversation.messages.values())],
        "chosen": list(conversation.chosen.values()),
        "last_id": conversation.last_id,
    }


def _in_order(messages: Iterable[ChatMessage]) -> list[ChatMessage]:
    return sorted(messages, key=lambda message: message.id)


def _message(message: ChatMessage) -> Json:
    place: Json = {"id": message.id, "parent": message.parent}
    if isinstance(message, AssistantMessage):
        return {
            **place,
            "role": "assistant",
            "keep_reasoning": message.keep_reasoning,
            "reply": _reply(message.reply),
        }
    images = [{"digest": image.digest, "name": image.name} for image in message.images]
    return {**place, "role": "user", "text": message.text, "pictures": images}


def _reply(reply: Reply) -> Json:
    return {
        "reasoning": reply.reasoning,
        "reasoning_closed": reply.reasoning_closed,
        "answer": reply.answer,
        "finish_reason": reply.finish_reason,
        "failure": reply.failure,
        "failure_values": dict(reply.failure_values),
        "notices": list(reply.notices),
        "usage": asdict(reply.usage),
        "params": asdict(reply.params) if reply.params else None,
        "model": reply.model,
        "provenance": asdict(reply.provenance) if reply.provenance else None,
    }


def _images(images: Mapping[str, ImageFile]) -> Json:
    return {
        digest: {"media_type": image.media_type, "data": base64.b64encode(image.data).decode("ascii")}
        for digest, image in images.items()
    }
