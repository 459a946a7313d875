"""Finds out from which address and which browser a request comes; a header is believed only from whoever may say it."""

import ipaddress
import re
import secrets
from collections.abc import Iterator
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from magistral_ui.sessions.caller import NOBODY, Caller, calling
from magistral_ui.sessions.visitors import hashed
from magistral_ui.ui.doors.exposure import Exposure
from magistral_ui.ui.translated_page import visitors_language

COOKIE = "magistral-ui-visit"
PREFIX = "magistral.prefix"
"""Where prefix.py leaves the path below which the page was asked for."""
PEER = "magistral.peer"
"""Where the server leaves the address of the connection itself, see connections.py."""
FORWARDED = ("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-prefix", "forwarded", "x-real-ip")
SEEN = "magistral.caller"
SECRET = re.compile(r"[\w.~-]{16,128}", re.ASCII)
"""What a cookie of ours holds."""


class Addresses:
    """Sets the request's true address and scheme, and its caller; gives a browser that has none the cookie that tells it
    from others. That cookie is no login: it is worth what was begun with it."""

    def __init__(self, app: ASGIApp, *, exposure: Exposure) -> None:
        self.app, self._exposure = app, exposure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, by its caller's name."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        peer = peer_of(scope)
        headers = Headers(scope=scope)
        address, scheme = self._behind(peer, headers) if self._exposure.forwarded else (peer, "http")
        cookie = read_cookie(headers, COOKIE)
        fresh = None if cookie else secrets.token_urlsafe(32)
        caller = Caller(network_of(address), hashed(cookie or network_of(address)), visitors_language(scope).code)
        known = {
            **scope,
            "client": (address, 0),
            "scheme": scheme if scope["scheme"] == "http" else scope["scheme"],
            "headers": self._headers(scope, forwarded=(address, scheme) != (peer, "http")),
            SEEN: caller,
        }

        async def with_cookie(message: Message) -> None:
            if fresh and message["type"] == "http.response.start" and scope["path"] in ("/", "/config"):
                value = cookie_value(COOKIE, fresh, known, framed=self._exposure.reach == "space")
                MutableHeaders(scope=message).append("Set-Cookie", value)
            await send(message)

        with calling(caller):
            await self.app(known, receive, with_cookie)

    def _behind(self, peer: str, headers: Headers) -> tuple[str, str]:
        """Who asked the proxy, and how. The proxy writes its own word last, so what a visitor forged comes before it."""
        if not may_forward(peer):
            return peer, "http"
        named = [each.strip() for line in headers.getlist("x-forwarded-for") for each in line.split(",")]
        protocols = [each.strip() for line in headers.getlist("x-forwarded-proto") for each in line.split(",")]
        # Only addresses that cannot be a proxy's own hops are somebody's.
        address = next((each for each in reversed(named) if _is_global(each)), named[-1] if named else peer)
        secure = self._exposure.url.startswith("https:") or self._exposure.reach in ("tunnel", "space")
        scheme = "https" if protocols[-1:] == ["https"] or (secure and bool(named)) else "http"
        return (address if _parsed(address) else peer), scheme

    def _headers(self, scope: Scope, forwarded: bool) -> list[tuple[bytes, bytes]]:
        """The headers without those about forwarding, which nobody further in shall believe; Host is the public name."""
        kept = [(name, value) for name, value in scope["headers"] if name.decode("latin-1") not in FORWARDED]
        if forwarded and self._exposure.reach == "proxy":
            public = urlsplit(self._exposure.url).netloc.encode()
            kept = [(name, public if name == b"host" else value) for name, value in kept]
        return kept


def peer_of(scope: Scope) -> str:
    """The address at the other end of the connection itself, whatever a header says."""
    peer: tuple[str, int] = scope.get(PEER) or scope.get("client") or ("", 0)
    return peer[0]


def caller_of(scope: Scope) -> Caller:
    """Who made a request, also later, when it is served outside of its own task."""
    found = scope.get(SEEN)
    return found if isinstance(found, Caller) else NOBODY


def cookie_value(name: str, value: str, scope: Scope, *, framed: bool = False, age: int | None = None) -> str:
    """A Set-Cookie header for the page that `scope` asks: not for other sites, nor for others at its host, nor for scripts.

    `framed`: also where the page stands in another's.
    """
    secure, prefix = scope["scheme"] == "https", scope.get(PREFIX, "")
    kept = f"; Max-Age={age}" if age is not None else ""
    where = "; SameSite=None; Secure; Partitioned" if framed and secure else "; SameSite=Lax" + "; Secure" * secure
    return f"{name}={value}; Path={prefix}/; HttpOnly{where}{kept}"


def read_cookie(headers: Headers, name: str) -> str:
    """A cookie's value, or nothing. Of cookies that others have set for the same name any may be no cookie at all."""
    return next((value for value in cookies(headers, name) if SECRET.fullmatch(value)), "")


def cookies(headers: Headers, name: str) -> Iterator[str]:
    """All values of the cookies of that name, however odd the others beside them are."""
    for line in headers.getlist("cookie"):
        for pair in line.split(";"):
            key, _, value = pair.partition("=")
            if key.strip() == name:
                yield value.strip()


def network_of(address: str) -> str:
    """What is counted as one address: an IPv6 one without its last 64 bits, which a visitor may choose."""
    parsed = _parsed(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((parsed, 64), strict=False).network_address)
    return str(parsed) if parsed else address[:64]


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return None


def _is_global(address: str) -> bool:
    parsed = _parsed(address)
    return parsed is not None and parsed.is_global


def may_forward(peer: str) -> bool:
    """A tunnel's end or a proxy stands on this machine or in its private network."""
    parsed = _parsed(peer)
    return parsed is not None and (parsed.is_loopback or parsed.is_private)
