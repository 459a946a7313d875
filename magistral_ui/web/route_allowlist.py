"""Which addresses there are for visitors: those that the page and its client need, and nothing else that Gradio offers."""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from magistral_ui.web.error_responses import not_found

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
"""What goes on for long: there is nothing to be told of it without reading it, and so no HEAD."""
# What looks like a way up, or like another server, leads nowhere; Gradio checks the same again.
PATH_TRAVERSAL = re.compile(r"(?:^|/)\.{1,2}(?:/|$)|//|\\|[\x00-\x1f]")
FILE_PATH = "/gradio_api/file="
ACTIONS_PATH = "/magistral/act/"
MCP_PATH = "/mcp"


class RouteAllowlistMiddleware:
    """Answers 404 for all but the routes above, so that a new version of Gradio opens nothing new."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or say that there is nothing."""
        if scope["type"] == "http":
            if not is_open(scope["method"], scope["path"]):
                await not_found()(scope, receive, send)
                return
            if scope["path"] == "/":
                scope = {**scope, "query_string": b""}  # no deep links, and nothing else that a query could choose
        await self.app(scope, receive, send)


def is_open(method: str, path: str) -> bool:
    """Whether there is something for visitors."""
    if PATH_TRAVERSAL.search(path.removeprefix(FILE_PATH + "/") if path.startswith(FILE_PATH) else path):
        return False
    if path == MCP_PATH:
        return method in ("GET", "POST", "DELETE")
    if method == "HEAD" and path.startswith(STREAMS):
        return False
    if method in ("GET", "HEAD"):
        return GET_ROUTES.fullmatch(path) is not None
    return method == "POST" and POST_ROUTES.fullmatch(path) is not None
