"""What is on the wire, through the whole engine, and cut at random places: the right words, and the right sentence at the end."""

from collections.abc import Iterator

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from magistral_ui.chat.events import Failed, Finished
from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.chat.reasoning import ReasoningPiece
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.remote import request_errors
from magistral_ui.engines.remote.chunks import read_chunk, read_last_chunk
from magistral_ui.engines.remote.engine import RemoteEngine
from magistral_ui.engines.remote.reasoning_stream import ReplyReader
from magistral_ui.engines.remote.sse import DONE, PayloadReader, StreamBroken
from magistral_ui.i18n.texts import sentence
from magistral_ui.models.cards import MAGISTRAL_1_2
from tests.chat.joined import joined
from tests.engines.contract import all_events, words
from tests.engines.remote.conftest import connected
from tests.engines.remote.wire_bytes import WIRES, Wire
from tests.servers.fakes import FakeServer


class Wired(FakeServer):
    """Sends one body after the other."""

    wire = WIRES[0]
    encoding = ""

    async def models(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"data": [{"id": "magistral-small-2509", "owned_by": "someone"}]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(headers={"Content-Type": self.wire.content_type})
        if self.encoding:
            response.enable_compression(web.ContentCoding(self.encoding))
        await response.prepare(request)
        await response.write(self.wire.body)
        return response


@pytest.fixture(scope="module")
def server() -> Iterator[Wired]:
    fake = Wired()
    yield fake
    fake.close()


@pytest.fixture(scope="module")
def engine(server: Wired) -> Iterator[RemoteEngine]:
    made = connected(server.base_url)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_errors, "RETRY_DELAYS", ())


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
def test_each_wire_gives_its_words_and_its_end(server: Wired, engine: RemoteEngine, wire: Wire) -> None:
    server.wire = wire
    request = GenerationRequest(Prompt((), (UserTurn("hi"),)), SamplingParams(seed=1))
    generation = engine.submit(request)
    events = all_events(generation)
    assert words(events) == (wire.reasoning, wire.answer)
    last = events[-1]
    if wire.failure:
        assert isinstance(last, Failed)
        assert last.key == wire.failure
        assert "{" not in sentence(last)
    else:
        assert isinstance(last, Finished)
        assert last.why == wire.finish
    usage = last.usage
    assert (usage.reasoning_tokens > 0) == bool(wire.reasoning)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_stream_reads_the_same(server: Wired, engine: RemoteEngine, encoding: str) -> None:
    server.wire, server.encoding = WIRES[0], encoding
    try:
        request = GenerationRequest(Prompt((), (UserTurn("hi"),)), SamplingParams(seed=1))
        assert words(all_events(engine.submit(request))) == ("", WIRES[0].answer)
    finally:
        server.encoding = ""


def read(parts: list[bytes]) -> tuple[str, str, str]:
    """Reasoning, answer, and why it could not be read on."""
    payloads, reader, pieces, broken = (
        PayloadReader(),
        ReplyReader(MAGISTRAL_1_2.textual_marks),
        list[ReasoningPiece](),
        "",
    )
    try:
        for part in parts:
            for payload in payloads.feed(part):
                if payload == DONE:
                    raise EOFError
                pieces += reader.feed(read_chunk(payload))
        for payload in payloads.finish():
            if payload != DONE:
                pieces += reader.feed(read_last_chunk(payload))
    except EOFError:
        pass
    except StreamBroken as error:
        broken = error.message.key
    return (*joined([*pieces, *reader.finish()]), broken)


@given(st.data())
def test_it_does_not_matter_where_a_wire_is_cut(data: st.DataObject) -> None:
    body = data.draw(st.sampled_from(WIRES)).body
    cuts = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=40)))
    parts = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert read(parts) == read([body])


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
def test_a_wire_may_come_byte_by_byte(wire: Wire) -> None:
    assert read([wire.body[at : at + 1] for at in range(len(wire.body))]) == read([wire.body])


@given(st.binary(max_size=200), st.data())
def test_no_bytes_make_the_reader_fail_otherwise(body: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(body)))
    assert read([body[:at], body[at:]]) == read([body])
