"""The routes through which a visitor's conversations are exported and imported as files; export/ has the formats."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.events import alert_value
from magistral_ui.client import CLIENT
from magistral_ui.errors import HistoryUnusable, ImportRefused, TooManyRequests
from magistral_ui.export.document import Document, Texts, file_name
from magistral_ui.export.html import export_html
from magistral_ui.export.json import export_json, import_json
from magistral_ui.export.json_models import ImportLimits
from magistral_ui.export.markdown import export_markdown
from magistral_ui.i18n.languages import LANGUAGES, Language
from magistral_ui.i18n.texts import DEFAULT_LANGUAGE, text, text_in
from magistral_ui.sessions.fair_queue import FairQueue
from magistral_ui.sessions.limits import Limits, length_of
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.web.client_address import visitors_language

EXPORT_FORMATS = {"json": "application/json", "markdown": "text/markdown", "html": "text/html"}
ENDINGS = {"json": "json", "markdown": "md", "html": "html"}
PARALLEL_FILES = 2
MAX_FILES_PER_ADDRESS = 4
"""Files of one address that are being sent, wait, or are being processed."""
DOWNLOAD_HEADERS = {"Cache-Control": "no-store", "Content-Disposition": "attachment"}


@dataclass(frozen=True, slots=True)
class ExportPurpose:
    """A ticket's purpose: these conversations of the visitor at `place`, as a file."""

    place: Any
    conversations: tuple[str, ...]
    """Ids; empty for all conversations."""
    format: str


@dataclass(frozen=True, slots=True)
class ImportPurpose:
    """A ticket's purpose: conversations in a file become those of the visitor at `place`."""

    place: Any


def name_of(title: str, format: str) -> str:
    return file_name(title, ENDINGS[format], text("page_title"))


def written(documents: Sequence[Document], format: str, language: Language = LANGUAGES[DEFAULT_LANGUAGE]) -> bytes:
    if format == "json":
        return export_json(documents)
    words: Texts = partial(text_in, language.code)
    if format == "markdown":
        return export_markdown(documents, words).encode("utf-8", "replace")
    return export_html(documents, words, language.tag, language.direction).encode("utf-8", "replace")


def import_limits(limits: Limits) -> ImportLimits:
    default = ImportLimits()
    size = limits.import_mb * 2**20
    return replace(
        default,
        bytes=size,
        conversations=min(default.conversations, limits.conversations),
        messages=default.messages * size // default.bytes,
        text_length=limits.text_length,
        picture_bytes=limits.picture_bytes,
        picture_pixels=limits.picture_pixels,
        all_pixels=default.all_pixels * size // default.bytes,
    )


def exchange_routes(visitors: Visitors) -> list[Route]:
    """The routes for downloading and uploading files. A ticket in a header is needed: no URL gives access by itself.

    What a ticket opens is looked up among its visitor's conversations only. A few files are read and written at once, in
    threads of their own; the others wait, and addresses take turns.
    """
    bounds, queue = import_limits(visitors.limits), FairQueue("files", PARALLEL_FILES, MAX_FILES_PER_ADDRESS)

    async def send(request: Request) -> Response:
        purpose = visitors.tickets.redeem(request.headers.get("x-ticket", ""))
        if not isinstance(purpose, ExportPurpose):
            return Response(status_code=404)
        language = visitors_language(request.scope)
        try:
            writing = queue.submit(CLIENT.get().quota_key, lambda: _content(visitors, purpose, language))
            content = await asyncio.wrap_future(writing)
        except TooManyRequests as error:
            return JSONResponse(
                {"failure": alert_value(error)}, 429, {"Retry-After": str(error.message.values["seconds"])}
            )
        return Response(content, media_type=EXPORT_FORMATS[purpose.format], headers=DOWNLOAD_HEADERS)

    async def take(request: Request) -> Response:
        purpose = visitors.tickets.redeem(request.headers.get("x-ticket", ""))
        if not isinstance(purpose, ImportPurpose):
            return Response(status_code=404)
        try:
            with queue.reserve(CLIENT.get().quota_key) as submit:
                data = await _body(request, bounds.bytes)
                reading = submit(lambda: _take(visitors, purpose.place, data, bounds))
            count = await asyncio.wrap_future(reading)
        except (ImportRefused, TooManyRequests) as error:
            return JSONResponse({"failure": alert_value(error)})
        except HistoryUnusable:
            return JSONResponse({"failure": alert_value(ImportRefused("import_not_saved"))})
        return JSONResponse({"imported": count})

    return [Route("/magistral/export", send), Route("/magistral/import", take, methods=["POST"])]


def _content(visitors: Visitors, purpose: ExportPurpose, language: Language) -> bytes:
    return written(visitors.documents(purpose.place, purpose.conversations), purpose.format, language)


def _take(visitors: Visitors, place: Any, data: bytearray, limits: ImportLimits) -> int:
    documents = import_json(bytes(data), limits)
    for number, document in enumerate(documents):
        _check_size(document.conversation, visitors.limits, f"conversations[{number}]")
    visitors.import_documents(place, documents, len(data))
    return len(documents)


def _check_size(conversation: Conversation, limits: Limits, where: str) -> None:
    """Raises ImportRefused for a conversation that would be too large if it had been held here."""
    for count, limit in (
        (len(conversation.messages), limits.messages),
        (length_of(conversation), limits.conversation_length),
    ):
        if count > limit:
            raise ImportRefused("import_too_much", where=where, count=count, limit=limit)


async def _body(request: Request, max_bytes: int) -> bytearray:
    """The request's body; ImportRefused as soon as it is too large."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > max_bytes:
            raise ImportRefused("import_too_large", limit=max_bytes // 2**20)
    return data
