"""One server over the official client: questions about it, and streams from it; it does not know prompts or events.

The key goes to this server only: redirects are not followed, and no other variable of the client's is read.
"""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
from openai import AsyncOpenAI, DefaultAioHttpClient, DefaultAsyncHttpxClient

from magistral_ui.engines.remote.error_body import value_and_text, words_of
from magistral_ui.engines.remote.server_address import ServerAddress
from magistral_ui.engines.remote.tls_errors import not_secure
from magistral_ui.environment import check_proxies, is_here, through_socks

MAX_CONNECTIONS = 10_000
"""Connections to the server; without a number, the client would have at most 100, and other replies would wait for one."""
CONNECT_TIMEOUT = 10.0
"""Seconds to reach a server."""
REQUEST_TIMEOUT = 15.0
"""Seconds that a question about a server may take; a busy one is slow."""
READ_TIMEOUT = 3_600.0
"""Seconds without a byte: llama.cpp sends not even headers while a request is queued, so others look whether it lives."""
MAX_LOCATION_LENGTH = 300
"""Characters of an address that is shown."""
NO_KEY = "none"
"""In the place of a key where there is none; then nothing is sent."""


@dataclass(frozen=True, slots=True)
class ServerResponse:
    """What a server answered to a question: a status, and JSON where it was any."""

    status: int
    value: Any = None
    server: str = ""
    """The header of that name."""
    location: str = ""
    """Where it sends one instead."""
    words: str = ""
    """Its own words, where it was an error."""

    @property
    def fine(self) -> bool:
        """Whether it was an answer and no error."""
        return 200 <= self.status < 300


class ServerClient:
    """A connection pool to one server. Use it in one event loop only."""

    def __init__(self, address: ServerAddress) -> None:
        """Raises proxies.ProxyUnusable where the environment sends requests to elsewhere through one that cannot be used."""
        self.address = address
        # Where there is no key, no header bears one; each request has to say so.
        self._headers: dict[str, str] = {} if address.key else {"Authorization": openai.Omit()}  # type: ignore[dict-item]
        self._client = AsyncOpenAI(
            api_key=address.key or NO_KEY,
            base_url=address.base_url,
            max_retries=0,  # the reply itself says how long it waits
            timeout=httpx2.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT),
            http_client=_client(address),
        )
        # The client reads these from OpenAI's variables; they are none of this server's business.
        self._client.organization = self._client.project = self._client.admin_api_key = None
        self._client._custom_headers = {}

    async def ask(
        self, path: str, body: dict[str, Any] | None = None, timeout: float = REQUEST_TIMEOUT
    ) -> ServerResponse:
        """GET `path`, or POST `body` to it; a path that begins with a slash is beside the version. Raises ConnectionError."""
        url = self.address.url(path) if path.startswith("/") else f"{self.address.base_url}/{path}"
        options: Any = {
            "headers": self._headers,
            "timeout": httpx2.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)),
        }
        try:
            with _translated():
                if body is None:
                    answer = await self._client.get(url, cast_to=httpx2.Response, options=options)
                else:
                    answer = await self._client.post(url, body=body, cast_to=httpx2.Response, options=options)
        except openai.APIStatusError as error:
            return _told(error.response)
        return _told(answer)

    @contextlib.asynccontextmanager
    async def stream(self, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of a chat completion, or of a completion where the body has a `prompt`.

        Leaving early closes the connection, by which a server stops working.

        Raises openai.APIStatusError where the server refuses, ConnectionError where the line is or gets lost.
        """
        fields = {name: value for name, value in body.items() if name not in ("model", "messages", "prompt")}
        options: dict[str, Any] = {"stream": True, "extra_body": fields, "extra_headers": self._headers}
        raw: Any = self._client.chat.completions if "messages" in body else self._client.completions
        said = {name: body[name] for name in ("model", "messages", "prompt") if name in body}
        with _translated():
            async with raw.with_streaming_response.create(**said, **options) as response:
                yield response.iter_bytes()

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()


def _client(address: ServerAddress) -> httpx2.AsyncClient:
    """The official client's own over aiohttp, which goes to this machine itself without a proxy. aiohttp speaks no SOCKS."""
    here = is_here(address.name)
    if not here:
        check_proxies()
    kind = DefaultAsyncHttpxClient if not here and through_socks() else DefaultAioHttpClient
    # Without the environment's proxies, its certificates hold all the same.
    options: dict[str, Any] = {"trust_env": False, "verify": httpx2.create_ssl_context()} if here else {}
    return kind(limits=httpx2.Limits(max_connections=MAX_CONNECTIONS), follow_redirects=False, **options)


@contextlib.contextmanager
def _translated() -> Any:
    """What the client and the network raise, as ConnectionError or TimeoutError; answers with an error stay as they are."""
    try:
        yield
    except (openai.APIConnectionError, httpx2.TransportError) as error:
        raise not_secure(error) or _unreached(error) from error


def _unreached(error: openai.APIConnectionError | httpx2.TransportError) -> OSError:
    """The same in Python's own words."""
    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
    if isinstance(cause, httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return ConnectionError(str(error))
    if isinstance(error, openai.APITimeoutError | httpx2.TimeoutException):
        return TimeoutError(str(error))
    return ConnectionError(str(cause or error))


def _told(response: httpx2.Response) -> ServerResponse:
    (value, text), headers = value_and_text(response), response.headers
    words = words_of(value, text) if response.status_code >= 400 else ""
    location = headers.get("location", "")[:MAX_LOCATION_LENGTH]
    return ServerResponse(response.status_code, value, headers.get("server", ""), location, words)
