"""What llama.cpp is asked, and how its answer is read, however the network cuts it; a real child and a scripted one."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from magistral_ui.chat.sampling import PARAMETERS, SamplingParams
from magistral_ui.engines.gguf.completion import (
    CompletionFailed,
    CompletionStream,
    ConnectionLost,
    LostTokens,
    Piece,
    PromptProgress,
    completion_body,
    seed_at,
)
from tests.waiting import until

LAST = {"content": "", "tokens": [], "stop": True, "stop_type": "limit", "tokens_predicted": 2}


def body(**params: float) -> dict[str, Any]:
    return completion_body(
        [1, 2],
        SamplingParams(**params),
        slot=3,
        reuse=False,
        count=9,
        length=2,
        position=0,  # type: ignore[arg-type]
    )


def test_every_parameter_is_sent_in_our_order() -> None:
    sent = body(temperature=0.6, top_p=0.9, top_k=7, min_p=0.1, repetition_penalty=1.2, seed=5)
    assert sent["samplers"] == ["penalties", "temperature", "top_k", "top_p", "min_p"]
    names = {"repetition_penalty": "repeat_penalty", "max_tokens": "n_predict", "reasoning_budget": "n_predict"}
    assert all(names.get(name, name) in sent for name in PARAMETERS)
    assert (sent["temperature"], sent["top_p"], sent["top_k"], sent["min_p"]) == (0.6, 0.9, 7, 0.1)
    assert sent["repeat_last_n"] == 11  # all of prompt and reply; the server takes memory for each
    assert (sent["id_slot"], sent["cache_prompt"], sent["n_predict"]) == (3, False, 9)


def test_temperature_0_takes_the_likeliest() -> None:
    sent = body(temperature=0.0, top_k=7)
    assert sent["samplers"] == ["penalties", "top_k"]
    assert sent["top_k"] == 1


def test_seeds_follow_from_the_request_s_and_the_position() -> None:
    seeds = {(seed, position): seed_at(seed, position) for seed in (0, 1, 2**53 - 1) for position in (0, 1, 512)}
    assert len(set(seeds.values())) == len(seeds)
    assert all(0 <= value < 2**32 - 1 for value in seeds.values())
    assert seeds == {key: seed_at(*key) for key in seeds}


@pytest.fixture
def serve() -> Iterator[Callable[..., CompletionStream]]:
    """Opens a stream to a server that answers with these bytes, in pieces of so many."""
    opened: list[Any] = []

    def made(answer: bytes, piece: int = 10**6, **more: object) -> CompletionStream:
        listening = socket.create_server(("127.0.0.1", 0))

        def answers() -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):  # which the test may have closed
                asked = b""
                while b"\r\n\r\n" not in asked or not asked.endswith(b"}"):
                    received = connection.recv(65536)
                    if not received:
                        return
                    asked += received
                for at in range(0, len(answer), piece):
                    connection.sendall(answer[at : at + piece])

        thread = threading.Thread(target=answers, daemon=True)
        thread.start()
        server = SimpleNamespace(host="127.0.0.1", port=listening.getsockname()[1], key="secret")
        stream = CompletionStream(server, {**body(), **more})  # type: ignore[arg-type]
        opened.extend((stream, SimpleNamespace(close=thread.join), listening))  # in the order in which they are closed
        while stream.sending:
            stream.send()
        return stream

    yield made
    for each in opened:
        each.close()


def chunk_of(said: dict[str, Any]) -> bytes:
    return f"data: {json.dumps({'tokens_predicted': 0, 'content': '', **said})}\n\n".encode()


def streamed(*said: dict[str, Any] | bytes, ends: bool = True) -> bytes:
    chunks = [each if isinstance(each, bytes) else chunk_of(each) for each in said]
    parts = [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(parts) + (b"0\r\n\r\n" if ends else b"")


def read_all(stream: CompletionStream) -> list[Piece]:
    pieces: list[Piece] = []

    def over() -> bool:
        pieces.extend(stream.read())
        return bool(stream.stop_type)

    until(over)
    return pieces


PROGRESS = {"tokens": [0], "prompt_progress": {"total": 5, "cache": 2, "processed": 5}}
ONE, TWO = {"tokens": [7], "tokens_predicted": 1}, {"tokens": [8], "tokens_predicted": 2, "content": "é\n\ndata: x"}


@pytest.mark.parametrize("piece", [1, 7, 100, 10**6])
def test_a_stream_is_read_however_it_is_cut(serve: Callable[..., CompletionStream], piece: int) -> None:
    stream = serve(streamed(PROGRESS, ONE, TWO, LAST), piece)
    assert read_all(stream) == [PromptProgress(5, 5, 2), 7, 8]
    assert stream.stop_type == "limit"


@pytest.mark.parametrize("comment", [b":\n\n", b": ping\n\n", b"\n", b"retry: 3\n\n"])
def test_what_keeps_a_silent_stream_open_is_no_token(serve: Callable[..., CompletionStream], comment: bytes) -> None:
    """llama.cpp sends a comment after 30 seconds, which a large model on a processor takes to read a prompt."""
    assert read_all(serve(streamed(comment, PROGRESS, comment, ONE, comment, TWO, LAST, comment)))[1:] == [7, 8]


def test_tokens_that_were_not_sent_are_missed(serve: Callable[..., CompletionStream]) -> None:
    late = {"tokens": [9], "tokens_predicted": 4, "content": "😀"}
    stream = serve(streamed(ONE, late, {**LAST, "tokens_predicted": 6}))
    assert read_all(stream) == [7, LostTokens(2, "😀", 9), LostTokens(2, "", None)]


def test_the_end_of_the_turn_is_not_missed(serve: Callable[..., CompletionStream]) -> None:
    stream = serve(streamed(ONE, {**LAST, "stop_type": "eos"}))
    assert read_all(stream) == [7]
    assert stream.stop_type == "eos"


def test_an_answer_in_one_piece_has_all_tokens(serve: Callable[..., CompletionStream]) -> None:
    said = json.dumps({**LAST, "tokens": [4, 5]}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said)
    assert read_all(serve(head + said, 50, stream=False)) == [4, 5]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (streamed(ONE, ends=False), ConnectionLost),
        (streamed(ONE), ConnectionLost),  # without its last chunk
        (b"", ConnectionLost),
        (b"nonsense\r\n\r\n", ConnectionLost),
        (streamed(ONE, {"error": {"message": "Context size has been exceeded"}}), CompletionFailed),
        (
            b'HTTP/1.1 400 Bad Request\r\nContent-Length: 30\r\n\r\n{"error":{"message":"no room"}}'[:-1],
            CompletionFailed,
        ),
        (b"HTTP/1.1 500 Broken\r\nContent-Length: 2\r\n\r\n[]", CompletionFailed),
    ],
)
def test_what_goes_wrong_is_said(serve: Callable[..., CompletionStream], answer: bytes, error: type[Exception]) -> None:
    stream = serve(answer)
    with pytest.raises(error) as raised:
        read_all(stream)
    assert isinstance(raised.value, ConnectionLost) == (error is ConnectionLost)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(ConnectionLost):
        CompletionStream(SimpleNamespace(host="127.0.0.1", port=port, key="secret"), body())  # type: ignore[arg-type]


def test_closing_twice_is_harmless(serve: Callable[..., CompletionStream]) -> None:
    stream = serve(streamed(ONE))
    stream.close()
    stream.close()
    with pytest.raises(ConnectionLost):
        stream.read()
