"""One server over HTTP: questions about it, and streams from it; it does not know prompts or events.

The access key goes to this server only: redirects are not followed.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx2

from magistral_ui.engines.remote.error_body import value_and_text, words_of
from magistral_ui.engines.remote.request_errors import RequestRefused, not_secure
from magistral_ui.engines.remote.server_address import ServerAddress
from magistral_ui.environment import proxy_for

MAX_CONNECTIONS = 10_000
"""Connections to the server; with the libraries' own limit of 100, other replies would wait for one."""
KEEPALIVE_SECONDS = 5.0
"""Seconds for which an idle connection is kept: servers close theirs after five or more."""
CONNECT_TIMEOUT = 10.0
REQUEST_TIMEOUT = 15.0
"""Seconds that a question about a server may take; a busy one is slow."""
READ_TIMEOUT = 3_600.0
"""Seconds without a byte: llama.cpp sends not even headers while a request is queued, so liveness is checked elsewhere."""
MAX_LOCATION_LENGTH = 300


@dataclass(frozen=True, slots=True)
class ServerResponse:
    """What a server answered to a question: a status, and JSON where it was any."""

    status: int
    value: Any = None
    location: str = ""
    words: str = ""
    """The server's own words, where it reported an error."""

    @property
    def fine(self) -> bool:
        return 200 <= self.status < 300

    @property
    def fields(self) -> Mapping[str, Any]:
        """The JSON object that was answered; empty where it was an error or anything else."""
        return self.value if self.fine and isinstance(self.value, dict) else {}


class ServerClient:
    """A connection pool to one server. Use it in one event loop only."""

    def __init__(self, address: ServerAddress) -> None:
        """Raises environment.ProxyUnusable where the environment names a proxy that cannot be used."""
        self.address = address
        headers = httpx2.Headers({"Accept": "application/json", "User-Agent": "magistral-ui"}, encoding="utf-8")
        if address.key:
            headers["Authorization"] = f"Bearer {address.key}"
        timeout = httpx2.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT)
        # The transport has read the environment's proxies; nothing else of the environment is this server's business.
        self._client = httpx2.AsyncClient(
            headers=headers, timeout=timeout, transport=_transport(address), trust_env=False, follow_redirects=False
        )

    async def ask(
        self, path: str, body: dict[str, Any] | None = None, timeout: float = REQUEST_TIMEOUT
    ) -> ServerResponse:
        """GET `path`, or POST `body` to it; a path that begins with a slash is beside the version. Raises ConnectionError."""
        url = self.address.url(path) if path.startswith("/") else f"{self.address.base_url}/{path}"
        limits = httpx2.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT))
        with _network_errors():
            response = await self._client.request("GET" if body is None else "POST", url, json=body, timeout=limits)
        value, text = value_and_text(response)
        words = words_of(value, text) if response.status_code >= 400 else ""
        location = response.headers.get("location", "")[:MAX_LOCATION_LENGTH]
        return ServerResponse(response.status_code, value, location, words)

    async def try_ask(self, path: str, body: dict[str, Any] | None = None) -> ServerResponse:
        """The same where it does not matter whether the server can be reached; the status is 0 then."""
        try:
            return await self.ask(path, body)
        except (ConnectionError, TimeoutError):
            return ServerResponse(0)

    @contextlib.asynccontextmanager
    async def stream(self, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of a chat completion, or of a completion where the body has a `prompt`.

        Leaving early closes the connection, which makes a server stop working on it.

        Raises RequestRefused where the server refuses, ConnectionError where the connection fails.
        """
        path = "chat/completions" if "messages" in body else "completions"
        with _network_errors():
            async with self._client.stream(
                "POST", f"{self.address.base_url}/{path}", json={**body, "stream": True}
            ) as response:
                if not response.is_success:
                    await response.aread()
                    raise RequestRefused(response)
                yield response.aiter_bytes()

    async def close(self) -> None:
        await self._client.aclose()


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """Sends requests through aiohttp, whose parser is in C: many streams need a third of the CPU time.

    aiohttp's exceptions are left as they are.
    """

    def __init__(self, context: ssl.SSLContext, proxy: str | None) -> None:
        self._context, self._proxy = context, proxy
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._session is None:  # only now is the loop known
            self._session = _session(self._context)
        limits = request.extensions["timeout"]
        response = await self._session.request(
            request.method,
            str(request.url),
            headers=request.headers.multi_items(),
            data=await request.aread() or None,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(
                connect=limits["pool"], sock_connect=limits["connect"], sock_read=limits["read"]
            ),
            proxy=self._proxy,
        )
        return httpx2.Response(response.status, headers=list(response.raw_headers), stream=_AiohttpBody(response))

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()


class _AiohttpBody(httpx2.AsyncByteStream):
    """The body of one response, as it arrives."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._response.content.iter_any():
            yield data

    async def aclose(self) -> None:
        self._response.close()  # the connection of a response that was read to its end is back in the pool by now


def _session(context: ssl.SSLContext) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEPALIVE_SECONDS, ssl=context)
    # httpx2 decodes bodies and keeps cookies.
    return aiohttp.ClientSession(connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar())


def _transport(address: ServerAddress) -> httpx2.AsyncBaseTransport:
    """aiohttp's transport, except through a SOCKS proxy, which aiohttp does not speak."""
    proxy, context = proxy_for(address.base_url), httpx2.create_ssl_context()
    if proxy.lower().startswith("socks"):
        limits = httpx2.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEPALIVE_SECONDS)
        return httpx2.AsyncHTTPTransport(verify=context, limits=limits, proxy=httpx2.Proxy(proxy))
    return AiohttpTransport(context, proxy or None)


@contextlib.contextmanager
def _network_errors() -> Iterator[None]:
    """What both libraries raise about the network, as ConnectionError or TimeoutError."""
    try:
        yield
    except (aiohttp.ClientError, asyncio.TimeoutError, httpx2.RequestError) as error:
        raise not_secure(error) or _unreached(error) from error


def _unreached(error: Exception) -> OSError:
    """`error` as Python's own: TimeoutError for silence on a connection, ConnectionError for everything else."""
    if isinstance(error, aiohttp.ConnectionTimeoutError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return ConnectionError(str(error))
    if isinstance(error, asyncio.TimeoutError | httpx2.TimeoutException):
        return TimeoutError(str(error))
    return ConnectionError(str(error))
