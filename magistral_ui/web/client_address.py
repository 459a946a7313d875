"""Finds out who asks, by address and browser, and tells everything further in; who that may be is not decided here."""

import ipaddress
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from magistral_ui.client import NO_CLIENT, Client, serving
from magistral_ui.i18n.languages import LANGUAGE_COOKIE as LANGUAGE_COOKIE
from magistral_ui.i18n.languages import Language, language_for
from magistral_ui.sessions.visitors import hashed
from magistral_ui.web.cookies import cookie_name, cookie_value, outdated, read_cookie
from magistral_ui.web.exposure import Exposure
from magistral_ui.web.forwarded_headers import FORWARDED_HEADERS as FORWARDING_HEADERS
from magistral_ui.web.forwarded_headers import is_forwarded
from magistral_ui.web.trusted_proxies import address_in

VISITOR_COOKIE = "magistral-ui-visit"
CLIENT_KEY = "magistral.caller"


class ClientAddressMiddleware:
    """Sets a request's caller, and takes out what only proxies may say; gives a browser that has none the cookie that tells it
    from others. That cookie is no login: it is worth what was begun with it."""

    def __init__(self, app: ASGIApp, *, exposure: Exposure) -> None:
        self.app, self._exposure = app, exposure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, by its caller's name."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, address = Headers(scope=scope), network_of(scope["client"][0])
        cookie = read_cookie(headers, cookie_name(VISITOR_COOKIE, scope))
        fresh = None if cookie else secrets.token_urlsafe(32)
        caller = Client(address, hashed(cookie or address), visitors_language(scope).code)
        known = {**scope, "headers": self._headers(scope), CLIENT_KEY: caller}

        async def with_cookie(message: Message) -> None:
            if fresh and message["type"] == "http.response.start" and scope["path"] in ("/", "/config"):
                value = cookie_value(VISITOR_COOKIE, fresh, known, framed=self._exposure.reach == "space")
                for each in (value, *outdated(VISITOR_COOKIE, known, headers)):
                    MutableHeaders(scope=message).append("Set-Cookie", each)
            await send(message)

        with serving(caller):
            await self.app(known, receive, with_cookie)

    def _headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """The headers without those about forwarding, which nobody further in shall believe; Host is the public name."""
        kept = [(name, value) for name, value in scope["headers"] if name.decode("latin-1") not in FORWARDING_HEADERS]
        if is_forwarded(scope) and self._exposure.reach == "proxy":
            public = urlsplit(self._exposure.url).netloc.encode()
            kept = [(name, public if name == b"host" else value) for name, value in kept]
        return kept


def client_of(scope: Scope) -> Client:
    """Who made a request, also later, when it is served outside of its own task."""
    found = scope.get(CLIENT_KEY)
    return found if isinstance(found, Client) else NO_CLIENT


def network_of(address: str) -> str:
    """What is counted as one address: an IPv6 one without its last 64 bits, which a visitor may choose."""
    parsed = address_in(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((parsed, 64), strict=False).network_address)
    return str(parsed) if parsed else address[:64]


def visitors_language(scope: Scope) -> Language:
    """The language for who made this request."""
    headers = Headers(scope=scope)
    chosen = cookie_parser(headers.get("cookie", "")).get(LANGUAGE_COOKIE)
    return language_for(chosen, headers.get("accept-language", ""))
