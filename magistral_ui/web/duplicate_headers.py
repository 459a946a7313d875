"""Refuses what stands twice where it is checked: one reader takes the first, another the last."""

from collections import Counter
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Receive, Scope, Send

from magistral_ui.web.error_responses import error_response

SINGLE_HEADERS = frozenset(
    {
        b"authorization",
        b"content-length",
        b"content-type",
        b"host",
        b"last-event-id",
        b"mcp-protocol-version",
        b"mcp-session-id",
        b"origin",
        b"sec-fetch-mode",
        b"sec-fetch-site",
        b"transfer-encoding",
        b"x-ticket",
    }
)
"""Headers that somebody here decides by."""
MAX_QUERY_FIELDS = 20
"""Names in a query: the page sends at most three."""


class DuplicateHeadersMiddleware:
    """Lets in requests in which each of these headers, and each name in the query, stands once."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and _has_double(scope):
            await error_response(400, "request_forged")(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _has_double(scope: Scope) -> bool:
    headers = Counter(name for name, _ in scope["headers"] if name in SINGLE_HEADERS)
    try:
        query = parse_qsl(
            scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS
        )
    except ValueError:  # too many of them
        return True
    names = Counter(name for name, _ in query)
    return any(count > 1 for count in (*headers.values(), *names.values()))
