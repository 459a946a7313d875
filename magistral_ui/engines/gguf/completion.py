"""Asks llama.cpp's /completion for tokens and reads them as they arrive, without blocking; it knows no text and no visitors.

Facts of llama.cpp's server (b11549): a chunk of prompt progress carries a token 0 that nobody wrote; `id_slot` in chunks is -1;
the end of the turn shows in `stop_type` only; a server that dies ends the stream without a last chunk. A token that leaves a
character incomplete gets no chunk at all, only the count in the next chunk tells of it. After half a minute without a token
(`sse_ping_interval`), as while a long prompt is read, comes a comment: a line that begins with a colon.
"""

import json
import random
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import h11

from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.gguf.child_process import parsed_object
from magistral_ui.engines.gguf.chunked_body import ChunkedBody
from magistral_ui.engines.gguf.supervisor import LlamaServer

Prompt = list[int] | dict[str, Any]
"""Token ids, or what llama.cpp takes for a prompt with images."""
CONNECT_TIMEOUT = 10.0
"""Seconds to connect to a child on the same machine."""
RECEIVED_BYTES = 2**16
DATA_FIELDS = (b"data", b"error")
"""The names of a stream's lines that hold JSON."""
MIN_TEMPERATURE = 1e-4
"""Below it, the likeliest token is taken, as in the local sampler."""
MAX_SEED = 2**32 - 1
"""Itself it means a random seed."""


class CompletionFailed(Exception):
    """The server refused the request, or could not complete it; the argument says why, in its words."""


class ConnectionLost(CompletionFailed):
    """The stream ended before the reply did."""


@dataclass(frozen=True, slots=True)
class PromptProgress:
    """`done` of the prompt's `total` tokens are in the cache; `reused` of them were there before."""

    done: int
    total: int
    reused: int


@dataclass(frozen=True, slots=True)
class LostTokens:
    """`count` tokens that got no chunk, because they left a character incomplete.

    `text` is theirs and that of the token `then`, which completed it. At the end of a stream nothing completes it: "", None.
    """

    count: int
    text: str = ""
    then: int | None = None


Piece = int | PromptProgress | LostTokens


UNUSED: Mapping[str, Any] = {
    "n_cache_reuse": 0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "dynatemp_range": 0.0,
    "mirostat": 0,
    "n_keep": 0,
    "n_probs": 0,
    "ignore_eos": False,
    "stop": [],
}
"""What our sampling does not have, turned off whatever the server's defaults are."""


def completion_body(
    prompt: Prompt,
    params: SamplingParams,
    *,
    slot: int,
    reuse: bool,
    count: int,
    length: int,
    position: int,
    banned: Sequence[int] = (),
    stream: bool = True,
) -> dict[str, Any]:
    """The request for at most `count` tokens after a prompt of `length`, from `position` of a reply on.

    `reuse` says whether the slot's tokens may be. Every parameter is sent, since the server's defaults differ from ours, and the
    samplers in our order. The repetition penalty counts all tokens; the server takes memory for as many as it is to count.
    """
    greedy = params.temperature < MIN_TEMPERATURE
    return {
        "prompt": prompt,
        "stream": stream,
        "return_tokens": True,
        "return_progress": stream,
        "cache_prompt": reuse,
        "id_slot": slot,
        "n_predict": count,
        "samplers": ["penalties", "top_k"] if greedy else ["penalties", "temperature", "top_k", "top_p", "min_p"],
        "seed": seed_at(params.seed or 0, position),
        "temperature": params.temperature,
        "top_k": 1 if greedy else params.top_k,
        "top_p": params.top_p,
        "min_p": params.min_p,
        "repeat_penalty": params.repetition_penalty,
        "repeat_last_n": length + count,
        "logit_bias": [[token, False] for token in banned],
        **UNUSED,
    }


def clearing_body(slot: int, begin: int) -> dict[str, Any]:
    """The request that leaves nothing in a slot but the token `begin`; the server refuses to erase one as such."""
    return completion_body(
        [begin], SamplingParams(temperature=0.0), slot=slot, reuse=False, count=0, length=1, position=0
    )


def seed_at(seed: int, position: int) -> int:
    """The seed of a stream that begins at `position` of a reply: the same request always draws the same tokens."""
    return random.Random(seed << 32 | position).randrange(MAX_SEED)


