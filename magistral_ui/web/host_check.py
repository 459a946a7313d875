"""Lets in only requests to our own names and from our own pages: neither a rebound name nor another website gets further."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from magistral_ui.web.error_responses import error_response
from magistral_ui.web.exposure import Exposure
from magistral_ui.web.hf_oauth import OAUTH_CALLBACK_PATH

FOREIGN_SITES = ("cross-site", "same-site")
NAVIGATIONS = ("navigate", "")


class HostCheckMiddleware:
    """Checks Host, Origin and what a browser says about who asks; programs send neither Origin nor Sec-Fetch."""

    def __init__(self, app: ASGIApp, *, exposure: Exposure) -> None:
        self.app, self._exposure = app, exposure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "websocket":  # nothing here speaks it
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        host = hosts[0] if len(hosts) == 1 else ""
        if not self._exposure.has_name(_name(host)):
            await error_response(421, "foreign_host")(scope, receive, send)
        elif not self._is_ours(scope, headers, host):
            await error_response(403, "foreign_origin")(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _is_ours(self, scope: Scope, headers: Headers, host: str) -> bool:
        origins = headers.getlist("origin")
        if origins:
            return len(origins) == 1 and self._exposure.has_origin(origins[0].lower(), scope["scheme"], host.lower())
        site, mode = headers.get("sec-fetch-site", ""), headers.get("sec-fetch-mode", "")
        if site not in FOREIGN_SITES:
            return True
        # A link from elsewhere may lead to the page, and a login back to it, but to nothing behind it.
        return (
            scope["method"] in ("GET", "HEAD") and mode in NAVIGATIONS and scope["path"] in ("/", OAUTH_CALLBACK_PATH)
        )


def _name(host: str) -> str:
    """A Host header without its port; empty where it is none."""
    if not host or any(sign in host for sign in "/@\\?# ,"):
        return ""
    try:
        return urlsplit("//" + host).hostname or ""
    except ValueError:
        return ""
