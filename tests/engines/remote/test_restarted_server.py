"""A server that comes back as another one: the page learns of it, running replies go on, and none goes to the wrong model."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from aiohttp import web

from magistral_ui.chat.events import Failed, Finished
from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest, Ready
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.remote import server_monitor
from magistral_ui.engines.remote.engine import RemoteEngine
from magistral_ui.i18n.texts import sentence
from tests.engines.contract import all_events, words
from tests.servers.fakes import FakeServer, Json, openai_chunk
from tests.waiting import until

Connect = Callable[..., RemoteEngine]


class Swapped(FakeServer):
    """One server of a kind whose model can be changed under way."""

    def __init__(self, kind: str) -> None:
        self.kind, self.model, self.context = kind, "magistral-small-2509", 8192
        self.template = "[THINK]"
        self.pinned = ""
        self.go_on = False
        super().__init__()

    def routes(self) -> list[web.RouteDef]:
        more = {
            "llama.cpp": [web.get("/props", self.props)],
            "lm-studio": [web.get("/api/v0/models", self.own)],
            "transformers": [web.get("/openapi.json", self.paths)],
        }
        return [*super().routes(), *more.get(self.kind, [])]

    async def models(self, request: web.Request) -> web.StreamResponse:
        entry: Json = {"id": self.model, "created": time.time(), "owned_by": "someone"}
        if self.kind == "llama.cpp":
            entry |= {"owned_by": "llamacpp", "meta": {"n_ctx": self.context, "n_params": len(self.model)}}
        if self.kind == "vllm":
            entry |= {"owned_by": "vllm", "max_model_len": self.context, "permission": [{"id": str(time.time())}]}
        if self.kind == "gateway":
            entry |= {"context_length": self.context}
        return web.json_response({"data": [entry]})

    async def props(self, request: web.Request) -> web.StreamResponse:
        generation = {"n_ctx": self.context}
        return web.json_response({"default_generation_settings": generation, "chat_template": self.template})

    async def own(self, request: web.Request) -> web.StreamResponse:
        entry = {"id": self.model, "type": "llm", "loaded_context_length": self.context, "state": "loaded"}
        return web.json_response({"data": [entry]})

    async def paths(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"paths": {"/load_model": {}}})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        if self.pinned and body["model"] != self.pinned:
            told = f"Server is pinned to '{self.pinned}'; requested '{body['model']}'."
            return web.json_response({"detail": told}, status=400)
        return await self.stream(request, self._events())

    async def _events(self) -> AsyncIterator[Json | bytes]:
        yield openai_chunk({"content": "It "})
        while not self.go_on:
            await asyncio.sleep(0.01)
        yield openai_chunk({"content": "goes on."})
        yield openai_chunk({}, "stop")


@pytest.fixture
def swapped(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Swapped]]:
    monkeypatch.setattr(server_monitor, "CHECK_INTERVAL_READY", 0.05)
    monkeypatch.setattr(server_monitor, "CHECK_INTERVAL_WAITING", 0.05)
    made: list[Swapped] = []

    def make(kind: str) -> Swapped:
        made.append(Swapped(kind))
        return made[-1]

    yield make
    for fake in made:
        fake.close()


def submit(engine: RemoteEngine) -> Generation:
    return engine.submit(GenerationRequest(Prompt((), (UserTurn("hi"),)), SamplingParams(seed=1)))


def shown(engine: RemoteEngine) -> tuple[str, int]:
    status = engine.status()
    return (status.info.source, status.info.context_length) if isinstance(status, Ready) else ("", 0)


@pytest.mark.parametrize("kind", ["llama.cpp", "vllm", "lm-studio", "gateway"])
def test_another_model_is_noticed_and_what_runs_continues(
    swapped: Callable[[str], Swapped], connect: Connect, kind: str
) -> None:
    server = swapped(kind)
    engine = connect(server.base_url)
    assert shown(engine) == ("magistral-small-2509", 8192)
    assert engine.card.system_prompt()
    running = submit(engine)
    until(lambda: len(running) > 0)
    server.model, server.template = "qwen3-8b", "<think>"
    until(lambda: shown(engine) == ("qwen3-8b", 8192))
    assert engine.card.name == "qwen3-8b"
    assert not engine.card.system_prompt(), "the prompt of the model that was there before would confuse it"
    server.go_on = True
    assert words(all_events(running)) == ("", "It goes on.")
    assert words(all_events(submit(engine))) == ("", "It goes on.")
    assert server.requests[-1]["model"] == "qwen3-8b"


@pytest.mark.parametrize("kind", ["llama.cpp", "vllm", "lm-studio", "gateway"])
def test_another_context_is_noticed(swapped: Callable[[str], Swapped], connect: Connect, kind: str) -> None:
    server = swapped(kind)
    engine = connect(server.base_url)
    server.context = 4096
    until(lambda: shown(engine) == ("magistral-small-2509", 4096))


@pytest.mark.parametrize("kind", ["llama.cpp", "vllm", "lm-studio", "gateway", "transformers"])
def test_a_server_that_stays_what_it_is_is_not_detected_again(
    swapped: Callable[[str], Swapped], connect: Connect, kind: str
) -> None:
    engine = connect(swapped(kind).base_url)
    before = engine.profile
    time.sleep(0.4)
    assert engine.profile is before


def test_a_message_goes_to_no_other_model_than_it_was_written_for(
    swapped: Callable[[str], Swapped], connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server was swapped between two looks."""
    monkeypatch.setattr(server_monitor, "CHECK_INTERVAL_READY", 3600.0)
    monkeypatch.setattr(server_monitor, "CHECK_VALID_SECONDS", 0.0)
    server = swapped("gateway")
    engine = connect(server.base_url)
    time.sleep(0.1)
    server.model = "magistral-small-2507"
    last = all_events(submit(engine))[-1]
    assert isinstance(last, Failed)
    assert last.key == "remote_other_model"
    assert "Magistral Small 1.1" in sentence(last)
    assert not server.requests
    assert shown(engine)[0] == "magistral-small-2507"
    server.go_on = True
    assert isinstance(all_events(submit(engine))[-1], Finished)


def test_a_server_of_one_model_tells_its_name_by_refusing_another(
    swapped: Callable[[str], Swapped], connect: Connect
) -> None:
    server = swapped("transformers")
    engine = connect(server.base_url)
    server.pinned, server.go_on = "mistralai/Magistral-Small-2507", True
    last = all_events(submit(engine))[-1]
    assert isinstance(last, Failed)
    assert last.key == "remote_other_model"
    until(lambda: shown(engine)[0] == server.pinned)
    assert engine.card.key == "magistral-small-2507"
    assert isinstance(all_events(submit(engine))[-1], Finished)
