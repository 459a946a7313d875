"""Responses to refused requests: a status, and a message where people see it; nothing is decided here."""

from collections.abc import Mapping
from types import MappingProxyType

from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from magistral_ui.errors import Value
from magistral_ui.i18n.texts import text_in
from magistral_ui.web.client_address import visitors_language

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def error_response(status: int, key: str, /, *, wait: int = 0, **values: Value) -> ASGIApp:
    """A message in the fields that Gradio's page and client show, and how long to wait, if that helps."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        sentence = text_in(visitors_language(scope).code, f"error_{key}", **values)
        await sentence_response(status, sentence, wait)(scope, receive, send)

    return answer


def sentence_response(status: int, sentence: str, wait: int = 0, headers: Mapping[str, str] = NO_HEADERS) -> Response:
    """`sentence` in the fields where Gradio's page and client look for it."""
    return JSONResponse({"detail": sentence, "error": sentence}, status, {**retry_headers(wait), **headers})


def retry_headers(wait: int) -> dict[str, str]:
    return {"Cache-Control": "no-store", **({"Retry-After": str(wait)} if wait else {})}


def not_found() -> Response:
    """The same response for what exists and what does not."""
    return PlainTextResponse("Not Found", 404)
