"""Lists the middleware that a request passes between the connection and Gradio's app, in order; what each does is in its file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from gradio.utils import get_upload_folder
from starlette.middleware import Middleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from magistral_ui.sessions.limits import Limits
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.web.client_address import ClientAddressMiddleware, ForwardedHeadersMiddleware, RestorePrefixMiddleware
from magistral_ui.web.exposure import Exposure
from magistral_ui.web.gradio_events import ApiFunction, GradioEventsMiddleware
from magistral_ui.web.health import HealthMiddleware, Metrics
from magistral_ui.web.hf_oauth import HuggingFaceLogin
from magistral_ui.web.login import LoginMiddleware
from magistral_ui.web.passwords import Passwords
from magistral_ui.web.queued_calls import QueuedCalls
from magistral_ui.web.rate_limit import RateLimitMiddleware
from magistral_ui.web.request_body import JsonBodies
from magistral_ui.web.request_guard import HostAndOriginMiddleware, OwnRoutesMiddleware, RouteAllowlistMiddleware
from magistral_ui.web.security_headers import SecurityHeadersMiddleware
from magistral_ui.web.uploads import Ownership, UploadsMiddleware


def middleware_stack(
    visitors: Visitors,
    exposure: Exposure,
    routes: Sequence[BaseRoute],
    passwords: Passwords | None = None,
    identity: HuggingFaceLogin | None = None,
    metrics_token: str = "",
    admins: frozenset[str] = frozenset(),
) -> list[Middleware]:
    """What every request passes, the outermost first. With `metrics_token`, /metrics can be read from elsewhere, too.

    Each is an ASGI application around the next one and sees HTTP requests only: connections.py serves nothing else.
    """
    limits, framed = visitors.limits, exposure.reach == "space"
    login = []
    if passwords is not None:
        login = [
            Middleware(
                LoginMiddleware,
                passwords=passwords,
                limits=limits,
                framed=framed,
                identity=identity,
                admins=admins,
            )
        ]
    return [
        # From here on, `client`, `scheme` and `path` are the visitor's, also behind a trusted proxy.
        Middleware(ForwardedHeadersMiddleware, exposure=exposure),
        # Content-Security-Policy and the like, on refusals too.
        Middleware(SecurityHeadersMiddleware, framed=framed),
        # Answers probes although the page may be full, and counts all requests, refused ones too.
        Middleware(
            HealthMiddleware, visitors=visitors, metrics=Metrics(visitors), exposure=exposure, token=metrics_token
        ),
        # A failure of any layer below is an answer of this app, with these headers and counted, not one of the server's.
        Middleware(ServerErrorMiddleware),
        # Neither a rebound name nor another website gets further; nothing before this may change anything.
        Middleware(HostAndOriginMiddleware, exposure=exposure),
        # Sets the client, by whom all that follows counts; gives a new browser its cookie.
        Middleware(ClientAddressMiddleware, exposure=exposure),
        # Before the login, so that a flood of requests does not even get to the passwords.
        Middleware(RateLimitMiddleware, limits=limits),
        # Before the routes: without a login, nobody learns what there is. With names, it makes the client a person.
        *login,
        # Of Gradio's routes, only those that the page and its client need.
        Middleware(RouteAllowlistMiddleware),
        # What the page's script asks ends here; it bounds and checks bodies itself.
        Middleware(OwnRoutesMiddleware, routes=routes),
    ]


def gradio_middleware(
    limits: Limits, listeners: Mapping[int, ApiFunction], calls: QueuedCalls, ownership: Ownership, bodies: JsonBodies
) -> list[Middleware]:
    """What a request passes after that on its way to Gradio's app, the outermost first."""
    folder = get_upload_folder()
    return [
        # Bodies are bounded here, and files go back only to who sent them.
        Middleware(UploadsMiddleware, ownership=ownership, limits=limits, folder=Path(folder), hourly=bodies.hourly),
        # Calls are read, checked and written anew, so Gradio gets only what was checked.
        Middleware(
            GradioEventsMiddleware, listeners=listeners, ownership=ownership, calls=calls, folder=folder, bodies=bodies
        ),
        # Innermost: Gradio expects the whole path.
        Middleware(RestorePrefixMiddleware),
    ]


def wrap(app: ASGIApp, stack: Sequence[Middleware]) -> ASGIApp:
    for layer in reversed(stack):
        app = layer.cls(app, *layer.args, **layer.kwargs)
    return app
