"""Servers that are busy, away, broken in the middle or talk nonsense: a sentence each, and what was written is kept."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from email.utils import formatdate

import pytest
from aiohttp import web

from magistral_ui.chat.events import LAST, Event, Failed, Finished, Notice, Queued
from magistral_ui.chat.prompt import Prompt, Resume, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import Broken, EngineStatus, GenerationRequest, Loading, Ready
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.remote import request_errors, server_monitor
from magistral_ui.engines.remote.engine import RemoteEngine
from magistral_ui.engines.remote.server_address import ServerAddress
from magistral_ui.engines.remote.server_monitor import ServerMonitor
from magistral_ui.errors import NotReady
from magistral_ui.i18n.texts import sentence
from tests.engines.contract import all_events, words
from tests.engines.following import follow
from tests.engines.remote.conftest import connected
from tests.loopback import free_port
from tests.servers.fakes import FakeServer, Json, openai_chunk
from tests.waiting import until

Connect = Callable[..., RemoteEngine]
Answer = Callable[[web.Request], object]
FINE = [openai_chunk({"content": "Fine."}), openai_chunk({}, "stop")]
BEGUN = openai_chunk({"content": "It is "})


class Troubled(FakeServer):
    """Answers each request with the next of its plan, and fine when the plan is spent."""

    def __init__(self) -> None:
        self.plan: list[web.Response | list[Json | bytes | float | None]] = []
        self.loading = False
        super().__init__()

    async def models(self, request: web.Request) -> web.StreamResponse:
        if self.loading:
            return web.json_response({"error": {"message": "Loading model", "code": 503}}, status=503)
        return web.json_response({"data": [{"id": "some-model", "owned_by": "someone"}]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        step = self.plan.pop(0) if self.plan else FINE
        if isinstance(step, web.Response):
            return step
        return await self.stream(request, self._sent(request, step))

    async def _sent(self, request: web.Request, step: list[Json | bytes | float | None]) -> AsyncIterator[Json | bytes]:
        """Floats are pauses; None cuts the line."""
        for each in step:
            if isinstance(each, float):
                await asyncio.sleep(each)
            elif each is None:
                assert request.transport
                request.transport.abort()
            else:
                yield each


@pytest.fixture
def server() -> Iterator[Troubled]:
    fake = Troubled()
    yield fake
    fake.close()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_errors, "RETRY_DELAYS", (0.01, 0.02, 0.03))
    monkeypatch.setattr(server_monitor, "CHECK_INTERVAL_READY", 0.05)
    monkeypatch.setattr(server_monitor, "CHECK_INTERVAL_WAITING", 0.05)


def submit(engine: RemoteEngine) -> Generation:
    return engine.submit(GenerationRequest(Prompt((), (UserTurn("hi"),)), SamplingParams(seed=1)))


def failure(events: list[Event]) -> Failed:
    last = events[-1]
    assert isinstance(last, Failed)
    told = sentence(last)
    assert "{" not in told, "a gap is not filled"
    return last


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_passing_trouble_is_waited_for_with_the_wait_shown(server: Troubled, connect: Connect, status: int) -> None:
    engine = connect(server.base_url)
    server.plan = [web.json_response({"error": {"message": "busy"}}, status=status) for _ in range(2)]
    events = all_events(submit(engine))
    assert words(events) == ("", "Fine.")
    waits = [event.retry_seconds for event in events if isinstance(event, Queued)]
    assert len(waits) == 2
    assert 0 < waits[0] < waits[1]
    assert len(server.requests) == 3


def test_a_server_s_own_wish_is_followed(server: Troubled, connect: Connect) -> None:
    engine = connect(server.base_url)
    server.plan = [web.Response(status=429, headers={"Retry-After": "0.07"})]
    events = all_events(submit(engine))
    assert [event.retry_seconds for event in events if isinstance(event, Queued)] == [0.07]


def test_a_wish_may_be_a_date() -> None:
    def wish(text: str) -> float | None:
        return request_errors.retry_after({"retry-after": text})

    soon = formatdate(time.time() + 30, usegmt=True)
    assert 20 < (wish(soon) or 0) <= 30
    assert wish("Wed, 21 Oct 2015 07:28:00 -0000") == 0
    assert [wish(text) for text in ("", "soon", "nan", "-1", "Wed, 99 Oct 2015 07:28:00 GMT")] == [None] * 5


def test_a_wish_for_an_hour_is_not_waited_for(server: Troubled, connect: Connect) -> None:
    engine = connect(server.base_url)
    server.plan = [web.Response(status=429, headers={"Retry-After": "3600"})]
    assert failure(all_events(submit(engine))).key == "remote_busy"


def test_a_server_that_stays_busy_is_given_up(server: Troubled, connect: Connect) -> None:
    engine = connect(server.base_url)
    server.plan = [web.Response(status=503) for _ in range(9)]
    assert failure(all_events(submit(engine))).key == "remote_busy"
    assert len(server.requests) == 4


def test_a_stop_ends_the_wait(server: Troubled, connect: Connect) -> None:
    engine = connect(server.base_url)
    server.plan = [web.Response(status=429, headers={"Retry-After": "50"})]
    generation = submit(engine)
    for event in follow(generation):
        if isinstance(event, Queued):
            generation.stop()
    last = generation.take()[-1].event
    assert isinstance(last, Finished)
    assert last.why == "cancelled"


def test_answer_now_ends_the_wait_and_not_the_reply(server: Troubled, connect: Connect) -> None:
    engine = connect(server.base_url, dialect="mistral")
    server.plan = [web.Response(status=429, headers={"Retry-After": "50"})]
    prompt = Prompt((), (UserTurn("hi"),), Resume("because", False, ""))
    generation = engine.submit(GenerationRequest(prompt, SamplingParams(seed=1)))
    for event in follow(generation):
        if isinstance(event, Queued):
            generation.answer_now()
    events = all_events(generation)
    assert isinstance(events[-1], Finished)
    assert events[-1].why == "stop"
    assert words(events)[1] == "Fine."


@pytest.mark.parametrize(
    ("status", "body", "key"),
    [
        (400, {"error": {"message": "no such template"}}, "remote_refused"),
        (401, {"detail": "no"}, "remote_key_refused"),
        (404, {"error": {"message": "The model `x` does not exist."}}, "remote_refused"),
        (422, {"detail": [{"loc": ["body", "top_k"], "msg": "extra"}]}, "remote_refused"),
        (500, {"error": {"message": "Jinja Exception: roles must alternate"}}, "remote_refused"),
        (
            400,
            {"error": {"type": "exceed_context_size_error", "n_prompt_tokens": 900, "n_ctx": 512}},
            "prompt_too_long",
        ),
        (
            400,
            {
                "error": {
                    "message": "This model's maximum context length is 4096 tokens. However, your prompt contains 6004 tokens"
                }
            },
            "prompt_too_long",
        ),
        (400, {"error": {"message": "context length exceeded"}}, "remote_prompt_too_long"),
    ],
)
def test_a_refusal_is_final_and_has_its_sentence(
    server: Troubled, connect: Connect, status: int, body: Json, key: str
) -> None:
    engine = connect(server.base_url)
    server.plan = [web.json_response(body, status=status)]
    assert failure(all_events(submit(engine))).key == key
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("rest", "key"),
    [
        ([None], "remote_cut"),
        ([], "remote_cut"),
        ([b"data: {not json\n\n"], "remote_malformed"),
        ([b"data: " + b"[" * 100_000 + b"\n\n"], "remote_malformed"),
        ([b"data: [1]\n\n"], "remote_malformed"),
        ([b"x" * 50 + b"\n"] * 5_000, "remote_malformed"),
        ([b"data: " + b"x" * 500_000] * 20, "remote_malformed"),
        ([b'data: {"choices": [{"delta": {"cont'], "remote_cut"),
        ([{"error": {"message": "out of memory"}}], "remote_error"),
        ([{"error": "out of memory"}], "remote_error"),
        ([openai_chunk({}, "abort")], "remote_cut"),
        ([openai_chunk({}, "content_filter")], "remote_filtered"),
    ],
)
def test_what_was_written_before_a_stream_broke_is_kept(
    server: Troubled, connect: Connect, rest: list[Json | bytes | float | None], key: str
) -> None:
    engine = connect(server.base_url)
    server.plan = [[BEGUN, 0.05, *rest]]
    events = all_events(submit(engine))
    assert words(events) == ("", "It is ")
    assert failure(events).key == key
    assert len(server.requests) == 1, "nothing is asked twice once there are words"


def test_what_came_with_the_same_read_as_the_nonsense_is_kept(server: Troubled, connect: Connect) -> None:
    engine = connect(server.base_url)
    line = b"data: " + json.dumps(BEGUN).encode() + b"\n\n"
    server.plan = [[line + b"data: {not json\n\n"]]
    assert words(all_events(submit(engine))) == ("", "It is ")


def test_the_beginning_of_a_mark_at_which_a_stream_broke_is_kept(server: Troubled, connect: Connect) -> None:
    engine = connect(server.base_url)
    server.plan = [[openai_chunk({"content": "[THINK]so 2 [/"}), 0.05, None]]
    events = all_events(submit(engine))
    assert words(events) == ("so 2 [/", "")
    assert failure(events).key == "remote_cut"


def test_a_page_of_html_in_the_place_of_a_stream_is_said_at_once(server: Troubled, connect: Connect) -> None:
    engine = connect(server.base_url)
    server.plan = [[b"<!doctype html>\n<h1>Welcome</h1>\n"]]
    assert failure(all_events(submit(engine))).key == "remote_malformed"
    assert len(server.requests) == 1


def test_a_stream_that_drips_byte_by_byte_is_read(server: Troubled, connect: Connect) -> None:
    engine = connect(server.base_url)
    data = (
        b": wait\n\ndata: "
        + json.dumps(openai_chunk({"content": "Größe 😀"}), ensure_ascii=False).encode()
        + b"\r\n\r\n"
    )
    drops: list[Json | bytes | float | None] = []
    for at in range(len(data)):
        drops += [data[at : at + 1], 0.0005]
    server.plan = [[*drops, openai_chunk({}, "stop")]]
    events = all_events(submit(engine))
    assert words(events) == ("", "Größe 😀")
    assert isinstance(events[-1], Finished)


def test_a_stream_that_broke_before_its_first_word_is_begun_again(server: Troubled, connect: Connect) -> None:
    engine = connect(server.base_url)
    server.plan = [[None], [openai_chunk({"role": "assistant", "content": ""}), None]]
    events = all_events(submit(engine))
    assert words(events) == ("", "Fine.")
    assert isinstance(events[-1], Finished)


def test_an_end_without_the_last_line_is_an_end(server: Troubled, connect: Connect) -> None:
    engine = connect(server.base_url)
    server.plan = [[BEGUN, openai_chunk({}, "length")]]
    last = all_events(submit(engine))[-1]
    assert isinstance(last, Finished)
    assert last.why == "length"


def test_reasoning_and_no_answer_from_a_server_that_tells_them_apart_wrongly(
    server: Troubled, connect: Connect
) -> None:
    engine = connect(server.base_url)
    server.plan = [[openai_chunk({"reasoning_content": "Paris."}), openai_chunk({}, "stop")]]
    events = all_events(submit(engine))
    assert words(events) == ("Paris.", "Paris.")
    assert Notice("remote_only_reasoning") in events


def test_the_page_knows_when_a_server_loads_and_when_it_is_ready(server: Troubled) -> None:
    server.loading = True
    engine = RemoteEngine(ServerAddress(server.base_url))
    engine.start()
    try:
        until(lambda: engine.status() == Loading("server"))
        server.loading = False
        until(lambda: isinstance(engine.status(), Ready))
    finally:
        engine.close()


class Holding(Troubled):
    """Begins a reply and says no more."""

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        return await self.stream(request, self._sent(request, [BEGUN, 600.0]))


@pytest.mark.parametrize("control", ["nothing", "stop", "answer_now", "lose", "look"])
def test_closing_ends_a_running_reply_whatever_comes_with_it(control: str) -> None:
    fake = Holding()
    engine = RemoteEngine(ServerAddress(fake.base_url))
    engine.start()
    try:
        until(lambda: isinstance(engine.status(), Ready))
        generation = submit(engine)
        until(lambda: bool(fake.requests) and len(generation) > 0)
        assert engine._loop is not None
        (reply,) = engine._running
        # All in one turn of the loop, as when a person presses a button while the app ends.
        if control == "look":
            engine._loop.call_soon_threadsafe(engine._monitor.check_soon)
        elif control == "lose":
            engine._loop.call_soon_threadsafe(reply.connection_lost)
        elif control != "nothing":
            getattr(generation, control)()
        engine.close()
        last = generation.take()[-1].event
        if control == "lose":  # it may have noticed that the line is gone before it noticed the end
            assert isinstance(last, LAST)
        else:
            assert isinstance(last, Finished)
            assert last.why == "cancelled"
    finally:
        fake.close()


def test_closing_again_and_again_beside_a_look_never_hangs(server: Troubled) -> None:
    for _ in range(20):  # what was swallowed was swallowed only where both came in the same turn
        engine = connected(server.base_url)
        loop, monitor = engine._loop, engine._monitor
        assert loop is not None

        def both(engine: RemoteEngine = engine, monitor: ServerMonitor = monitor) -> None:
            monitor.check_soon()
            engine._end()

        loop.call_soon_threadsafe(both)
        engine.close()


def test_a_reply_that_is_asked_for_while_the_engine_closes_ends_too(server: Troubled) -> None:
    engine = connected(server.base_url)
    generations: list[Generation] = []

    def ask() -> None:
        while True:
            try:
                generations.append(submit(engine))
            except NotReady:
                return

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: bool(generations))
    engine.close()
    asking.join(60)
    assert not asking.is_alive()
    assert all(generation.wait(60) for generation in generations)


def test_a_server_that_is_not_there_is_waited_for(connect: Connect) -> None:
    engine = connect(f"http://127.0.0.1:{free_port()}/v1")
    status = engine.status()
    assert isinstance(status, Broken)
    assert status.key == "remote_unreachable"
    engine.retry()


@pytest.mark.parametrize(
    ("answer", "key"),
    [
        (web.json_response({"data": []}), "remote_no_model"),
        (web.json_response({"data": [{"id": "a"}, {"id": "b"}]}), "remote_model_not_chosen"),
        (web.Response(text="<html>", status=404), "remote_not_compatible"),
        (web.Response(text="hello"), "remote_not_compatible"),
        (web.json_response({"data": 5}), "remote_not_compatible"),
        (web.json_response({"data": [5, None, {"id": None}]}), "remote_no_model"),
        (web.json_response({}, status=403), "remote_key_refused"),
    ],
)
def test_a_server_that_cannot_be_used_says_what_to_do(
    server: Troubled, connect: Connect, monkeypatch: pytest.MonkeyPatch, answer: web.Response, key: str
) -> None:
    async def models(self: Troubled, request: web.Request) -> web.StreamResponse:
        return web.Response(body=answer.body, status=answer.status, content_type=answer.content_type)

    monkeypatch.setattr(Troubled, "models", models)
    fake = Troubled()
    try:
        status: EngineStatus = connect(fake.base_url).status()
        assert isinstance(status, Broken)
        assert status.key == key
        assert "{" not in sentence(status)
    finally:
        fake.close()


def test_no_key_goes_to_a_server_that_none_was_meant_for(
    server: Troubled, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY", "MISTRAL_API_KEY"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Token: secret")
    engine = connect(server.base_url)
    all_events(submit(engine))
    assert server.headers
    for headers in server.headers:
        assert "Authorization" not in headers
        assert "secret" not in str(headers)


def test_a_redirect_is_not_followed(server: Troubled, connect: Connect) -> None:
    other = Troubled()
    try:
        engine = connect(server.base_url, "a-key")
        server.plan = [web.Response(status=307, headers={"Location": f"{other.base_url}/chat/completions"})]
        failure(all_events(submit(engine)))
        assert not other.headers
    finally:
        other.close()
