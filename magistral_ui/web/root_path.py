"""Takes off the path below which a proxy shows the page, and puts it back for Gradio; what lies between knows no such path."""

from collections.abc import Mapping
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from magistral_ui.web.cookies import PREFIX_KEY
from magistral_ui.web.exposure import Exposure, is_prefix, origin_of
from magistral_ui.web.forwarded_headers import FORWARDED_HEADERS, peer_of

PREFIX_HEADER = "x-forwarded-prefix"


class StripPrefixMiddleware:
    """A proxy may hand on `/ai/config`, or leave `/ai` out: both become `/config`."""

    def __init__(self, app: ASGIApp, *, exposure: Exposure) -> None:
        self.app, self._exposure = app, exposure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with the prefix apart."""
        prefix = self._prefix(scope) if scope["type"] == "http" else ""
        if not prefix:
            await self.app(scope, receive, send)
        elif scope["path"] == prefix and scope["method"] in ("GET", "HEAD"):
            await RedirectResponse(f"{prefix}/", 308)(scope, receive, send)  # the page's own addresses are relative
        else:
            path = scope["path"].removeprefix(prefix) if _is_below(scope["path"], prefix) else scope["path"]
            await self.app({**scope, **_path(path), PREFIX_KEY: prefix}, receive, send)

    def _prefix(self, scope: Scope) -> str:
        """The one that was set with `--share`; a header's only from a proxy that was set up there without one."""
        headers, trusted = Headers(scope=scope), self._exposure.proxies.trusts(peer_of(scope))
        if known := self._exposure.prefix:
            return known if _is_below(scope["path"], known) or (trusted and self._is_proxied(headers)) else ""
        if self._exposure.reach != "proxy" or not trusted:
            return ""
        told = headers.getlist(PREFIX_HEADER)
        prefix = told[0].strip().rstrip("/") if len(told) == 1 else ""
        return prefix if is_prefix(prefix) else ""

    def _is_proxied(self, headers: Headers) -> bool:
        """Whether the request was made to the proxy; from this machine, the page is found at its root, too."""
        named = origin_of(self._exposure.url).partition("://")[2]
        return headers.get("host", "").lower() == named or any(name in headers for name in FORWARDED_HEADERS)


class RestorePrefixMiddleware:
    """The innermost door: Starlette, and Gradio with it, expect the whole path, and beside it what belongs to the proxy."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on as it was made."""
        if prefix := prefix_of(scope):
            scope = {**scope, **_path(prefix + scope["path"]), "root_path": prefix}
        await self.app(scope, receive, send)


def prefix_of(scope: Scope) -> str:
    """The path below which this request found the page; empty: at the root."""
    return str(scope.get(PREFIX_KEY, ""))


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")


def _path(path: str) -> Mapping[str, object]:
    return {"path": path, "raw_path": quote(path).encode()}
