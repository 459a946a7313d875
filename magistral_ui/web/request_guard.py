"""Lets in what is for this page: host check (DNS rebinding), origin check (CSRF), a list of routes, and the page's own routes."""

import re
from collections.abc import Sequence
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from magistral_ui.web.error_responses import error_response, not_found
from magistral_ui.web.exposure import Exposure

SINGLE_HEADERS = frozenset(
    b"authorization content-length content-type host last-event-id mcp-protocol-version mcp-session-id origin "
    b"sec-fetch-mode sec-fetch-site transfer-encoding x-ticket".split()
)
"""Headers that something here decides by: of two, one reader takes the first and another the last."""
MAX_QUERY_FIELDS = 20
"""Names in a query: the page sends at most three."""
FOREIGN_SITES = ("cross-site", "same-site")
NAVIGATIONS = ("navigate", "")

GET_ROUTES = re.compile(
    r"/(?:config/?|theme\.css|favicon\.ico|robots\.txt|manifest\.json)?"
    r"|/assets/[\w./@-]+|/static/[\w./@-]+"
    r"|/magistral/(?:live|model|export)|/magistral/[\w./-]+\.(?:js|css|woff2|png|svg)"
    r"|/gradio_api/(?:info/?|startup-events|app_id/?|theme\.css|queue/data|upload_progress)"
    r"|/gradio_api/heartbeat/[\w-]+"
    r"|/gradio_api/call/[\w-]+/[\w-]+"
    r"|/gradio_api/file=.+"
    r"|/login/huggingface|/login/callback"
)
POST_ROUTES = re.compile(
    r"/gradio_api/(?:queue/join|call/[\w-]+|upload|cancel|reset)/?|/magistral/import|/magistral/act/[a-z]+/[a-z_]+"
)
STREAMS = ("/magistral/live", "/gradio_api/queue/data", "/gradio_api/heartbeat/", "/gradio_api/call/")
"""Streams: nothing can be said about them without reading them, so they have no HEAD."""
# What looks like a way up, or like another server, leads nowhere; Gradio checks the same again.
PATH_TRAVERSAL = re.compile(r"(?:^|/)\.{1,2}(?:/|$)|//|\\|[\x00-\x1f]")
FILE_PATH = "/gradio_api/file="
MCP_PATH = "/mcp"
ACTIONS_PATH = "/magistral/act/"
"""Below it are the actions of the page's script, see ui/actions.py."""
OAUTH_LOGIN_PATH, OAUTH_CALLBACK_PATH = "/login/huggingface", "/login/callback"


class HostAndOriginMiddleware:
    """Lets in requests to the page's own names and from its own pages, in which each header that is checked stands once.

    It checks Host, Origin and Sec-Fetch-Site, which browsers send and no website can forge; programs send neither of the latter.
    """

    def __init__(self, app: ASGIApp, *, exposure: Exposure) -> None:
        self.app, self._exposure = app, exposure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _has_duplicates(scope):
            await error_response(400, "request_forged")(scope, receive, send)
        elif not self._exposure.has_name(_name(host)):
            await error_response(421, "foreign_host")(scope, receive, send)
        elif not self._is_from_our_page(scope, headers, host):
            await error_response(403, "foreign_origin")(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _is_from_our_page(self, scope: Scope, headers: Headers, host: str) -> bool:
        if (origin := headers.get("origin")) is not None:
            return self._exposure.has_origin(origin.lower(), scope["scheme"], host.lower())
        if headers.get("sec-fetch-site", "") not in FOREIGN_SITES:
            return True
        # A link from elsewhere may lead to the page, and a login back to it, but to nothing else.
        is_link = scope["method"] in ("GET", "HEAD") and headers.get("sec-fetch-mode", "") in NAVIGATIONS
        return is_link and scope["path"] in ("/", OAUTH_CALLBACK_PATH)


class RouteAllowlistMiddleware:
    """Answers 404 for all but the routes above, so that a new version of Gradio opens nothing new."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_open(scope["method"], scope["path"]):
            await not_found()(scope, receive, send)
            return
        if scope["path"] == "/":
            scope = {**scope, "query_string": b""}  # no deep links, and nothing else that a query could choose
        await self.app(scope, receive, send)


class OwnRoutesMiddleware:
    """Serves the routes of the page's script. What is left is Gradio's app, with the layers that only that needs."""

    def __init__(self, app: ASGIApp, *, routes: Sequence[BaseRoute]) -> None:
        self.app, self._routes = app, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for route in self._routes:
            match, found = route.matches(scope)
            if match is Match.FULL:
                await route.handle({**scope, **found}, receive, send)
                return
        await self.app(scope, receive, send)


def is_open(method: str, path: str) -> bool:
    if PATH_TRAVERSAL.search(path.removeprefix(FILE_PATH + "/") if path.startswith(FILE_PATH) else path):
        return False
    if path == MCP_PATH:
        return method in ("GET", "POST", "DELETE")
    if method == "HEAD" and path.startswith(STREAMS):
        return False
    if method in ("GET", "HEAD"):
        return GET_ROUTES.fullmatch(path) is not None
    return method == "POST" and POST_ROUTES.fullmatch(path) is not None


def _has_duplicates(scope: Scope) -> bool:
    names = [name for name, _ in scope["headers"] if name in SINGLE_HEADERS]
    query = scope["query_string"].decode("latin-1")
    try:
        fields = [name for name, _ in parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)]
    except ValueError:  # too many of them
        return True
    return len(set(names)) < len(names) or len(set(fields)) < len(fields)


def _name(host: str) -> str:
    """A Host header without its port; empty if it is invalid."""
    if not host or any(sign in host for sign in "/@\\?# ,"):
        return ""
    try:
        return urlsplit("//" + host).hostname or ""
    except ValueError:
        return ""
