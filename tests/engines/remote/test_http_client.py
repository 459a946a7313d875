"""The client on real sockets: through proxies, over one connection again, and away from a stream that nobody reads on."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from magistral_ui.engines.remote.http_client import RequestRefused, ServerClient
from magistral_ui.engines.remote.server_address import ServerAddress

ELSEWHERE = "http://model.example:8000/v1"
"""An address that no name server is asked about: only proxies are."""
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 14\r\n\r\ndata: [DONE]\n\n"
CHAT = {"model": "m", "messages": []}
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[int]:
    """A server that is gone at the end, with every connection."""
    connections: list[asyncio.Task[None] | None] = []

    async def whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.current_task())
        try:
            await answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    listening = await asyncio.start_server(whole, "127.0.0.1", 0)
    yield listening.sockets[0].getsockname()[1]
    listening.close()
    await asyncio.gather(*filter(None, connections))


@asynccontextmanager
async def client(url: str, key: str = "") -> AsyncIterator[ServerClient]:
    made = ServerClient(ServerAddress(url, key))
    try:
        yield made
    finally:
        await made.close()


async def read(server: ServerClient) -> bytes:
    async with server.stream(CHAT) as pieces:
        return b"".join([piece async for piece in pieces])


def run(work: Awaitable[None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work, 60)

    asyncio.run(bounded())


async def head_of(reader: asyncio.StreamReader) -> bytes:
    """The head of one request, whose body is read as well."""
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    await reader.readexactly(int(lengths[0]) if lengths else 0)
    return head


def test_a_proxy_of_the_environment_is_asked_with_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await head_of(reader))
        writer.write(STREAM)
        await writer.drain()

    async def work() -> None:
        async with serving(proxy) as port:
            monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{port}")
            async with client(ELSEWHERE, "a-key") as server:
                assert await read(server) == b"data: [DONE]\n\n"

    run(work())
    assert heads[0].startswith(b"POST http://model.example:8000/v1/chat/completions HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic " + base64.b64encode(b"me:secret") in heads[0]
    assert b"authorization: bearer a-key" in heads[0].lower()


def test_a_socks_proxy_is_spoken_to(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly((await reader.readexactly(2))[1])
        writer.write(b"\x05\x00")  # no password
        kind = await reader.readexactly(4)
        assert kind == b"\x05\x01\x00\x03", "it asks for a connection by name"
        names.append(await reader.readexactly((await reader.readexactly(1))[0]))
        await reader.readexactly(2)
        writer.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        await head_of(reader)
        writer.write(STREAM)
        await writer.drain()

    async def work() -> None:
        async with serving(proxy) as port:
            monkeypatch.setenv("all_proxy", f"socks5://127.0.0.1:{port}")
            async with client(ELSEWHERE) as server:
                assert await read(server) == b"data: [DONE]\n\n"

    run(work())
    assert names == [b"model.example"]


def test_a_connection_is_used_again() -> None:
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await head_of(reader):
            writer.write(STREAM)
            await writer.drain()

    async def work() -> None:
        async with serving(answer) as port, client(f"http://127.0.0.1:{port}/v1") as server:
            for _ in range(3):
                await read(server)

    run(work())
    assert connections == 1


def test_a_key_of_any_letters_is_sent_as_it_is() -> None:
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await head_of(reader))
        writer.write(STREAM)
        await writer.drain()

    async def work() -> None:
        async with serving(answer) as port, client(f"http://127.0.0.1:{port}/v1", "schlüssel") as server:
            await read(server)

    run(work())
    assert "Bearer schlüssel\r\n".encode() in heads[0]


def test_leaving_a_stream_closes_its_connection() -> None:
    async def work() -> None:
        left = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            writer.write(STREAM.replace(b"14", b"999"))
            await writer.drain()
            assert await reader.read() == b"", "the client says no more"
            left.set()

        async with serving(answer) as port, client(f"http://127.0.0.1:{port}/v1") as server:
            async with server.stream(CHAT) as pieces:
                assert await anext(aiter(pieces)) == b"data: [DONE]\n\n"
            await left.wait()

    run(work())


@pytest.mark.parametrize(
    "answer",
    [
        STREAM.replace(b"14", b"999"),
        STREAM.replace(b"Content-Length", b"Content-Encoding: gzip\r\nContent-Length"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"no HTTP at all\r\n\r\n",
        b"",
    ],
    ids=["cut", "no gzip", "no chunk", "no HTTP", "nothing"],
)
def test_whatever_is_wrong_on_the_wire_is_a_connection_error(answer: bytes) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(answer)
        await writer.drain()

    async def work() -> None:
        async with serving(say) as port, client(f"http://127.0.0.1:{port}/v1") as server:
            with pytest.raises(ConnectionError):
                await read(server)

    run(work())


def test_a_refused_stream_brings_the_response_that_was_read() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 429 No\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy")
        await writer.drain()

    async def work() -> None:
        async with serving(refuse) as port, client(f"http://127.0.0.1:{port}/v1") as server:
            with pytest.raises(RequestRefused) as refused:
                await read(server)
            response = refused.value.response
            assert (response.status_code, response.text, response.headers["retry-after"]) == (429, "busy", "7")

    run(work())
