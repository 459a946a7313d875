"""A fake of Mistral's API: every request is checked, and every event made, with the models of Mistral's own client."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from mistralai.client import models as api
from pydantic import ValidationError

from tests.servers.fakes import FakeServer, Json, said_to, thoughts_and_answer

MODELS = {"user": api.UserMessage, "assistant": api.AssistantMessage, "system": api.SystemMessage}
PARTS = {"text": api.TextChunk, "thinking": api.ThinkChunk, "image_url": api.ImageURLChunk}


class Extra(Exception):
    """A field that the API does not know; it refuses the whole request for one."""

    def __init__(self, *place: str) -> None:
        super().__init__(place)
        self.place = place


class FakeMistral(FakeServer):
    """`POST /v1/chat/completions` and `GET /v1/models` as the client's schema has them."""

    key = "a-mistral-key"
    pause = 0.0
    """Seconds between two events."""

    async def models(self, request: web.Request) -> web.StreamResponse:
        """One model that thinks and sees, and one that only embeds."""
        able = {"completion_chat": True, "vision": True, "reasoning": True}
        card = {"id": "mistral-medium-latest", "capabilities": able, "max_context_length": 131_072, "aliases": []}
        other = {"id": "mistral-embed", "capabilities": {"completion_chat": False}, "aliases": []}
        listed = [{"object": "model", "owned_by": "mistralai", **each} for each in (card, other)]
        for each in listed:
            api.BaseModelCard.model_validate(each)
        return web.json_response({"object": "list", "data": listed})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Think and answer; with a prefix, repeat it and go on from there."""
        body = await request.json()
        self.requests.append(body)
        try:
            check(body)
        except (Extra, ValidationError, ValueError) as error:
            return refusal(error)
        return await self.stream(request, self._events(body))

    async def _events(self, body: Json) -> AsyncIterator[Json | bytes]:
        last = body["messages"][-1]
        thoughts, answer = thoughts_and_answer(said_to(body["messages"]))
        thinks = body.get("reasoning_effort") not in (None, "none")
        yield event({"role": "assistant", "content": ""})
        if last["role"] == "assistant":
            thinks = False
            for part in last["content"] if isinstance(last["content"], list) else [last["content"]]:
                yield event({"content": [part] if isinstance(part, dict) else part})  # the echo
                thinks = thinks or (isinstance(part, dict) and part.get("closed") is False)
        for text in thoughts if thinks else ():
            yield event({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]})
            await asyncio.sleep(self.pause)
        if thinks:
            yield event({"content": [{"type": "thinking", "thinking": []}]})
        left = body.get("max_tokens", 10**6) - len(thoughts)
        for text in answer[:left]:
            yield event({"content": text})
            await asyncio.sleep(self.pause)
        usage = {"prompt_tokens": 10, "completion_tokens": len(thoughts) + len(answer[:left]), "total_tokens": 0}
        yield event({"content": ""}, "stop" if len(answer) <= left else "length", usage)
        yield b"data: [DONE]\n\n"


def event(delta: Json, finish: str | None = None, usage: Json | None = None) -> Json:
    """One chunk that the client would take."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk: Json = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    if usage:
        chunk["usage"] = usage
    api.CompletionChunk.model_validate(chunk)
    return chunk


def check(body: Json) -> None:
    """Raise for whatever the API would refuse; the client's models drop unknown fields silently, so those are looked for."""
    _no_more_than(api.ChatCompletionStreamRequest, body)
    for message in body["messages"]:
        _no_more_than(MODELS[message["role"]], message, "messages")
        for part in message["content"] if isinstance(message["content"], list) else ():
            _no_more_than(PARTS[part["type"]], part, "messages", "content")
            if part["type"] == "thinking" and not isinstance(part["thinking"], list):
                raise ValueError("thinking is a list of texts")
        if message["role"] == "assistant" and not message["content"]:
            raise ValueError("an assistant message has content")
    api.ChatCompletionStreamRequest.model_validate(body)
    last = body["messages"][-1]
    if last["role"] == "assistant" and not last.get("prefix"):
        raise ValueError("the last message is the user's, or a prefix")


def _no_more_than(model: Any, value: Json, *place: str) -> None:
    known = {field.alias or name for name, field in model.model_fields.items()} | {"role", "type"}
    for name in value:
        if name not in known:
            raise Extra(*place, name)


def refusal(error: Exception) -> web.Response:
    """422 in the API's own shape, in which the message is an object."""
    extra = isinstance(error, Extra)
    told = {
        "type": "extra_forbidden" if extra else "value_error",
        "loc": ["body", *(error.place if isinstance(error, Extra) else ())],
        "msg": "Extra inputs are not permitted" if extra else str(error),
    }
    body = {"object": "error", "message": {"detail": [told]}, "type": "invalid_request_error", "code": None}
    return web.json_response(body, status=422)
