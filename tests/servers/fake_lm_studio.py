"""A fake of LM Studio's server, after its documentation; reasoning comes in a field or as marks, as its setting says."""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from tests.servers.fakes import FakeServer, Json, openai_chunk, said_to, thoughts_and_answer

# https://lmstudio.ai/docs/developer/openai-compat/chat-completions
DOCUMENTED = {
    *("model", "messages", "stream", "stream_options", "temperature", "top_p", "top_k", "max_tokens", "stop", "seed"),
    *("presence_penalty", "frequency_penalty", "logit_bias", "repeat_penalty"),
}


class FakeLMStudio(FakeServer):
    """`separate` is the developer setting “separate reasoning_content”."""

    separate = True
    pause = 0.0

    def routes(self) -> list[web.RouteDef]:
        """Its own list of models beside OpenAI's."""
        return [*super().routes(), web.get("/api/v0/models", self.own_models)]

    async def models(self, request: web.Request) -> web.StreamResponse:
        """OpenAI's list tells no more than names."""
        names = ("mistralai/magistral-small-2509", "text-embedding-nomic-embed-text-v1.5")
        listed = [{"id": name, "object": "model", "owned_by": "organization_owner"} for name in names]
        return web.json_response({"object": "list", "data": listed})

    async def own_models(self, request: web.Request) -> web.StreamResponse:
        """Type, quantization and lengths."""
        magistral = {
            "id": "mistralai/magistral-small-2509",
            "object": "model",
            "type": "vlm",
            "publisher": "mistralai",
            "arch": "mistral3",
            "compatibility_type": "gguf",
            "quantization": "Q4_K_M",
            "state": "loaded",
            "max_context_length": 131_072,
            "loaded_context_length": 32_768,
        }
        embedding = {"id": "text-embedding-nomic-embed-text-v1.5", "object": "model", "type": "embeddings"}
        return web.json_response({"object": "list", "data": [magistral, embedding]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Think and answer."""
        body = await request.json()
        self.requests.append(body)
        unknown = set(body) - DOCUMENTED
        lists = [each for each in body["messages"] if each["role"] != "user" and not isinstance(each["content"], str)]
        if unknown or lists:
            return web.json_response({"error": f"not documented: {sorted(unknown) or lists}"}, status=400)
        return await self.stream(request, self._events(body))

    async def _events(self, body: Json) -> AsyncIterator[Json | bytes]:
        thoughts, answer = thoughts_and_answer(said_to(body["messages"]))
        marked = [] if self.separate else ["[THINK]", *thoughts, "[/THINK]"]
        yield openai_chunk({"role": "assistant"})
        for text in thoughts if self.separate else ():
            yield openai_chunk({"reasoning_content": text})
            await asyncio.sleep(self.pause)
        for text in [*marked, *answer]:
            yield openai_chunk({"content": text})
            await asyncio.sleep(self.pause)
        yield openai_chunk({}, "stop")
        if body.get("stream_options", {}).get("include_usage"):
            count = len(thoughts) + len(answer)
            yield {**openai_chunk({}), "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": count}}
        yield b"data: [DONE]\n\n"
