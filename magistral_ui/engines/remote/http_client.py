"""The HTTP client for one model server: requests about the server, and streams of replies; it does not know prompts or events.

The access key is sent to this server only: redirects are not followed.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx2

from magistral_ui.engines.remote.error_body import error_detail, value_and_text
from magistral_ui.engines.remote.request_errors import RequestRefused, find_tls_error
from magistral_ui.engines.remote.server_address import ServerAddress
from magistral_ui.environment import proxy_for

MAX_CONNECTIONS = 10_000
"""Connections to the server; with the libraries' default limit of 100, further replies would have to wait."""
KEEPALIVE_SECONDS = 5.0
"""Seconds for which an idle connection is kept alive: servers close theirs after five or more."""
CONNECT_TIMEOUT = 10.0
REQUEST_TIMEOUT = 15.0
"""Seconds that a request about the server may take; a busy server is slow."""
READ_TIMEOUT = 3_600.0
"""Seconds without a byte: llama.cpp does not even send headers while a request is queued, so `ServerMonitor` checks liveness."""
MAX_LOCATION_LENGTH = 300


@dataclass(frozen=True, slots=True)
class ServerResponse:
    """A server's answer: a status, and its JSON, if any."""

    status: int
    value: Any = None
    location: str = ""
    detail: str = ""
    """The server's message, if it reported an error."""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def fields(self) -> Mapping[str, Any]:
        """The JSON object in the answer; empty if it is an error or anything else."""
        return self.value if self.ok and isinstance(self.value, dict) else {}


class ServerClient:
    """A connection pool to one server. Use it in one event loop only."""

    def __init__(self, address: ServerAddress) -> None:
        """Raises environment.ProxyUnusable if the environment names a proxy that cannot be used."""
        self.address = address
        headers = httpx2.Headers({"Accept": "application/json", "User-Agent": "magistral-ui"}, encoding="utf-8")
        if address.key:
            headers["Authorization"] = f"Bearer {address.key}"
        timeout = httpx2.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT)
        # The transport has read the environment's proxies; nothing else from the environment may be sent to this server.
        self._client = httpx2.AsyncClient(
            headers=headers, timeout=timeout, transport=_transport(address), trust_env=False, follow_redirects=False
        )

    async def ask(
        self, path: str, body: dict[str, Any] | None = None, timeout: float = REQUEST_TIMEOUT
    ) -> ServerResponse:
        """GET `path`, or POST `body` to it. A path that begins with a slash is outside `/v1`. Raises ConnectionError."""
        url = self.address.url(path) if path.startswith("/") else f"{self.address.base_url}/{path}"
        limits = httpx2.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT))
        with _network_errors():
            response = await self._client.request("GET" if body is None else "POST", url, json=body, timeout=limits)
        value, text = value_and_text(response)
        detail = error_detail(value, text) if response.status_code >= 400 else ""
        location = response.headers.get("location", "")[:MAX_LOCATION_LENGTH]
        return ServerResponse(response.status_code, value, location, detail)

    async def try_ask(self, path: str, body: dict[str, Any] | None = None) -> ServerResponse:
        """The same, except that the status is 0 if the server cannot be reached."""
        try:
            return await self.ask(path, body)
        except (ConnectionError, TimeoutError):
            return ServerResponse(0)

    @contextlib.asynccontextmanager
    async def stream(self, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of a chat completion, or of a text completion if the body has a `prompt`.

        Leaving early closes the connection, which makes the server stop working on it.

        Raises RequestRefused if the server refuses, ConnectionError if the connection fails.
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
        if self._session is None:  # only here is the event loop known
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
        self._response.close()  # if the response was read to its end, its connection is already back in the pool


def _session(context: ssl.SSLContext) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEPALIVE_SECONDS, ssl=context)
    # httpx2 decodes bodies and keeps cookies.
    return aiohttp.ClientSession(connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar())


def _transport(address: ServerAddress) -> httpx2.AsyncBaseTransport:
    """aiohttp's transport, or httpx2's for a SOCKS proxy, which aiohttp does not support."""
    proxy, context = proxy_for(address.base_url), httpx2.create_ssl_context()
    if proxy.lower().startswith("socks"):
        limits = httpx2.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEPALIVE_SECONDS)
        return httpx2.AsyncHTTPTransport(verify=context, limits=limits, proxy=httpx2.Proxy(proxy))
    return AiohttpTransport(context, proxy or None)


@contextlib.contextmanager
def _network_errors() -> Iterator[None]:
    """Raise both libraries' network errors as ConnectionError or TimeoutError."""
    try:
        yield
    except (aiohttp.ClientError, asyncio.TimeoutError, httpx2.RequestError) as error:
        raise find_tls_error(error) or _as_network_error(error) from error


def _as_network_error(error: Exception) -> OSError:
    """`error` as a built-in exception: TimeoutError for silence on a connection, ConnectionError for everything else."""
    if isinstance(error, aiohttp.ConnectionTimeoutError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return ConnectionError(str(error))
    if isinstance(error, asyncio.TimeoutError | httpx2.TimeoutException):
        return TimeoutError(str(error))
    return ConnectionError(str(error))
