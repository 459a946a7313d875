"""Identifies who makes a request: the client's address, also behind trusted proxies, the path prefix, and the browser's cookie.

It does not decide what that client may do.
"""

import ipaddress
import re
import secrets
from collections.abc import Iterator, Mapping
from hmac import compare_digest
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from magistral_ui.client import NO_CLIENT, Client, hashed, serving
from magistral_ui.i18n.languages import LANGUAGE_COOKIE, Language, language_for
from magistral_ui.web.exposure import Exposure, address_in, is_prefix, plain_address

PEER_KEY = "magistral.peer"
"""Key in the scope of the address of the connection itself, once `client` is the visitor's."""
FORWARDED_KEY = "magistral.forwarded"
CLIENT_KEY = "magistral.client"
FORWARDED_HEADERS = (
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-prefix",
    "forwarded",
    "x-real-ip",
)
"""Headers that proxies write. `Forwarded`, `X-Real-IP` and `X-Forwarded-Host` are never read: many proxies pass forged ones."""
HIDDEN_HEADERS = frozenset(name.encode() for name in FORWARDED_HEADERS)
PREFIX_HEADER = "x-forwarded-prefix"
PROBE_HEADER = "x-magistral-ui-probe"
VISITOR_COOKIE = "magistral-ui-visit"
PREFIX_KEY = "magistral.prefix"
"""Key in the scope of the path prefix below which the page was requested."""
COOKIE_VALUE = re.compile(r"[\w.~-]{16,128}", re.ASCII)
MAX_COOKIES = 8
PAGE_PATHS = ("/", "/config")
"""What browsers and programs request first, and where they are given the cookie."""


class ForwardedHeadersMiddleware:
    """Sets the visitor's address and scheme, and strips the path prefix below which a proxy serves the page.

    A proxy is trusted because of the connection that it makes, never because of headers alone.
    """

    def __init__(self, app: ASGIApp, *, exposure: Exposure) -> None:
        self.app, self._exposure = app, exposure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer, headers, proxies = peer_of(scope), Headers(scope=scope), self._exposure.proxies
        self._note_probe(headers)
        forwarded = proxies.trusts(peer) and self._is_forwarded(headers)
        address = proxies.visitor(peer, headers.getlist("x-forwarded-for")) if forwarded else peer
        scope = {**scope, PEER_KEY: (peer, 0), "client": (address, 0), FORWARDED_KEY: forwarded}
        if forwarded and self._is_secure(headers):
            scope["scheme"] = "https"
        path = scope["path"]
        if prefix := self._prefix(path, headers, forwarded):
            if path == prefix and scope["method"] in ("GET", "HEAD"):  # the page's own addresses are relative
                await RedirectResponse(f"{prefix}/", 308)(scope, receive, send)
                return
            # A proxy may pass on `/ai/config`, or strip `/ai`: both become `/config`.
            scope |= {**_path(path.removeprefix(prefix) if _is_below(path, prefix) else path), PREFIX_KEY: prefix}
        await self.app(scope, receive, send)

    def _note_probe(self, headers: Headers) -> None:
        probe = self._exposure.probe
        if probe and compare_digest(headers.get(PROBE_HEADER, "").encode(), probe.encode()):
            self._exposure.probed = ",".join(headers.getlist("x-forwarded-for"))

    def _is_forwarded(self, headers: Headers) -> bool:
        """Whether a trusted peer forwards the request; programs on this machine may also connect without the proxy."""
        if any(name in headers for name in FORWARDED_HEADERS):
            return True
        public = urlsplit(self._exposure.url).netloc.lower()
        return bool(public) and headers.get("host", "").lower() == public

    def _is_secure(self, headers: Headers) -> bool:
        """Whether the visitor used TLS. If it ends before the nearest proxy, the public address tells."""
        if self._exposure.reach in ("tunnel", "space") or self._exposure.url.startswith("https:"):
            return True
        protocol = ",".join(headers.getlist("x-forwarded-proto")).rpartition(",")[2]
        return protocol.strip(" \t").lower() == "https"

    def _prefix(self, path: str, headers: Headers, forwarded: bool) -> str:
        """The path set with `--share`, or if that has none, the one in a trusted proxy's header."""
        if known := self._exposure.prefix:
            return known if forwarded or _is_below(path, known) else ""
        prefixes = headers.getlist(PREFIX_HEADER) if forwarded and self._exposure.reach == "proxy" else []
        prefix = prefixes[0].strip().rstrip("/") if len(prefixes) == 1 else ""
        return prefix if is_prefix(prefix) else ""