class CompletionStream:
    """One request on a connection of its own. A selector may wait for it; `close` makes the server stop writing."""

    def __init__(self, server: LlamaServer, body: dict[str, Any]) -> None:
        """Connect; raises ConnectionLost if the server does not listen."""
        self.stop_type: Literal["", "eos", "limit"] = ""
        """Why the server ended the stream; empty until it did."""
        self.total = 0
        """Then, how many tokens prompt and reply had, whether they were read here or not."""
        self.writing_seconds = 0.0
        """Then, how long the server took from the first token to the last."""
        self._http = h11.Connection(h11.CLIENT)
        self._body: ChunkedBody | None = None
        """The response's, if it comes in chunks, from the end of its head on."""
        self._text = b""
        self._status = 0
        self._streams = bool(body["stream"])
        self._counted = 0
        content = json.dumps(body).encode()
        headers = [
            ("Host", f"{server.host}:{server.port}"),
            ("Authorization", f"Bearer {server.key}"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(content))),
            ("Connection", "close"),
        ]
        sent = (
            h11.Request(method="POST", target="/completion", headers=headers),
            h11.Data(content),
            h11.EndOfMessage(),
        )
        self._unsent = b"".join(self._http.send(event) or b"" for event in sent)
        try:
            self._socket = socket.create_connection((server.host, server.port), CONNECT_TIMEOUT)
        except OSError as error:
            raise ConnectionLost(str(error)) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def sending(self) -> bool:
        """Whether a part of the request is still to be sent, by `send`."""
        return bool(self._unsent)

    def send(self) -> None:
        """Send as much as the connection takes now."""
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            raise ConnectionLost(str(error)) from error

    def read(self) -> list[Piece]:
        """What has arrived; raises CompletionFailed, or ConnectionLost if the server has gone."""
        try:
            received = self._socket.recv(RECEIVED_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            raise ConnectionLost(str(error)) from error
        pieces: list[Piece] = []
        try:
            ended = (self._read_body if self._body else self._read_head)(received) or not received
        except (h11.RemoteProtocolError, ValueError) as error:
            raise ConnectionLost(str(error)) from error
        if ended:
            self._end(pieces)
        elif self._status == 200 and self._streams:
            self._take_lines(pieces)
        return pieces

    def _read_head(self, received: bytes) -> bool:
        """Read the response's head, and a body that is not in chunks; returns whether it is over."""
        self._http.receive_data(received)
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Response):
                self._status = event.status_code
                if (b"transfer-encoding", b"chunked") in event.headers:
                    self._body = ChunkedBody()
                    return self._read_body(self._http.trailing_data[0])
            elif isinstance(event, h11.Data):
                self._text += event.data
            else:
                return event is not h11.NEED_DATA and event is not h11.PAUSED

    def _read_body(self, received: bytes) -> bool:
        assert self._body is not None
        self._text += self._body.feed(received)
        return self._body.ended

    def close(self) -> None:
        """End the request, from any thread; a second time is harmless."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _take_lines(self, pieces: list[Piece]) -> None:
        *lines, self._text = self._text.split(b"\n")
        for line in lines:
            field, _, value = line.partition(b":")
            if field in DATA_FIELDS:  # a comment has none: llama.cpp sends one after half a minute without a token
                self._take(json.loads(value), pieces)

    def _take(self, said: dict[str, Any], pieces: list[Piece]) -> None:
        if progress := said.get("prompt_progress"):
            pieces.append(PromptProgress(progress["processed"], progress["total"], progress["cache"]))
            return
        if "tokens" not in said:
            raise CompletionFailed(_reason(said))
        tokens, counted = said["tokens"], said["tokens_predicted"]
        self.stop_type = said.get("stop_type", "")
        lost = counted - self._counted - len(tokens) - (self.stop_type == "eos")
        self._counted = counted
        if self.stop_type:
            self.total = said.get("tokens_evaluated", 0) + counted
            self.writing_seconds = said.get("timings", {}).get("predicted_ms", 0) / 1_000
        if lost > 0 and self._streams:
            pieces.append(LostTokens(lost, said["content"], tokens[0] if tokens else None))
            tokens = tokens[1:]
        pieces += tokens

    def _end(self, pieces: list[Piece]) -> None:
        """The whole response is here, or the connection has ended."""
        if self._status != 200:
            raise CompletionFailed(_reason(parsed_object(self._text)))
        if self._streams:
            self._take_lines(pieces)
        else:
            self._take(parsed_object(self._text), pieces)
        if not self.stop_type:
            raise ConnectionLost("the stream ended before the reply")


def _reason(said: dict[str, Any]) -> str:
    error = said.get("error", said)
    reason = str(error.get("message", "no reason given")) if isinstance(error, dict) else str(error)
    return reason.partition("last read")[0]  # of the request, which may hold what a person typed
