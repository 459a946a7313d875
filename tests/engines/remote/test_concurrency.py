"""More replies at once than a client has connections by itself: none waits for another's end."""

import asyncio

from magistral_ui.engines.remote.http_client import ServerClient
from magistral_ui.engines.remote.server_address import ServerAddress

COUNT = 130
ENDED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: [DONE]\n\n"


def test_no_reply_waits_for_the_end_of_another() -> None:
    async def run() -> list[bytes]:
        together = asyncio.Event()
        begun = 0

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal begun
            await reader.readuntil(b"\r\n\r\n")
            begun += 1
            if begun == COUNT:
                together.set()
            await together.wait()
            writer.write(ENDED)
            await writer.drain()
            writer.close()

        listening = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=COUNT)
        port = listening.sockets[0].getsockname()[1]
        server = ServerClient(ServerAddress(f"http://127.0.0.1:{port}/v1"))

        async def read() -> bytes:
            async with server.stream({"model": "m", "messages": []}) as pieces:
                return b"".join([piece async for piece in pieces])

        try:
            return await asyncio.wait_for(asyncio.gather(*(read() for _ in range(COUNT))), 30)
        finally:
            await server.close()
            listening.close()

    assert asyncio.run(run()) == [b"data: [DONE]\n\n"] * COUNT
