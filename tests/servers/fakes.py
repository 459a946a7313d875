"""Servers of our own on loopback, for what cannot run here: they speak a server's protocol strictly, and think very little.

Each is a fake and says nothing about the real server beyond its published schema; what a request must not have is refused.
"""

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiohttp import web

Json = dict[str, Any]
SUM = re.compile(r"(\d+) \+ (\d+)")


def said_to(messages: list[Json]) -> str:
    """The text of the last user message."""
    content = next(each["content"] for each in reversed(messages) if each["role"] == "user")
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if part["type"] == "text")


def thoughts_and_answer(text: str) -> tuple[list[str], list[str]]:
    """What the fakes say to `text`, in pieces: a sum, or a count that takes its time."""
    if found := SUM.search(text):
        a, b = map(int, found.groups())
        return [f"{a} plus ", f"{b} is ", f"{a + b}."], ["It is ", f"{a + b}."]
    return ["Counting."], [f"{n} " for n in range(1, 400)]


class FakeServer:
    """Routes on a port of its own, in a thread of its own; `requests` keeps the bodies that came."""

    key = ""
    """The access key that it wants; empty: none."""

    def __init__(self, port: int = 0) -> None:
        """`port` is for a server that comes back where it was; 0 is any."""
        self.requests: list[Json] = []
        self.headers: list[Mapping[str, str]] = []
        self.running = 0
        self.ended_early = 0
        """Streams whose reader left before their end."""
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self._up.wait(60)

    def routes(self) -> list[web.RouteDef]:
        """What it answers."""
        return [web.get("/v1/models", self.models), web.post("/v1/chat/completions", self.chat)]

    async def models(self, request: web.Request) -> web.StreamResponse:
        """The list of models."""
        raise NotImplementedError

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """A reply as a stream."""
        raise NotImplementedError

    async def stream(self, request: web.Request, chunks: AsyncIterator[Json | bytes]) -> web.StreamResponse:
        """Send `chunks` as server-sent events; bytes go out as they are."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        self.running += 1
        try:
            async for chunk in chunks:
                data = chunk if isinstance(chunk, bytes) else b"data: " + json.dumps(chunk).encode() + b"\n\n"
                await response.write(data)
        except (ConnectionError, asyncio.CancelledError):
            self.ended_early += 1
            raise
        finally:
            self.running -= 1
        return response

    def close(self) -> None:
        """End it, and whatever it is sending; again does no harm."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        application = web.Application(middlewares=[self._guard])
        application.add_routes(self.routes())
        runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", self._port, reuse_address=True)
        self._loop.run_until_complete(site.start())
        self.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        self._up.set()
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(runner.cleanup())
            self._loop.close()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"detail": "Unauthorized"}, status=401)
        response: web.StreamResponse = await handler(request)
        return response


def openai_chunk(delta: Json, finish: str | None = None, **more: Any) -> Json:
    """One chunk of a chat completion."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}
