"""A server that thinks of nothing: it streams tokens at a steady rate to many at once, each token the time it was sent at.

`python -m tests.benchmarks.upstream PORT RATE SECONDS`; the stream looks like vLLM's. Written on bare sockets, so that what
the measurement finds slow is the process under test, and not this one.
"""

import asyncio
import json
import sys
import time

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n"
MODELS = {"object": "list", "data": [{"id": "steady", "object": "model", "owned_by": "vllm", "max_model_len": 131_072}]}


def token(n: int, count: int) -> bytes:
    """The `n`-th of `count` events: reasoning for two thirds, then the answer. Its text is its number and the time in ms."""
    field = "reasoning" if n * 3 < count * 2 else "content"
    delta = {field: f"{n}:{time.monotonic() * 1000:.0f} "}
    return event({"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]})


def event(more: dict[str, object]) -> bytes:
    """One chunk on the wire."""
    chunk = {"id": "chatcmpl-" + "0" * 32, "object": "chat.completion.chunk", "created": 1, "model": "steady", **more}
    return framed(b"data: " + json.dumps(chunk).encode() + b"\n\n")


def framed(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: int, seconds: int) -> None:
    """Answer the requests of one connection until it is closed."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = next(
                (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length")), 0
            )
            await reader.readexactly(length)
            path = head.split(b" ")[1]
            if path == b"/v1/chat/completions":
                writer.write(HEAD % b"text/event-stream")
                await stream(writer, rate, rate * seconds)
            else:
                body = MODELS if path == b"/v1/models" else {"tokens": [1, 2, 3], "version": "0"}
                writer.write(HEAD % b"application/json" + framed(json.dumps(body).encode()) + b"0\r\n\r\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def stream(writer: asyncio.StreamWriter, rate: int, count: int) -> None:
    """`count` tokens, `rate` a second, however long one write takes."""
    began = time.monotonic()
    for n in range(count):
        if writer.is_closing():
            return
        writer.write(token(n, count))
        await asyncio.sleep(max(0.0, began + (n + 1) / rate - time.monotonic()))
    writer.write(event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
    writer.write(framed(b"data: [DONE]\n\n") + b"0\r\n\r\n")


async def main(port: int, rate: int, seconds: int) -> None:
    """Serve until killed."""
    server = await asyncio.start_server(lambda r, w: serve(r, w, rate, seconds), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:4])))
