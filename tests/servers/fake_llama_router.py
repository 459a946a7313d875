"""A fake of llama.cpp's server as a router of several models, after its documentation: each question has to name the model."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.servers.fakes import FakeServer, Json, openai_chunk, said_to, thoughts_and_answer

THINKING = "{% for m in messages %}[THINK]…{% endfor %}"
PLAIN = "{% for m in messages %}<|im_start|>…{% endfor %}"


@dataclass
class Model:
    """One model of the router: `state` is `unloaded`, `loading`, `loaded` or `failed`."""

    name: str
    context: int = 16_384
    vision: bool = True
    template: str = THINKING
    state: str = "loaded"
    aliases: tuple[str, ...] = ()


class FakeLlamaRouter(FakeServer):
    """`asked` keeps the path and the model's name of every question."""

    def __init__(self, *models: Model, autoload: bool = True) -> None:
        self.models_by_name = {model.name: model for model in models}
        self.asked: list[tuple[str, str | None]] = []
        self.autoload = autoload
        super().__init__()

    def routes(self) -> list[web.RouteDef]:
        """What belongs to one model is handed on to it."""
        return [
            *super().routes(),
            web.get("/props", self.props),
            web.post("/apply-template", self.apply_template),
            web.post("/tokenize", self.tokenize),
        ]

    async def models(self, request: web.Request) -> web.StreamResponse:
        """All models, with what is known of those that are not in memory."""
        return web.json_response({"object": "list", "data": [listed(m) for m in self.models_by_name.values()]})

    async def props(self, request: web.Request) -> web.StreamResponse:
        """The router's own page without a name; with one, that model's, which is loaded for it."""
        name = request.query.get("model")
        self.asked.append(("/props", name))
        if name is None:
            nothing = {"params": None, "n_ctx": 0}
            return web.json_response({"role": "router", "model_path": "none", "default_generation_settings": nothing})
        model = self._found(name)
        if isinstance(model, web.Response):
            return model
        if refused := await self._loaded(model, request.query.get("autoload") != "false"):
            return refused
        return web.json_response(
            {
                "total_slots": 1,
                "default_generation_settings": {"n_ctx": model.context},
                "modalities": {"vision": model.vision},
                "model_path": f"/models/{model.name}.gguf",
                "chat_template": model.template,
                "build_info": "b9000-x",
            }
        )

    async def apply_template(self, request: web.Request) -> web.StreamResponse:
        """A prompt as text."""
        body, model = await self._asked_of(request)
        if isinstance(model, web.Response):
            return model
        return web.json_response({"prompt": rendered(model, body)})

    async def tokenize(self, request: web.Request) -> web.StreamResponse:
        """One token for each character, which is easy to check."""
        body, model = await self._asked_of(request)
        if isinstance(model, web.Response):
            return model
        return web.json_response({"tokens": list(range(len(body["content"])))})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Think and answer, if the model thinks."""
        body, model = await self._asked_of(request)
        self.requests.append(body)
        if isinstance(model, web.Response):
            return model
        return await self.stream(request, self._events(model, body))

    async def _events(self, model: Model, body: Json) -> AsyncIterator[Json | bytes]:
        thoughts, answer = thoughts_and_answer(said_to(body["messages"]))
        for text in thoughts if model.template == THINKING else ():
            yield openai_chunk({"reasoning_content": text})
        for text in answer:
            yield openai_chunk({"content": text})
        yield openai_chunk({}, "stop")
        usage = {"prompt_tokens": len(rendered(model, body)), "completion_tokens": len(answer)}
        yield {**openai_chunk({}), "choices": [], "usage": usage}
        yield b"data: [DONE]\n\n"

    async def _asked_of(self, request: web.Request) -> tuple[Json, "Model | web.Response"]:
        body = await request.json()
        self.asked.append((request.path, body.get("model")))
        if not body.get("model"):
            return body, error(400, "model name is missing from the request")
        model = self._found(body["model"])
        if isinstance(model, Model) and (refused := await self._loaded(model, True)):
            return body, refused
        return body, model

    def _found(self, name: str) -> "Model | web.Response":
        model = self.models_by_name.get(name)
        known = model or next((each for each in self.models_by_name.values() if name in each.aliases), None)
        return known or error(404, f"model '{name}' not found")

    async def _loaded(self, model: Model, load: bool) -> web.Response | None:
        if model.state in ("loaded", "sleeping"):
            return None
        if not (load and self.autoload):
            return error(400, "model is not loaded")
        model.state = "loading"
        await asyncio.sleep(0.05)
        model.state = "loaded"
        return None


def listed(model: Model) -> Json:
    """The model's entry in the list."""
    value = "unloaded" if model.state == "failed" else model.state
    status: Json = {"value": value, "args": ["llama-server", "--ctx-size", str(model.context)]}
    if model.state == "failed":
        status |= {"failed": True, "exit_code": 1}
    taken = ["text", "image"] if model.vision else ["text"]
    return {
        "id": model.name,
        "aliases": list(model.aliases),
        "object": "model",
        "owned_by": "llamacpp",
        "status": status,
        "architecture": {"input_modalities": taken, "output_modalities": ["text"]},
        "meta": None,
    }


def rendered(model: Model, body: Json) -> str:
    """The prompt as the model's template writes it: a plain one knows no field for reasoning."""
    thinks = model.template == THINKING
    text = "<s>"
    for message in body["messages"]:
        reasoning = message.get("reasoning_content") if thinks else None
        thought = f"[THINK]{reasoning}[/THINK]" if reasoning else ""
        text += f"<{message['role']}>{thought}{_text(message.get('content'))}</{message['role']}>"
    resumed = body.get("continue_final_message")
    if resumed:
        text = text.removesuffix("</assistant>")
        return text.removesuffix("[/THINK]") if resumed == "reasoning_content" else text
    return f"{text}<assistant>"


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or ())


def error(status: int, message: str) -> web.Response:
    """An error in llama.cpp's shape."""
    body = {"error": {"code": status, "message": message, "type": "invalid_request_error"}}
    return web.json_response(body, status=status)
