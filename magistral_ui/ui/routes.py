"""Sends running replies to the page's own script, ten updates a second and only what is new; it does not draw them.

Gradio could carry them as a component's value. It compares whole values on both sides, compiles the component's template
again for each, and reloads the page when the line drops: several times the work, and nothing to take up a reply with.
"""

import asyncio
import json
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from magistral_ui.chat.conversation import Reply
from magistral_ui.engines.base import Engine
from magistral_ui.engines.generation import Generation
from magistral_ui.sessions.live_view import watch
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.panels import mark

LIVE_PATH, MODEL_PATH = "/magistral/live", "/magistral/model"
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def live_route(visitors: Visitors) -> Route:
    """Where a page asks for a reply by its generation, and for what comes after the events that it has seen.

    Both are headers: an address would be logged, and a foreign page may not send headers of its own. A generation's id is 256
    random bits that only its visitor's pages are told, and it is worth nothing once the reply has ended: then 404 is the
    answer, and the finished turn has everything.
    """

    async def live(request: Request) -> Response:
        asked, seen = request.headers.get("x-generation", ""), request.headers.get("last-event-id", "0")
        if not seen.isdecimal() or len(seen) > 9:
            return Response(status_code=400)
        found = await asyncio.to_thread(visitors.reading, asked)
        if found is None:
            return Response(status_code=404)
        messages = _messages(*found, int(seen))
        return StreamingResponse(messages, media_type="text/event-stream", headers=STREAM_HEADERS)

    return Route(LIVE_PATH, live)


async def _messages(generation: Generation, before: Reply | None, seen: int) -> AsyncIterator[str]:
    async for view in watch(generation, before=before, seen=seen):
        yield f"data: {json.dumps(view.value(), ensure_ascii=False, separators=(',', ':'))}\n\n"


def model_route(engine: Engine) -> Route:
    """Where an idle page asks whether anything has changed: a mark and no more, so that hundreds may ask."""

    async def look(request: Request) -> Response:  # noqa: ARG001  # nothing about it matters
        return PlainTextResponse(mark(engine.status()), headers={"Cache-Control": "no-store"})

    return Route(MODEL_PATH, look)
