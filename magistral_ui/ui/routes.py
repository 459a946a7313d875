"""Streams running replies to the page's script, ten updates a second with only what is new, and tells the model's state.

Gradio could carry replies as a component's value. It would compare whole values on both sides, recompile the component's
template for each update, and reload the page when the connection drops: several times the work, and no way to resume.
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
    """The stream of a reply, by its generation, from the first event that the page has not seen.

    Both are headers: an address would be logged, and a foreign page may not send headers of its own. A generation's id is 256
    random bits known only to its visitor's pages, and useless once the reply has ended: then the
    answer is 404, and the finished turn has everything.
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
    """Where an idle page asks whether anything has changed: only a mark, so that hundreds can ask."""

    async def look(request: Request) -> Response:  # noqa: ARG001  # the answer is the same for everybody
        return PlainTextResponse(mark(engine.status()), headers={"Cache-Control": "no-store"})

    return Route(MODEL_PATH, look)
