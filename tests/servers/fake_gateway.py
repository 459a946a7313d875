"""A fake gateway that tells nothing of the servers behind it but names, and hands on their refusals, however they are worded."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web

from tests.servers.fakes import FakeServer, Json, openai_chunk

Refuse = Callable[[Json], "web.Response | None"]


class FakeGateway(FakeServer):
    """`refuse` is the server behind it: an answer to a request that it does not take."""

    def __init__(self) -> None:
        self.listed: Any = {"object": "list", "data": [{"id": "some-model", "object": "model", "owned_by": "openai"}]}
        self.pages: dict[str, Any] = {}
        """More that it tells, by the path."""
        self.refuse: Refuse = lambda _: None
        self.default_length = 400
        self.asked: list[str] = []
        super().__init__()

    def routes(self) -> list[web.RouteDef]:
        """Everything else is looked up in `pages`."""
        return [*super().routes(), web.get("/{path:.*}", self.page)]

    async def page(self, request: web.Request) -> web.StreamResponse:
        """One of the further pages."""
        self.asked.append(request.path)
        if request.path not in self.pages:
            return web.json_response({"detail": "Not Found"}, status=404)
        return web.json_response(self.pages[request.path])

    async def models(self, request: web.Request) -> web.StreamResponse:
        """The list."""
        return web.json_response(self.listed)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """“Fine.”, or a count up to the length that was asked for."""
        body = await request.json()
        self.requests.append(body)
        if refused := self.refuse(body):
            return refused
        return await self.stream(request, self._events(body))

    async def _events(self, body: Json) -> AsyncIterator[Json | bytes]:
        most = body.get("max_tokens", self.default_length)
        counts = "Count" in str(body["messages"][-1])
        words = [f"{n} " for n in range(1, 401)] if counts else ["Fine."]
        for text in words[:most]:
            yield openai_chunk({"content": text})
        yield openai_chunk({}, "length" if len(words) > most else "stop")
        usage = {"prompt_tokens": 9, "completion_tokens": min(most, len(words))}
        yield {**openai_chunk({}), "choices": [], "usage": usage}
        yield b"data: [DONE]\n\n"


def strict(context: int, prompt: int = 38) -> Refuse:
    """vLLM behind LiteLLM: a request that asks for more than fits is refused as a whole."""

    def refuse(body: Json) -> web.Response | None:
        asked = body.get("max_tokens") or 0
        if asked + prompt <= context:
            return None
        words = (
            f"litellm.BadRequestError: OpenAIException - This model's maximum context length is {context} tokens. "
            f"However, you requested {asked + prompt} tokens ({prompt} in the messages, {asked} in the completion). "
            "Please reduce the length of the messages or completion.. Received Model Group=some-model"
        )
        value = {"error": {"message": words, "type": None, "param": None, "code": "400"}}
        return web.json_response(value, status=400)

    return refuse


def knows_only(*fields: str) -> Refuse:
    """A server that forbids every field that it does not know, as FastAPI's models do."""

    def refuse(body: Json) -> web.Response | None:
        unknown = [name for name in body if name not in ("model", "messages", "stream", *fields)]
        if not unknown:
            return None
        told = {"type": "extra_forbidden", "loc": ["body", unknown[0]], "msg": "Extra inputs are not permitted"}
        return web.json_response({"detail": [told]}, status=422)

    return refuse