class ClientAddressMiddleware:
    """Sets the `Client` of a request, and gives a new browser the cookie that tells it from others.

    That cookie is not a login: it only gives access to what was begun with it.
    """

    def __init__(self, app: ASGIApp, *, exposure: Exposure) -> None:
        self.app, self._exposure = app, exposure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, address = Headers(scope=scope), network_of(scope["client"][0])
        cookie = read_cookie(headers, cookie_name(VISITOR_COOKIE, scope))
        client = Client(
            address,
            hashed(cookie or address),
            lambda: _language_of(headers).code,
            forwarded=any(name in headers for name in (*FORWARDED_HEADERS, "via")),
        )
        known = {**scope, "headers": self._headers(scope), CLIENT_KEY: client}
        with serving(client):
            await self.app(known, receive, send if cookie else self._with_cookie(known, headers, send))

    def _headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """The headers without those about forwarding, which the inner layers must not trust; Host is the public name."""
        kept = [each for each in scope["headers"] if each[0] not in HIDDEN_HEADERS]
        if scope.get(FORWARDED_KEY) and self._exposure.reach == "proxy":
            public = urlsplit(self._exposure.url).netloc.encode()
            kept = [(name, public if name == b"host" else value) for name, value in kept]
        return kept

    def _with_cookie(self, scope: Scope, headers: Headers, send: Send) -> Send:
        if scope["path"] not in PAGE_PATHS:
            return send

        async def with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                framed = self._exposure.reach == "space"
                value = cookie_value(VISITOR_COOKIE, secrets.token_urlsafe(32), scope, framed=framed)
                for each in (value, *outdated(VISITOR_COOKIE, scope, headers)):
                    MutableHeaders(scope=message).append("Set-Cookie", each)
            await send(message)

        return with_cookie


class RestorePrefixMiddleware:
    """Restores the stripped prefix: Starlette, and so Gradio, expects the whole path, and the prefix as `root_path`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if prefix := str(scope.get(PREFIX_KEY, "")):
            scope = {**scope, **_path(prefix + scope["path"]), "root_path": prefix}
        await self.app(scope, receive, send)


def peer_of(scope: Scope) -> str:
    """The address of the peer of the connection itself, whatever the headers say."""
    peer: tuple[str, int] = scope.get(PEER_KEY) or scope.get("client") or ("", 0)
    return plain_address(str(peer[0]))


def client_of(scope: Scope) -> Client:
    """Who made a request, even when it is served outside its own task."""
    found = scope.get(CLIENT_KEY)
    return found if isinstance(found, Client) else NO_CLIENT


def network_of(address: str) -> str:
    """What counts as one address: for IPv6, the first 64 bits, since a visitor can choose the others."""
    parsed = address_in(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((parsed, 64), strict=False).network_address)
    return str(parsed) if parsed else address[:64]


def visitors_language(scope: Scope) -> Language:
    """The language of the visitor who made this request: chosen on the page, or else the browser's."""
    return _language_of(Headers(scope=scope))


def _language_of(headers: Headers) -> Language:
    chosen = cookie_parser(headers.get("cookie", "")).get(LANGUAGE_COOKIE)
    return language_for(chosen, headers.get("accept-language", ""))


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")


def _path(path: str) -> Mapping[str, object]:
    return {"path": path, "raw_path": quote(path).encode()}


def cookie_name(name: str, scope: Scope) -> str:
    """The full name of the cookie `name` for `scope`. A browser accepts a `__Host-` cookie only from this very host, over TLS
    and for the path /, and a `__Secure-` one, which may be for another path, only over TLS (RFC 6265bis)."""
    if scope["scheme"] != "https":
        return name
    return f"__Secure-{name}" if scope.get(PREFIX_KEY) else f"__Host-{name}"


def cookie_value(name: str, value: str, scope: Scope, *, framed: bool = False, age: int | None = None) -> str:
    """A Set-Cookie header for the page that `scope` requests: hidden from other sites, from other paths and from scripts."""
    return f"{cookie_name(name, scope)}={value}; {_attributes(scope, framed, age)}"


def outdated(name: str, scope: Scope, headers: Headers) -> list[str]:
    """A Set-Cookie header that deletes the cookie under its older, less protected name, which is no longer read."""
    if scope["scheme"] != "https" or not any(cookies(headers, name)):
        return []
    return [f"{name}=; {_attributes(scope, framed=False, age=0)}"]


def read_cookie(headers: Headers, name: str) -> str:
    """The cookie's value, or an empty string. If someone else has set a second one of that name, neither counts."""
    found = read_cookies(headers, name)
    return found[0] if len(found) == 1 else ""


def read_cookies(headers: Headers, name: str) -> list[str]:
    """All different values of that name that could be ours."""
    return list(dict.fromkeys(value for value in cookies(headers, name) if COOKIE_VALUE.fullmatch(value)))[:MAX_COOKIES]


def cookies(headers: Headers, name: str) -> Iterator[str]:
    """All values of the cookies of that name, however malformed the other cookies are.

    Only spaces and tabs are stripped (RFC 6265): a browser does not protect a `__Host-` name after a no-break space.
    """
    for line in headers.getlist("cookie"):
        for pair in line.split(";"):
            key, _, value = pair.partition("=")
            if key.strip(" \t") == name:
                yield value.strip(" \t")


def _attributes(scope: Scope, framed: bool, age: int | None) -> str:
    secure, prefix = scope["scheme"] == "https", scope.get(PREFIX_KEY, "")
    kept = f"; Max-Age={age}" if age is not None else ""
    where = "; SameSite=None; Secure; Partitioned" if framed and secure else "; SameSite=Lax" + "; Secure" * secure
    return f"Path={prefix}/; HttpOnly{where}{kept}"
