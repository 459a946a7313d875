"""Finds out from which address, and how, a visitor asked who comes through a proxy; decides by the connection, not by headers."""

from hmac import compare_digest
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from magistral_ui.web.exposure import Exposure

PEER_KEY = "magistral.peer"
"""Where the server leaves the address of the connection itself, see connections.py."""
FORWARDED_HEADERS = (
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-prefix",
    "forwarded",
    "x-real-ip",
)
"""What proxies write. `Forwarded`, `X-Real-IP` and `X-Forwarded-Host` are never read: many proxies let a visitor's through."""
PROBE_HEADER = "x-magistral-ui-probe"
FORWARDED_KEY = "magistral.forwarded"


class ForwardedHeadersMiddleware:
    """The outermost door: sets a request's true address and scheme, for all that are further in."""

    def __init__(self, app: ASGIApp, *, exposure: Exposure) -> None:
        self.app, self._exposure = app, exposure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on as the visitor made it."""
        if scope["type"] == "http":
            peer, headers = peer_of(scope), Headers(scope=scope)
            self._look_for_probe(headers)
            forwarded = self._is_forwarded(peer, headers)
            address = self._exposure.proxies.visitor(peer, headers.getlist("x-forwarded-for")) if forwarded else peer
            scope = {**scope, PEER_KEY: (peer, 0), "client": (address, 0), FORWARDED_KEY: forwarded}
            if forwarded and self._is_secure(headers):
                scope["scheme"] = "https"
        await self.app(scope, receive, send)

    def _look_for_probe(self, headers: Headers) -> None:
        probe = self._exposure.probe
        if probe and compare_digest(headers.get(PROBE_HEADER, "").encode(), probe.encode()):
            self._exposure.probed = ",".join(headers.getlist("x-forwarded-for"))

    def _is_forwarded(self, peer: str, headers: Headers) -> bool:
        """Whether a proxy that may be believed hands the request on; from this machine, the page is also asked without it."""
        if not self._exposure.proxies.trusts(peer):
            return False
        named = urlsplit(self._exposure.url).netloc.lower()
        return any(name in headers for name in FORWARDED_HEADERS) or (
            bool(named) and headers.get("host", "").lower() == named
        )

    def _is_secure(self, headers: Headers) -> bool:
        """Whether the visitor asked over TLS. That may end further out than at the nearest proxy; the public address tells it."""
        if self._exposure.reach in ("tunnel", "space") or self._exposure.url.startswith("https:"):
            return True
        told = ",".join(headers.getlist("x-forwarded-proto")).rpartition(",")[2]
        return told.strip(" \t").lower() == "https"


def peer_of(scope: Scope) -> str:
    """The address at the other end of the connection itself, whatever a header says."""
    peer: tuple[str, int] = scope.get(PEER_KEY) or scope.get("client") or ("", 0)
    return peer[0]


def is_forwarded(scope: Scope) -> bool:
    """Whether a trusted proxy handed this request on."""
    return bool(scope.get(FORWARDED_KEY))
